package checker_test

import (
	"slices"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
)

func TestChaosRows(t *testing.T) {
	t.Parallel()
	mismatched := []checker.Rule{checker.Mismatched}
	row := func(change func(r *run, row *checker.Row)) func(*testing.T, *run) {
		return func(_ *testing.T, r *run) { change(r, &r.Rows[0]) }
	}
	try(t, []planted{
		{"a row that says signed of nothing", func(t *testing.T, r *run) {
			t.Helper()
			r.tell(r.another(t, "", ""), "signed", "", 210, r.evidence()...)
		}, []checker.Rule{checker.Lost, checker.Mismatched}},
		{"a row that says signed of what is gone", func(_ *testing.T, r *run) {
			gone := push(220, absent)
			gone.Kind = checker.StepDelete
			r.Journal = append(r.Journal, push(200, absent), gone)
			r.tell(absent, "signed", "", 210, r.evidence()...)
		}, mismatched},
		{"a row that says signed of what is gone, but for its signatures", func(t *testing.T, r *run) {
			t.Helper()
			gone := push(220, absent)
			gone.Kind = checker.StepDelete
			r.Journal = append(r.Journal, push(200, absent), gone)
			tagged := r.sign(t, absent, r.garden.layer(t, absent, claim{}))
			bundled, _ := r.bundle(t, absent, statement{})
			r.tell(absent, "signed", "", 210, checker.RowSignature{Format: checker.Legacy, KeyID: r.keyID, Digest: tagged},
				checker.RowSignature{Format: checker.Bundle, KeyID: r.keyID, Digest: bundled})
		}, mismatched},
		{"deleted, pushed again, and the project is not enabled any more", func(_ *testing.T, r *run) {
			forsake(r, policy(215))
		}, nil},
		{"deleted, pushed again, and the project is enabled", func(_ *testing.T, r *run) { forsake(r) }, mismatched},
		{"signed while it was deleted", func(t *testing.T, r *run) {
			t.Helper()
			orphan(t, r, true)
		}, nil},
		{"signed, gone, and nobody deleted it", func(t *testing.T, r *run) {
			t.Helper()
			orphan(t, r, false)
		}, []checker.Rule{checker.Mismatched, checker.Unexplained}},
		{"a row that says gone of what is gone", func(_ *testing.T, r *run) { r.tell(absent, "gone", "", 210) }, nil},
		{"no row", func(_ *testing.T, r *run) { r.Rows = nil }, mismatched},
		{"two rows", func(_ *testing.T, r *run) { r.Rows = append(r.Rows, r.Rows[0]) }, mismatched},
		{"another state", row(func(_ *run, row *checker.Row) { row.State, row.Signatures = "pending", nil }), mismatched},
		{"dead, and signed", func(_ *testing.T, r *run) {
			r.Rows[0].State, r.Rows[0].Signatures = "dead", nil
			r.Letters = append(r.Letters, checker.Letter{Repository: repository, Digest: r.digest, Reason: "quota_exceeded"})
		}, mismatched},
		{"signed, and a dead letter", func(_ *testing.T, r *run) {
			r.Letters = append(r.Letters, checker.Letter{Repository: repository, Digest: r.digest, Reason: "quota_exceeded"})
		}, mismatched},
		{"no signature", row(func(_ *run, row *checker.Row) { row.Signatures = nil }), mismatched},
		{"no signature, where there need be none", func(_ *testing.T, r *run) {
			r.Rows[0].Signatures = nil
			r.Journal = append(r.Journal, policy(250))
		}, mismatched},
		{"one signature of two", row(func(_ *run, row *checker.Row) { row.Signatures = row.Signatures[:1] }), mismatched},
		{"a manifest that carries none", row(func(_ *run, row *checker.Row) {
			row.Signatures = slices.Clone(row.Signatures)
			row.Signatures[1].Digest = absent
		}), mismatched},
		{"a manifest that carries the other format", row(func(r *run, row *checker.Row) {
			row.Signatures = slices.Clone(row.Signatures)
			row.Signatures[1].Digest = r.tagged
		}), mismatched},
		{"a key of nobody", row(func(_ *run, row *checker.Row) {
			row.Signatures = slices.Clone(row.Signatures)
			row.Signatures[0].KeyID = "00"
		}), mismatched},
		{"a log entry that is not there", row(func(_ *run, row *checker.Row) {
			row.Signatures = slices.Clone(row.Signatures)
			row.Signatures[0].Log = "rekor"
		}), mismatched},
		{"no event", func(_ *testing.T, r *run) { r.Ledger = nil }, mismatched},
		{"an event of another kind", func(_ *testing.T, r *run) { r.Ledger[0].Kind = "received" }, mismatched},
		{"an event of another digest", func(_ *testing.T, r *run) { r.Ledger[0].Ref = repository + "@" + absent }, mismatched},
		{"an event that names one format, and one of a paid debt that names the other", func(_ *testing.T, r *run) {
			all := r.Ledger[0].Signatures
			r.Ledger[0].Signatures = all[:1]
			r.event(r.digest, "log_debt_paid", "", 120, all[1:]...)
		}, nil},
		{"a paid debt that names nothing", func(_ *testing.T, r *run) {
			r.Ledger[0].Signatures = r.Ledger[0].Signatures[:1]
			r.event(r.digest, "log_debt_paid", "", 120)
		}, mismatched},
		{"a paid debt that names a key of nobody", func(_ *testing.T, r *run) {
			theirs := r.Ledger[0].Signatures[1]
			theirs.KeyID = "00"
			r.Ledger[0].Signatures = r.Ledger[0].Signatures[:1]
			r.event(r.digest, "log_debt_paid", "", 120, theirs)
		}, mismatched},
		{"an event that names one format", func(_ *testing.T, r *run) { r.Ledger[0].Signatures = r.Ledger[0].Signatures[:1] }, mismatched},
		{"an event of the service's own image", func(_ *testing.T, r *run) { r.Ledger[0].Canary = true }, mismatched},
		{"a row that claims nothing", func(_ *testing.T, r *run) { r.tell(absent, "skipped", "accessory", 210) }, nil},
	})
}

