package access

import (
	"path"
	"slices"
	"time"
)

// Kind is what a caller is.
type Kind string

// The kinds of callers.
const (
	User  Kind = "user"  // an account of Harbor
	Robot Kind = "robot" // a robot account of Harbor
	Token Kind = "token" // an API token
)

// Action is what a caller wants to do with a project.
type Action string

// The actions.
const (
	Read   Action = "read"   // the project, its coverage, its report and its events
	Change Action = "change" // its policy and its blocks; asking for a sweep
)

// Caller is who makes a request, for the time of this request. The zero value may do nothing. Printed in any way it shows
// no credentials.
type Caller struct {
	// Name is the account's in Harbor, or the token's in its file.
	Name        string
	Kind        Kind
	SystemAdmin bool
	// Auditor is whether the configuration lets this account read everything.
	Auditor bool

	// credentials are Harbor's, for users and robots. They are behind a pointer because package fmt prints no content of
	// inner pointers.
	credentials *credentials
	// grant is the token's.
	grant *grant
}

// Actor names the caller for events and logs. An API token cannot pass for an account of the same name.
func (c Caller) Actor() string {
	if c.Kind == Token {
		return "token:" + c.Name
	}
	return c.Name
}

// grant is what a line of the file of tokens allows.
type grant struct {
	name   string
	hash   hash
	change bool
	// projects are globs in the syntax of path.Match.
	projects []string
	// expires is zero for never.
	expires time.Time
}

func (g *grant) all() bool { return slices.Contains(g.projects, "*") }

// covers says whether the grant is about a project; an empty one stands for all.
func (g *grant) covers(project string) bool {
	if g.all() || project == "" {
		return g.all()
	}
	return slices.ContainsFunc(g.projects, func(glob string) bool {
		matched, err := path.Match(glob, project)
		return matched && err == nil
	})
}

func (g *grant) allows(action Action, project string) bool {
	return g.covers(project) && (action == Read || action == Change && g.change)
}

func (g *grant) expired(now time.Time) bool { return !g.expires.IsZero() && !now.Before(g.expires) }
