package harbortest

import (
	"fmt"
	"strings"
)

// show says which parts of an artifact a request wants to see.
type show struct{ tags, accessories, immutable bool }

func (c *call) shows() show {
	return show{
		tags: c.flag("with_tag", true), accessories: c.flag("with_accessory", false),
		immutable: c.flag("with_immutable_status", false),
	}
}

func (a *artifact) view(s show) map[string]any {
	out := map[string]any{
		"accessories": nil, "digest": a.digest, "icon": iconUnknown, "id": a.id, "labels": nil,
		"manifest_media_type": a.manifestType, "media_type": a.mediaType, "project_id": a.repo.project.id,
		"pull_time": timestamp(a.pulled), "push_time": timestamp(a.pushed), "references": nil,
		"repository_id": a.repo.id, "repository_name": a.repo.name, "size": a.size, "tags": nil, "type": a.kind,
	}
	for key, value := range map[string]any{"annotations": a.annotations, "extra_attrs": a.extra} {
		if m, ok := value.(map[string]string); ok && len(m) > 0 {
			out[key] = m
		}
		if m, ok := value.(map[string]any); ok && len(m) > 0 {
			out[key] = m
		}
	}
	if a.artifactType != "" {
		out["artifact_type"] = a.artifactType
	}
	switch a.kind {
	case kindImage:
		out["icon"] = iconImage
		if a.mediaType != a.manifestType {
			out["addition_links"] = a.additions("build_history")
		}
	case kindChart:
		out["icon"] = iconChart
		out["addition_links"] = a.additions("dependencies", "readme.md", "values.yaml")
	}
	if len(a.children) > 0 {
		out["references"] = a.references()
	}
	if s.tags && len(a.tags) > 0 {
		out["tags"] = a.tagViews(s)
	}
	if accessories := a.repo.accessories[a.digest]; s.accessories && len(accessories) > 0 {
		out["accessories"] = accessoryViews(a, accessories)
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

func (a *artifact) references() []any {
	out := make([]any, 0, len(a.children))
	for _, ch := range a.children {
		out = append(out, map[string]any{
			"child_digest": ch.artifact.digest, "child_id": ch.artifact.id, "parent_id": a.id, "platform": ch.platform,
			"urls": nil,
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

// view renders a tag; without with_immutable_status Harbor calls every tag mutable.
func (t *tag) view(s show) any {
	return map[string]any{
		"artifact_id": t.artifact.id, "id": t.id, "immutable": s.immutable && t.immutable(), "name": t.name, "pull_time": timestamp(t.pulled),
		"push_time": timestamp(t.pushed), "repository_id": t.artifact.repo.id,
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
	icon := ""
	if a.accessory.kind == accessoryCosign {
		icon = iconCosignSignature
	}
	return map[string]any{
		"artifact_id": a.id, "creation_time": timestamp(a.accessory.created), "digest": a.digest, "icon": icon,
		"id": a.accessory.id, "size": a.size, "subject_artifact_digest": subject.digest,
		"subject_artifact_id": subject.id, "subject_artifact_repo": subject.repo.name, "type": a.accessory.kind,
	}
}
