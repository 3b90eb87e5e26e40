package checker_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
)

func TestChaosLost(t *testing.T) {
	t.Parallel()
	lost, unexplained := []checker.Rule{checker.Lost}, []checker.Rule{checker.Unexplained}
	quota := func(began, ended int) checker.Step { return faultStep("quota", began, ended) }
	try(t, []planted{
		{"as it is", func(*testing.T, *run) {}, nil},
		{"unsigned", func(t *testing.T, r *run) { t.Helper(); r.another(t, "pending", "") }, lost},
		{"unsigned, and nobody knows of it", func(t *testing.T, r *run) { t.Helper(); r.another(t, "", "") }, lost},
		{"unsigned, and not acknowledged", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "", "")
			last := &r.Journal[len(r.Journal)-1]
			last.Accepted, last.Ended = false, time.Time{}
		}, nil},
		{"one format is missing", func(t *testing.T, r *run) {
			t.Helper()
			digest := r.another(t, "", "")
			r.tell(digest, "failed", "unavailable", 210)
			r.event(digest, "signed", "", 211, checker.RowSignature{Format: checker.Legacy, KeyID: r.keyID})
			r.sign(t, digest, r.garden.layer(t, digest, claim{}))
		}, lost},
		{"signed by others", func(t *testing.T, r *run) {
			t.Helper()
			digest := r.another(t, "failed", "")
			key := newKey(t)
			r.sign(t, digest, r.garden.layer(t, digest, claim{key: key}))
			r.bundle(t, digest, statement{key: key})
		}, lost},
		{"the tag has left ours", func(t *testing.T, r *run) {
			t.Helper()
			r.refer(t, r.digest, r.layer)
			r.sign(t, r.digest, r.garden.layer(t, r.digest, claim{key: newKey(t)}))
			r.Rows[0].State, r.Rows[0].Signatures = "failed", nil
		}, lost},
		{"pushed again after it was deleted", func(t *testing.T, r *run) {
			t.Helper()
			digest := r.another(t, "pending", "")
			gone := push(150, digest)
			gone.Kind = checker.StepDelete
			r.Journal = append(r.Journal, push(120, digest), gone)
		}, lost},
		{"dead by a full quota", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal = append(r.Journal, quota(190, 220))
		}, nil},
		{"dead soon after the quota was full", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal = append(r.Journal, quota(190, 205))
		}, nil},
		{"dead long after the quota was full", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal = append(r.Journal, quota(150, 190))
		}, unexplained},
		{"dead before the quota was full", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal = append(r.Journal, quota(211, 230))
		}, unexplained},
		{"dead by the full quota of another project", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			other := quota(190, 220)
			other.Project = "other"
			r.Journal = append(r.Journal, other)
		}, unexplained},
		{"dead by another reason than a full quota", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "immutable")
			r.Journal = append(r.Journal, quota(190, 220))
		}, unexplained},
		{"dead while something else was broken", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal = append(r.Journal, faultStep("slow", 190, 220))
		}, unexplained},
		{"dead without a dead letter", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal, r.Letters = append(r.Journal, quota(190, 220)), nil
		}, lost},
		{"dead without an event", func(t *testing.T, r *run) {
			t.Helper()
			r.dead(t, "quota_exceeded")
			r.Journal, r.Ledger = append(r.Journal, quota(190, 220)), r.Ledger[:1]
		}, []checker.Rule{checker.Mismatched}},
		{"not there, and nobody deleted it", func(_ *testing.T, r *run) { r.Journal = append(r.Journal, push(200, absent)) }, unexplained},
		{"not there, and deleted before the push", func(_ *testing.T, r *run) {
			gone := push(150, absent)
			gone.Kind = checker.StepDelete
			r.Journal = append(r.Journal, push(200, absent), gone)
		}, unexplained},
		{"not there, and deleted", func(_ *testing.T, r *run) {
			gone := push(220, absent)
			gone.Kind = checker.StepDelete
			r.Journal = append(r.Journal, push(200, absent), gone)
		}, nil},
		{"not there, and perhaps deleted", func(_ *testing.T, r *run) {
			gone := push(150, absent)
			gone.Kind, gone.Accepted, gone.Ended = checker.StepDelete, false, time.Time{}
			r.Journal = append(r.Journal, push(200, absent), gone)
		}, nil},
	})
}

