package sqldb_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestCoverageReport(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		store := d.open(t)
		position, err := store.Reset(t.Context(), ledger.Position{}, ledgertest.Epoch(), ledger.Rules)
		if err != nil {
			t.Fatal(err)
		}
		day := ledger.DayOf(ledgertest.Epoch()).Start()
		event := func(kind artifact.Kind, repository string, n int, at time.Duration, edit func(*artifact.Event)) artifact.Event {
			e := ledgertest.Event(kind, ledgertest.Ref(repository, n))
			e.Time, e.PushedAt, e.Pusher = day.Add(at), nil, ""
			if edit != nil {
				edit(&e)
			}
			return e
		}
		made := func(e *artifact.Event) { e.How = artifact.Made }
		because := func(reason string) func(*artifact.Event) {
			return func(e *artifact.Event) { e.Reason = reason }
		}
		key := func(kind artifact.Kind, at time.Duration, state string) artifact.Event {
			return artifact.Event{
				ID: "key" + state, Kind: kind, Time: day.Add(at), CorrelationID: "c", Origin: artifact.OriginSigner,
				Key: &artifact.KeyRecord{ID: "k1", Name: "images", Use: "image", State: state},
			}
		}
		const hour, tomorrow = time.Hour, 24 * time.Hour
		entries := ledgertest.Entries(
			event(artifact.Received, "demo/app", 1, hour, nil), event(artifact.Signed, "demo/app", 1, hour+2*time.Second, made),
			event(artifact.Received, "demo/app", 2, hour, nil), event(artifact.Signed, "demo/app", 2, tomorrow+hour, made),
			event(artifact.Received, "demo/app", 3, 2*hour, nil), event(artifact.Failed, "demo/app", 3, 3*hour, because("unavailable")),
			event(artifact.Received, "demo/app", 4, tomorrow, nil), event(artifact.Skipped, "demo/app", 4, tomorrow, because(string(policy.Exempt))),
			event(artifact.Received, "demo/app", 5, tomorrow, nil), event(artifact.Skipped, "demo/app", 5, tomorrow, because(string(policy.IsAccessory))),
			event(artifact.Received, "demo/app", 6, tomorrow, nil), event(artifact.Vanished, "demo/app", 6, tomorrow, nil),
			event(artifact.Received, "other/app", 1, tomorrow, nil), event(artifact.Dead, "other/app", 1, tomorrow, because("locked")),
			event(artifact.Blocked, "other/app", 2, tomorrow, because(string(policy.Blocked))),
			key(artifact.KeyAdded, hour, "active"), key(artifact.KeyRevoked, tomorrow, "revoked"),
		)
		if err := store.Apply(t.Context(), position.Basis, entries); err != nil {
			t.Fatal(err)
		}
		report, err := store.CoverageReport(t.Context(), ledger.CoverageQuery{Since: day, Until: day.Add(tomorrow)})
		if err != nil {
			t.Fatal(err)
		}
		total := report.Total
		if want := (ledger.Exceptions{Failed: 1, Dead: 1, Exempt: 1, Blocked: 1}); total.Exceptions != want {
			t.Errorf("exceptions of all: got %+v, want %+v", total.Exceptions, want)
		}
		if total.Population != 6 || total.Signed != 2 || total.Failed != 2 || total.Excluded != 1 {
			t.Errorf("total: got %+v, want 6 digests, 2 signed, 2 failed, 1 excluded", total.Coverage)
		}
		if want := day.Add(2 * hour); total.OldestUnsignedAt == nil || !total.OldestUnsignedAt.Equal(want) {
			t.Errorf("oldest without a signature: got %v, want %v", total.OldestUnsignedAt, want)
		}
		if report.AsOf != uint64(len(entries)) || report.ProjectsTotal != 2 || report.Projects[0].Project != "demo" && report.Projects[0].Project != "other" {
			t.Errorf("as of %d with %d projects, want %d and 2", report.AsOf, report.ProjectsTotal, len(entries))
		}
		if p := total.TimeToSign; p == nil || p.Count != 2 || p.P50 < 2 || p.P50 > 2.25 || p.P99 < 86400 || p.P99 > 86400*1.13 {
			t.Errorf("time to sign: got %+v, want 2 of 2 s and 24 h, at most an eighth above", p)
		}
		if len(total.Days) != 2 || total.Days[0].Population != 3 || total.Days[0].Signed != 2 || total.Days[0].Exceptions.Failed != 1 ||
			total.Days[1].Population != 3 || total.Days[1].TimeToSign == nil || total.Days[1].TimeToSign.Count != 1 {
			t.Errorf("days: got %+v", total.Days)
		}
		if len(report.Keys) != 1 || report.Keys[0].State != "revoked" || report.Keys[0].AddedAt == nil || report.Keys[0].RevokedAt == nil {
			t.Errorf("keys: got %+v, want one that was added and revoked", report.Keys)
		}

		one, err := store.CoverageReport(t.Context(), ledger.CoverageQuery{Project: "other", Projects: []string{"other"}, Since: day.Add(tomorrow), Until: day.Add(tomorrow)})
		if err != nil {
			t.Fatal(err)
		}
		if len(one.Projects) != 1 || one.Total.Population != 2 || len(one.Projects[0].Days) != 1 || one.Projects[0].Days[0].Exceptions.Dead != 1 {
			t.Errorf("one project and day: got %+v", one)
		}
		foreign, err := store.CoverageReport(t.Context(), ledger.CoverageQuery{Project: "demo", Projects: []string{"other"}})
		if err != nil || len(foreign.Projects) != 0 || foreign.Total.Population != 0 {
			t.Errorf("a project that one may not see: got %+v, %v; want nothing", foreign, err)
		}
	})
}
