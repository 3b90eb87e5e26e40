package sqldb

import (
	"math"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// never is signed_sort of what was never signed.
const never = math.MinInt64 + 1

// condition is a part of a query. Only text of this file becomes SQL; what the caller asked for becomes parameters.
type condition struct {
	// indexed is the condition in a form that lets a planner use an index. hidden means the same, and keeps it from that: without
	// statistics, or with old ones, planners prefer the wrong index, or sort what an index has in order already.
	indexed, hidden string
	args            []any
	// from are the tables that the indexed form reads, the one that leads first; empty for units alone.
	from string
	// probe counts the rows of the indexed form in an index alone; empty if the indexed form does.
	probe string
}

// part names a condition.
type part string

// The parts of a query. bySeen, byPushed and bySigned are bounds of times.
const (
	byProject      part = "project"
	byProjects     part = "projects"
	byRepository   part = "repository"
	byRepositories part = "repositories"
	byDigest       part = "digest"
	byState        part = "state"
	byTag          part = "tag"
	byKey          part = "key"
	byFormat       part = "format"
	byPusher       part = "pusher"
	bySource       part = "pusher_source"
	byOnlyKey      part = "signed_only_by"
	byLogOwed      part = "log_owed"
	bySeen         part = "first_seen"
	byPushed       part = "pushed"
	bySigned       part = "signed"
	// byEvidence is not asked for: it holds wherever a key is asked for, and leads to those in a state that hardly ever has signatures.
	byEvidence part = "evidence"
)

// parts gives all that can be asked for, in the order in which they are written.
func parts() []part {
	return []part{
		byProject, byProjects, byRepository, byRepositories, byDigest, byState, byTag, byKey, byFormat, byPusher, bySource, byOnlyKey, byLogOwed, bySeen, byPushed, bySigned,
	}
}

// timeColumn is the column of a time by which rows are sorted.
func timeColumn(sort ledger.Sort) (part, string) {
	switch sort {
	case ledger.ByPushed:
		return byPushed, "units.pushed_sort"
	case ledger.BySigned:
		return bySigned, "units.signed_sort"
	default:
		return bySeen, "units.first_seen_at"
	}
}

// conditions gives what a filter asks for. Names are the repositories that a glob matches.
func conditions(f ledger.Filter, names []string) map[part]condition {
	all := make(map[part]condition)
	text := func(p part, column, value string) {
		if value != "" {
			all[p] = condition{indexed: column + " = ?", hidden: column + " || '' = ?", args: []any{value}}
		}
	}
	in := func(p part, column string, list []string) {
		of := " IN (" + marks(len(list)) + ")"
		all[p] = condition{indexed: column + of, hidden: column + " || ''" + of, args: values(list)}
	}
	text(byProject, "units.project", f.Project)
	if f.Project == "" && f.Projects != nil {
		in(byProjects, "units.project", f.Projects)
	}
	text(byRepository, "units.repository", f.Repository)
	if f.Glob != nil {
		in(byRepositories, "units.repository", names)
	}
	switch {
	case f.DigestTo != "":
		all[byDigest] = condition{indexed: "units.digest >= ? AND units.digest < ?", args: []any{f.DigestFrom, f.DigestTo}}
	case f.DigestFrom != "":
		text(byDigest, "units.digest", f.DigestFrom)
	}
	text(byState, "units.state", string(f.State))
	if f.Tag != "" {
		// A planner may turn EXISTS into a join; it leaves a number alone.
		all[byTag] = condition{
			indexed: "tags.name = ? AND units.id = tags.unit_id", from: "tags CROSS JOIN units", probe: "tags WHERE tags.name = ?",
			hidden: "(SELECT COUNT(*) FROM tags WHERE tags.unit_id = units.id AND tags.name = ?) > 0", args: []any{f.Tag},
		}
	}
	const ofKey = "unit_keys.key_id = ? AND units.id = unit_keys.unit_id"
	if f.Key != "" {
		all[byKey] = condition{
			indexed: ofKey, from: "unit_keys CROSS JOIN units", probe: "unit_keys WHERE unit_keys.key_id = ?",
			hidden: "(SELECT COUNT(*) FROM unit_keys WHERE unit_keys.key_id = ? AND unit_keys.first_seen_at = units.first_seen_at " +
				"AND unit_keys.first_seq = units.first_seq) > 0",
			args: []any{f.Key},
		}
	}
	switch {
	case f.Format == ledger.Both:
		text(byFormat, "units.formats", f.Format)
	case f.Format != "":
		in(byFormat, "units.formats", []string{f.Format, ledger.Both})
	}
	if f.Key != "" || f.SignedOnlyBy != "" {
		in(byEvidence, "units.formats", []string{string(artifact.Legacy), string(artifact.Bundle), ledger.Both, "other"})
	}
	sources := []string{string(f.PusherSource)}
	if f.PusherSource == "" {
		sources = []string{string(ledger.PusherHarbor), string(ledger.PusherNone), string(ledger.PusherWebhook)}
	}
	if f.Pusher != "" {
		of := "units.pusher_source IN (" + marks(len(sources)) + ") AND units.shown_pusher"
		all[byPusher] = condition{
			indexed: of + " = ?", hidden: strings.ReplaceAll(of, "source IN", "source || '' IN") + " || '' = ?", args: append(values(sources), f.Pusher),
		}
	} else {
		text(bySource, "units.pusher_source", string(f.PusherSource))
	}
	if f.SignedOnlyBy != "" {
		// Its key is one of those of the row: the index of keys leads to it.
		all[byOnlyKey] = condition{
			indexed: ofKey + " AND units.sole_key = unit_keys.key_id", from: "unit_keys CROSS JOIN units", probe: "unit_keys WHERE unit_keys.key_id = ?",
			hidden: "units.sole_key || '' = ?", args: []any{f.SignedOnlyBy},
		}
	}
	if f.LogOwed {
		all[byLogOwed] = condition{indexed: "units." + owes, hidden: "units.log_owed_since + 0 IS NOT NULL"}
	}
	for sort, r := range f.Times {
		p, column := timeColumn(ledger.Sort(sort))
		var bounds []string
		var args []any
		bound := func(text string, value any) { bounds, args = append(bounds, text), append(args, value) }
		switch {
		case !r.Since.IsZero():
			bound(column+" >= ?", micros(r.Since))
		case p == bySigned && (f.Sort == ledger.BySigned || !r.Until.IsZero()):
			bound(column+" > ?", int64(never))
		}
		if !r.Until.IsZero() {
			bound(column+" < ?", micros(r.Until))
		}
		if len(bounds) > 0 {
			indexed := strings.Join(bounds, " AND ")
			all[p] = condition{indexed: indexed, hidden: strings.ReplaceAll(indexed, column, column+" + 0"), args: args}
		}
	}
	return all
}

// isUnit is the condition of one digest of a repository. The index of digests leads: PostgreSQL takes that of repositories for as good
// while a table is empty, keeps the plan, and goes through a whole repository each time.
const isUnit = "units.repository || '' = ? AND units.digest = ?"

// planOf is how one digest of a repository is found: as by isUnit.
func planOf(ref artifact.Ref) *plan {
	all := map[part]condition{}
	all[byDigest] = condition{indexed: "units.digest = ?", args: []any{ref.Digest()}}
	all[byRepository] = condition{indexed: "units.repository = ?", hidden: "units.repository || '' = ?", args: []any{ref.Repository()}}
	return &plan{filter: ledger.Filter{Limit: 1}, conditions: all, leads: []part{byDigest}}
}

// marks gives n placeholders; none is a list that nothing is in.
func marks(n int) string {
	if n == 0 {
		return "NULL"
	}
	return "?" + strings.Repeat(", ?", n-1)
}

func values(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}