func TestChaosPolicies(t *testing.T) {
	t.Parallel()
	lost, extra := []checker.Rule{checker.Lost}, []checker.Rule{checker.Extra}
	both := checker.Formats()
	try(t, []planted{
		{"off afterwards, unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "skipped", "")
			r.Journal = append(r.Journal, policy(250))
		}, nil},
		{"perhaps off afterwards, unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "skipped", "")
			off := policy(250)
			off.Accepted, off.Ended = false, time.Time{}
			r.Journal = append(r.Journal, off)
		}, nil},
		{"off and on again, unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "skipped", "")
			r.Journal = append(r.Journal, policy(250), policy(260, both...))
		}, nil},
		{"off and on again for older images too, unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "pending", "")
			on := policy(260, both...)
			on.Backfill = true
			r.Journal = append(r.Journal, policy(250), on)
		}, lost},
		{"off and on again long before the push, unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "pending", "")
			r.Journal = append(r.Journal, policy(10), policy(20, both...))
		}, lost},
		{"on shortly before the push, unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.another(t, "pending", "")
			r.Journal = append(r.Journal, policy(10), policy(195, both...))
		}, nil},
		{"another format afterwards", func(_ *testing.T, r *run) { r.Journal = append(r.Journal, policy(250, checker.Bundle)) }, nil},
		{"off at the time of the push", func(_ *testing.T, r *run) { r.Journal = append(r.Journal, policy(50)) }, extra},
		{"off shortly before the push", func(_ *testing.T, r *run) { r.Journal = append(r.Journal, policy(95)) }, nil},
		{"never on", func(_ *testing.T, r *run) { r.Journal = r.Journal[1:] }, extra},
		{"on for another project", func(_ *testing.T, r *run) { r.Journal[0].Project = "other" }, extra},
		{"on after the push", func(_ *testing.T, r *run) { r.Journal[0] = policy(150, both...) }, nil},
		{"exempt", func(_ *testing.T, r *run) { r.Journal[0].Exempt = []string{repository + "@" + r.digest} }, extra},
		{"exempt with its repository", func(_ *testing.T, r *run) { r.Journal[0].Exempt = []string{repository} }, extra},
		{"another one is exempt", func(_ *testing.T, r *run) { r.Journal[0].Exempt = []string{repository + "@" + absent, "demo/other"} }, nil},
		{"exempt and unsigned", func(t *testing.T, r *run) {
			t.Helper()
			r.Journal[0].Exempt = []string{repository + "@" + r.another(t, "skipped", "exempt")}
		}, nil},
		{"a format that no policy asks for", func(_ *testing.T, r *run) { r.Journal[0].Formats = []checker.Format{checker.Legacy} }, extra},
		{"a key that no policy asks for", func(_ *testing.T, r *run) { r.Journal[0].Keys = []string{"next"} }, extra},
		{"the key is named", func(_ *testing.T, r *run) { r.Journal[0].Keys = []string{ourKey} }, nil},
		{"a second key, and none of its signatures", func(t *testing.T, r *run) {
			t.Helper()
			reader := checker.NewRegistry(checker.Access{URL: "http://" + r.address})
			r.Checkers["next"] = checker.New(reader, host, &newKey(t).PublicKey)
		}, []checker.Rule{checker.Lost, checker.Mismatched}},
	})
}

func TestChaosExtra(t *testing.T) {
	t.Parallel()
	extra := []checker.Rule{checker.Extra}
	try(t, []planted{
		{"never pushed", func(t *testing.T, r *run) {
			t.Helper()
			digest := r.image(t)
			r.sign(t, digest, r.garden.layer(t, digest, claim{}))
		}, extra},
		{"never pushed, and in the ledger", func(t *testing.T, r *run) {
			t.Helper()
			digest := r.image(t)
			bundled, _ := r.bundle(t, digest, statement{})
			r.tell(digest, "signed", "", 210, checker.RowSignature{Format: checker.Bundle, KeyID: r.keyID, Digest: bundled})
		}, extra},
		{"an accessory that was pushed", func(t *testing.T, r *run) {
			t.Helper()
			digest := r.image(t)
			attestation := push(200, digest)
			attestation.Subject = r.digest
			r.Journal = append(r.Journal, attestation)
			bundled, _ := r.bundle(t, digest, statement{})
			r.tell(digest, "signed", "", 210, checker.RowSignature{Format: checker.Bundle, KeyID: r.keyID, Digest: bundled})
		}, extra},
		{"an accessory that is not signed", func(t *testing.T, r *run) {
			t.Helper()
			attestation := push(200, r.image(t))
			attestation.Subject = r.digest
			r.Journal = append(r.Journal, attestation)
		}, nil},
		{"our own signature", func(t *testing.T, r *run) {
			t.Helper()
			r.bundle(t, r.tagged, statement{})
		}, extra},
		{"our own bundle", func(t *testing.T, r *run) {
			t.Helper()
			r.bundle(t, r.bundled, statement{})
		}, extra},
		{"another digest", func(t *testing.T, r *run) {
			t.Helper()
			r.bundle(t, r.digest, statement{digest: absent})
		}, extra},
		{"an attestation", func(t *testing.T, r *run) {
			t.Helper()
			r.bundle(t, r.digest, statement{predicate: "https://slsa.dev/provenance/v1"})
		}, extra},
		{"an attestation by others", func(t *testing.T, r *run) {
			t.Helper()
			r.bundle(t, r.digest, statement{predicate: "https://slsa.dev/provenance/v1", key: newKey(t)})
		}, nil},
	})
}