// forsake plants a row that names signatures of before the manifest was deleted and pushed again.
func forsake(r *run, policies ...checker.Step) {
	gone := push(220, r.digest)
	gone.Kind = checker.StepDelete
	r.Journal = append(append(r.Journal, gone, push(240, r.digest)), policies...)
	r.Rows[0].Signatures = slices.Clone(r.Rows[0].Signatures)
	r.Rows[0].Signatures[0].Digest, r.Rows[0].Signatures[1].Digest = absent, absent
}

// orphan plants a signature of a manifest that is not there, and of which no event tells.
func orphan(t *testing.T, r *run, deleted bool) {
	t.Helper()
	gone := push(220, absent)
	gone.Kind = checker.StepDelete
	r.Journal = append(r.Journal, push(200, absent))
	if deleted {
		r.Journal = append(r.Journal, gone)
	}
	r.bundle(t, absent, statement{})
	r.tell(absent, "gone", "", 225)
}

// A log entry that is asked for is part of the signature; two of them are a signature that was made twice.
func TestChaosProofs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		asked   bool
		entries []int64
		want    []checker.Rule
	}{
		{"not asked for, not there", false, nil, nil},
		{"asked for and there", true, []int64{7}, nil},
		{"asked for and not there", true, nil, []checker.Rule{checker.Lost}},
		{"there twice", true, []int64{7, 8}, []checker.Rule{checker.Doubled}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWitness(t)
			digest := w.image(t)
			id, err := checker.KeyID(&w.key.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			s := statement{}
			evidence := checker.RowSignature{Format: checker.Bundle, KeyID: id}
			if len(tt.entries) > 0 {
				s.beside = w.logged(w.log, false, tt.entries...)
				evidence.Log, evidence.LogIndex = "rekor", tt.entries[0]
			}
			evidence.Digest, _ = w.bundle(t, digest, s)
			judge := w.judge(t, checker.Asked{Log: tt.asked}, checker.Bundle)
			r := run{Chaos: checker.Chaos{
				Checkers: map[string]*checker.Checker{ourKey: judge}, Journal: []checker.Step{policy(0, checker.Bundle), push(100, digest)},
			}}
			r.tell(digest, "signed", "", 110, evidence)
			found, err := r.Check(t.Context())
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(found.Violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, found.Violations)
			}
		})
	}
}
