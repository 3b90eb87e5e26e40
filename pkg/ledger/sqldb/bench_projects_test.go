package sqldb_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// fillMillion writes 1,000,000 digests in 500 projects and 20,000 repositories, nearly all of them signed, and 30 sweeps of
// each project. It goes by the tables: through events it would take minutes.
const fillMillion = `
	WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
	INSERT INTO units (
		project, repository, digest, state, sole_key, first_seq, first_seen_at, last_seq,
		received_seq, received_at, pushed_at, pusher, last_received_seq,
		signed_seq, signed_at, verified_seq, verified_at, key_id, format, signature_digest, how,
		signatures_seq, signatures, note, accessories_seq, accessories, key_set,
		gone_seq, unsigned_seq, other_seq, other, reason, detail, media_type_seq, media_type, policy_revision_seq, policy_revision, attempts)
	SELECT
		'project-' || (i % 500), 'project-' || (i % 500) || '/team/app-' || (i % 20000), 'sha256:' || lower(hex(randomblob(32))),
		CASE i % 1009 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' WHEN 2 THEN 'gone' WHEN 3 THEN 'unsigned' WHEN 4 THEN 'skipped' ELSE 'signed' END,
		CASE WHEN i % 1009 < 5 THEN '' WHEN i % 997 = 0 THEN 'retired' ELSE printf('%064d', 7) END, 2 * i, 1700000000000000 + i, 2 * i + 1,
		2 * i, 1700000000000000 + i, 1700000000000000 + i, 'robot$ci', 2 * i,
		2 * i + 1, 1700000000000000 + i, 2 * i + 1, 1700000000000000 + i, printf('%064d', 7), 'legacy', printf('sha256:%064d', i), 'made',
		2 * i + 1, json_array(json_object('format', 'legacy', 'key_id', printf('%064d', 7), 'digest', printf('sha256:%064d', i))), '', 2 * i + 1,
		json_array(printf('sha256:%064d', i)), printf('%064d', 9),
		0, 0, 2 * i, 'pending', CASE i % 1009 WHEN 4 THEN 'accessory' ELSE '' END, '', 2 * i + 1, 'application/vnd.oci.image.manifest.v1+json', 2 * i + 1, 'r1', 1
	FROM n;
	WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000)
	INSERT INTO project_events (seq, project, kind, at, actor, origin, reason, detail, data)
	SELECT 5000000 + i, 'project-' || (i % 500), 'swept', 1800000000000000 + i, 'sweep', 'sweep', '', '', '{"sweep":{"population":2000}}' FROM n`