func TestChaosDoubled(t *testing.T) {
	t.Parallel()
	doubled := []checker.Rule{checker.Doubled}
	try(t, []planted{
		{"two legacy signatures", func(t *testing.T, r *run) {
			t.Helper()
			r.Rows[0].Signatures[0].Digest = r.sign(t, r.digest, r.layer, r.garden.layer(t, r.digest, claim{}))
		}, doubled},
		{"one legacy signature in two manifests", func(t *testing.T, r *run) {
			t.Helper()
			r.refer(t, r.digest, r.layer)
		}, nil},
		{"two bundles", func(t *testing.T, r *run) {
			t.Helper()
			plain := statement{}.complete(r.garden, r.digest).payload
			r.bundle(t, r.digest, statement{payload: plain + "\n"})
		}, doubled},
		{"one bundle in two manifests", func(t *testing.T, r *run) {
			t.Helper()
			r.bundle(t, r.digest, statement{note: "again"})
		}, nil},
	})
}

func TestChaosForeign(t *testing.T) {
	t.Parallel()
	lost := []checker.Rule{checker.ForeignLost}
	for _, format := range checker.Formats() {
		try(t, []planted{
			{string(format) + " is there", func(t *testing.T, r *run) {
				t.Helper()
				s, key := r.by(t, format)
				r.Journal = append(r.Journal, s)
				if format == checker.Bundle {
					r.bundle(t, r.digest, statement{key: key})
					return
				}
				r.Rows[0].Signatures[0].Digest = r.sign(t, r.digest, r.layer, r.theirs(t, key))
			}, nil},
			{string(format) + " is gone", func(t *testing.T, r *run) {
				t.Helper()
				s, _ := r.by(t, format)
				r.Journal = append(r.Journal, s)
			}, lost},
			{string(format) + " was not acknowledged", func(t *testing.T, r *run) {
				t.Helper()
				s, _ := r.by(t, format)
				s.Accepted = false
				r.Journal = append(r.Journal, s)
			}, nil},
			{string(format) + " was deleted with its subject", func(t *testing.T, r *run) {
				t.Helper()
				s, _ := r.by(t, format)
				gone := push(310, r.digest)
				gone.Kind = checker.StepDelete
				r.Journal = append(r.Journal, s, gone, push(320, r.digest))
			}, nil},
			{string(format) + " came after its subject was deleted", func(t *testing.T, r *run) {
				t.Helper()
				s, _ := r.by(t, format)
				gone := push(280, r.digest)
				gone.Kind = checker.StepDelete
				r.Journal = append(r.Journal, s, gone, push(290, r.digest))
			}, lost},
		})
	}
	try(t, []planted{
		{"the tag has left it", func(t *testing.T, r *run) {
			t.Helper()
			s, key := r.by(t, checker.Legacy)
			r.refer(t, r.digest, r.theirs(t, key))
			r.Journal = append(r.Journal, s)
		}, lost},
	})
}

func TestChaosCounts(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	r.dead(t, "quota_exceeded")
	lost := r.another(t, "pending", "")
	late := r.another(t, "skipped", "")
	r.Journal = append(r.Journal, push(500, lost), faultStep("quota", 190, 220), faultStep("kill", 1, 2), faultStep("kill", 3, 4),
		checker.Step{Kind: checker.StepCalm, Began: at(600), Ended: at(630)})
	off := policy(0)
	off.Project = "other"
	r.Journal = append(r.Journal, off)
	r.Journal[0].Exempt = []string{repository + "@" + late}
	var steps []int
	total := 0
	r.Progress = func(done, all int) { steps, total = append(steps, done), all }
	found, err := r.Check(t.Context())
	if err != nil {
		t.Fatalf("checking: %v", err)
	}
	want := "pushes=5 digests=4 signed=1 dead=1 undecided=0 by_webhook=1 by_sweep=0 by_final_sweep=0 " +
		"lost=1 doubled=0 mismatched=0 foreign_lost=0 extra=0 unheard=0 unexplained=0 " +
		"faults=kill:2,quota:1 calm=30s"
	if got := found.String(); got != want {
		t.Errorf("findings:\n got %s\nwant %s\n%v", got, want, found.Violations)
	}
	// Four digests and their repository.
	if !slices.Equal(steps, []int{1, 2, 3, 4, 5}) || total != 5 {
		t.Errorf("progress: got %v of %d, want 1 to 5 of 5", steps, total)
	}
}

// What cannot be looked at is no violation and no pass.
func TestChaosThatCannotLook(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "away", http.StatusServiceUnavailable)
	}))
	t.Cleanup(away.Close)
	here := r.Checkers
	r.Checkers = map[string]*checker.Checker{
		ourKey: checker.New(checker.NewRegistry(checker.Access{URL: away.URL}), host, &r.key.PublicKey),
	}
	if found, err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a registry that is away: got %v and the error %v, want 503", found, err)
	}
	r.Checkers = nil
	if _, err := r.Check(t.Context()); err == nil {
		t.Error("no key: got no error, want one")
	}
	r.Checkers = here
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("no time: got the error %v, want %v", err, context.Canceled)
	}
	r.Ledger[0].Ref = "demo"
	if _, err := r.Check(t.Context()); err == nil {
		t.Error("an event of what is no digest: got no error, want one")
	}
}
