package harbortest

import (
	"slices"
	"strings"
)

// rolePublic is what everybody may do in a public project; Harbor has no such number.
const rolePublic = 0

// right is one entry of a robot's permissions or of the catalog of them.
type right struct {
	Action   string `json:"action"`
	Resource string `json:"resource"`
	Effect   string `json:"effect,omitempty"`
}

// permissionCatalog is GET /permissions: what robots can be given.
type permissionCatalog struct {
	Project []right `json:"project"`
	System  []right `json:"system"`
}

func (c permissionCatalog) knows(kind string, r right) bool {
	rights := c.Project
	if kind == kindSystem {
		rights = c.System
	}
	return r.Resource == "*" || r.Action == "*" || slices.ContainsFunc(rights, func(known right) bool {
		return known.Resource == r.Resource && known.Action == r.Action
	})
}

// roleAllows is Harbor's table of roles, as far as the emulator has endpoints for it.
//
// SPEC: Harbor documentation, User Permissions By Role.
func roleAllows(role int, resource, action string) bool {
	return slices.Contains(strings.Fields(roleRights(role)), resource+":"+action)
}

func roleRights(role int) string {
	const (
		limited = "project:read repository:list repository:pull tag:list accessory:list artifact:read artifact:list " +
			"artifact-addition:read quota:read "
		public = "project:read repository:list repository:pull repository:read tag:list accessory:list " +
			"artifact:read artifact:list artifact-addition:read "
		guest     = limited + "repository:read member:read member:list log:list robot:read robot:list "
		developer = guest + "repository:create repository:update repository:push artifact:create tag:create "
		keeper    = developer + "repository:delete artifact:delete tag:delete notification-policy:list " +
			"metadata:create metadata:read metadata:list metadata:update metadata:delete " +
			"immutable-tag:create immutable-tag:update immutable-tag:delete immutable-tag:list "
		admin = keeper + "project:update project:delete member:create member:update member:delete " +
			"robot:create robot:update robot:delete notification-policy:create notification-policy:update " +
			"notification-policy:delete notification-policy:read "
	)
	switch role {
	case roleProjectAdmin:
		return admin
	case roleMaintainer:
		return keeper
	case roleDeveloper:
		return developer
	case roleGuest:
		return guest
	case roleLimitedGuest:
		return limited
	default:
		return public
	}
}

func roleName(role int) string {
	switch role {
	case roleProjectAdmin:
		return "projectAdmin"
	case roleDeveloper:
		return "developer"
	case roleGuest:
		return "guest"
	case roleMaintainer:
		return "maintainer"
	default:
		return "limitedGuest"
	}
}