// BenchmarkMillion asks what sweeps and the API ask, of a view with 1,000,000 rows.
func BenchmarkMillion(b *testing.B) {
	path := filepath.Join(b.TempDir(), "ledger.db")
	store, err := sqldb.Open(b.Context(), sqldb.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	db := raw(b, path)
	exec(b, db, fillMillion)
	exec(b, db, "UPDATE units SET log_owed_since = first_seen_at WHERE id % 10 = 0") // a log has been away for long
	var refs []artifact.Ref
	rows, err := db.QueryContext(b.Context(), "SELECT repository, digest FROM units ORDER BY digest LIMIT 500")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var repository, digest string
		if err := rows.Scan(&repository, &digest); err != nil {
			b.Fatal(err)
		}
		ref, err := artifact.NewRef(repository, digest)
		if err != nil {
			b.Fatal(err)
		}
		refs = append(refs, ref)
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}

	some := make([]string, 50)
	for i := range some {
		some[i] = fmt.Sprintf("project-%d", 3*i)
	}
	all := make([]string, 500)
	for i := range all {
		all[i] = fmt.Sprintf("project-%d", i)
	}
	empty := make([]string, 50) // their rows would be the oldest
	for i := range empty {
		empty[i] = fmt.Sprintf("empty-%d", i)
	}
	page := func(q ledger.Query) func(b *testing.B) error {
		return func(b *testing.B) error {
			b.Helper()
			_, err := store.Signatures(b.Context(), q)
			return err
		}
	}
	for _, bb := range []struct {
		name string
		ask  func(b *testing.B) error
	}{
		{"known of 100", func(b *testing.B) error { b.Helper(); _, err := store.Known(b.Context(), refs[:100]); return err }},
		{"known of 500", func(b *testing.B) error { b.Helper(); _, err := store.Known(b.Context(), refs); return err }},
		{"coverage of all", func(b *testing.B) error { b.Helper(); _, err := store.Coverage(b.Context(), nil); return err }},
		{"coverage of 50", func(b *testing.B) error { b.Helper(); _, err := store.Coverage(b.Context(), some); return err }},
		{"coverage of one", func(b *testing.B) error { b.Helper(); _, err := store.Coverage(b.Context(), all[7:8]); return err }},
		{"totals", func(b *testing.B) error { b.Helper(); _, err := store.Totals(b.Context()); return err }},
		{"what owes", page(ledger.Query{LogOwed: true})},
		{"what owes, in a project", page(ledger.Query{LogOwed: true, Project: "project-7"})}, // none does
		{"what owes, in another project", page(ledger.Query{LogOwed: true, Project: "project-10"})},
		{"what owes and is signed", page(ledger.Query{LogOwed: true, State: ledger.Signed})},
		{"what owes and is signed by a key of most", page(ledger.Query{LogOwed: true, SignedOnlyBy: fmt.Sprintf("%064d", 7)})},
		{"what owes, of a repository", page(ledger.Query{LogOwed: true, Repository: "project-10/team/app-10"})},
		{"what owes, of a digest", page(ledger.Query{LogOwed: true, Digest: refs[7].Digest()[:20]})},
		{"what owes, in 50 visible projects", page(ledger.Query{LogOwed: true, Projects: some})},
		{"what owes, in 50 visible projects without rows", page(ledger.Query{LogOwed: true, Projects: empty})},
		{"names", func(b *testing.B) error { b.Helper(); _, err := store.Names(b.Context()); return err }},
		{"100 units", func(b *testing.B) error {
			b.Helper()
			_, _, err := store.Units(b.Context(), "project-7", "", 100)
			return err
		}},
		{"1000 units in the middle", func(b *testing.B) error {
			b.Helper()
			_, _, err := store.Units(b.Context(), "project-7", ledgertest.Ref("project-7/team/app-4", 1).String(), 1000)
			return err
		}},
		{"events of a project", func(b *testing.B) error {
			b.Helper()
			_, err := store.ProjectEvents(b.Context(), ledger.EventQuery{Project: "project-7"})
			return err
		}},
		{"signed only by a key of few", page(ledger.Query{SignedOnlyBy: "retired"})},
		{"signed only by a key of few, in a project", page(ledger.Query{SignedOnlyBy: "retired", Project: "project-7"})},
		{"signed only by a key of most", page(ledger.Query{SignedOnlyBy: fmt.Sprintf("%064d", 7)})},
		{"signed only by a key of most, in a project", page(ledger.Query{SignedOnlyBy: fmt.Sprintf("%064d", 7), Project: "project-7"})},
		{"signed only by a key without rows, in a project", page(ledger.Query{SignedOnlyBy: "none", Project: "project-7"})},
		{"signed only by a key without rows", page(ledger.Query{SignedOnlyBy: "none"})},
		{"page of a visible project", page(ledger.Query{Projects: all[7:8]})},
		{"page of 50 visible projects", page(ledger.Query{Projects: some})},
		{"page of 500 visible projects", page(ledger.Query{Projects: all})},
		{"page of 50 visible projects and a state", page(ledger.Query{Projects: some, State: ledger.Pending})},
		{"page of 50 visible projects and a state without rows", page(ledger.Query{Projects: some, State: ledger.Dead})},
		{"page of 50 visible projects and a key", page(ledger.Query{Projects: some, SignedOnlyBy: "retired"})},
		{"page of 50 visible projects without rows", page(ledger.Query{Projects: empty})},
		{"page of 3 visible projects", page(ledger.Query{Projects: all[7:10]})},
		{"page of 50 visible projects, hundredth page", func(b *testing.B) error {
			b.Helper()
			q := ledger.Query{Projects: some, State: ledger.Unsigned, Limit: 1}
			for range 100 {
				got, err := store.Signatures(b.Context(), q)
				if err != nil || got.NextCursor == "" {
					return err
				}
				q.Cursor = got.NextCursor
			}
			return nil
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				if err := bb.ask(b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
