package harbortest

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// show says which parts of an artifact a request wants to see.
type show struct{ tags, accessories, immutable bool }

func (c *call) shows() show {
	return show{
		tags: c.flag("with_tag", true), accessories: c.flag("with_accessory", false),
		immutable: c.flag("with_immutable_status", false),
	}
}

// artifactView is an artifact in the API. What is nil without omitempty is shown as null.
type artifactView struct {
	Accessories    []any             `json:"accessories"`
	AdditionLinks  map[string]any    `json:"addition_links,omitempty"`
	Annotations    map[string]string `json:"annotations,omitempty"`
	ArtifactType   string            `json:"artifact_type,omitempty"`
	Digest         digest.Digest     `json:"digest"`
	ExtraAttrs     map[string]any    `json:"extra_attrs,omitempty"`
	Icon           string            `json:"icon"`
	ID             int64             `json:"id"`
	Labels         any               `json:"labels"`
	ManifestType   string            `json:"manifest_media_type"`
	MediaType      string            `json:"media_type"`
	ProjectID      int64             `json:"project_id"`
	Pulled         string            `json:"pull_time"`
	Pushed         string            `json:"push_time"`
	References     []any             `json:"references"`
	RepositoryID   int64             `json:"repository_id"`
	RepositoryName string            `json:"repository_name"`
	Size           int64             `json:"size"`
	Tags           []any             `json:"tags"`
	Type           string            `json:"type"`
}

func (a *artifact) view(s show) any {
	out := &artifactView{
		Annotations: a.annotations, ArtifactType: a.artifactType, Digest: a.digest, ExtraAttrs: a.extra, Icon: iconUnknown,
		ID: a.id, ManifestType: a.manifestType, MediaType: a.mediaType, ProjectID: a.repo.project.id,
		Pulled: timestamp(a.pulled), Pushed: timestamp(a.pushed), RepositoryID: a.repo.id, RepositoryName: a.repo.name,
		Size: a.size, Type: a.kind,
	}
	switch a.kind {
	case kindImage:
		out.Icon = iconImage
		if a.mediaType != a.manifestType {
			out.AdditionLinks = a.additions("build_history")
		}
	case kindChart:
		out.Icon = iconChart
		out.AdditionLinks = a.additions("dependencies", "readme.md", "values.yaml")
	}
	if len(a.children) > 0 {
		out.References = a.references()
	}
	if s.tags && len(a.tags) > 0 {
		out.Tags = a.tagViews(s)
	}
	if s.accessories {
		if accessories := a.accessories(); len(accessories) > 0 {
			out.Accessories = accessoryViews(a, accessories)
		}
	}
	return out
}

// additions are links to what Harbor can show of an artifact; the emulator does not serve them.
func (a *artifact) additions(names ...string) map[string]any {
	out := make(map[string]any, len(names))
	for _, name := range names {
		out[name] = map[string]any{
			"absolute": false,
			"href": fmt.Sprintf("%sprojects/%s/repositories/%s/artifacts/%s/additions/%s", apiPrefix, a.repo.project.name,
				strings.ReplaceAll(a.repo.short(), "/", "%252F"), a.digest, name),
		}
	}
	return out
}

// referenceView is a child of an index in the API.
type referenceView struct {
	ChildDigest digest.Digest `json:"child_digest"`
	ChildID     int64         `json:"child_id"`
	ParentID    int64         `json:"parent_id"`
	Platform    *platform     `json:"platform"`
	URLs        any           `json:"urls"`
}

func (a *artifact) references() []any {
	out := make([]any, 0, len(a.children))
	for _, ch := range a.children {
		out = append(out, &referenceView{
			ChildDigest: ch.artifact.digest, ChildID: ch.artifact.id, ParentID: a.id, Platform: ch.platform,
		})
	}
	return out
}

func (a *artifact) tagViews(s show) []any {
	out := make([]any, 0, len(a.tags))
	for _, t := range newestFirst(a.tags) {
		out = append(out, t.view(s))
	}
	return out
}

// tagView is a tag in the API.
type tagView struct {
	ArtifactID   int64  `json:"artifact_id"`
	ID           int64  `json:"id"`
	Immutable    bool   `json:"immutable"`
	Name         string `json:"name"`
	Pulled       string `json:"pull_time"`
	Pushed       string `json:"push_time"`
	RepositoryID int64  `json:"repository_id"`
}

// view renders a tag; without with_immutable_status Harbor calls every tag mutable.
func (t *tag) view(s show) any {
	return &tagView{
		ArtifactID: t.artifact.id, ID: t.id, Immutable: s.immutable && t.immutable(), Name: t.name,
		Pulled: timestamp(t.pulled), Pushed: timestamp(t.pushed), RepositoryID: t.artifact.repo.id,
	}
}

func accessoryViews(subject *artifact, accessories []*artifact) []any {
	out := make([]any, 0, len(accessories))
	for _, a := range accessories {
		out = append(out, accessoryView(subject, a))
	}
	return out
}

func accessoryView(subject, a *artifact) any {
	out := &accessoryJSON{
		ArtifactID: a.id, Created: timestamp(a.accessory.created), Digest: a.digest, ID: a.accessory.id, Size: a.size,
		SubjectDigest: subject.digest, SubjectID: subject.id, SubjectRepo: subject.repo.name, Type: a.accessory.kind,
	}
	if a.accessory.kind == accessoryCosign {
		out.Icon = iconCosignSignature
	}
	return out
}

// accessoryJSON is an accessory in the API.
type accessoryJSON struct {
	ArtifactID    int64         `json:"artifact_id"`
	Created       string        `json:"creation_time"`
	Digest        digest.Digest `json:"digest"`
	Icon          string        `json:"icon"`
	ID            int64         `json:"id"`
	Size          int64         `json:"size"`
	SubjectDigest digest.Digest `json:"subject_artifact_digest"`
	SubjectID     int64         `json:"subject_artifact_id"`
	SubjectRepo   string        `json:"subject_artifact_repo"`
	Type          string        `json:"type"`
}
