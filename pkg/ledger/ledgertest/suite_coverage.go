package ledgertest

import (
	"encoding/json"
	"reflect"
	"strconv"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// testCoverageReport compares reports with those of the model, which counts rows.
func testCoverageReport(t TB, view View) {
	const dayLength = 24 * time.Hour
	rapid.Check(t, func(t *rapid.T) {
		history := dense(t, Histories().Draw(t, "history"))
		for i := range history {
			entry := &history[i]
			entry.Event.Time = entry.Event.Time.Add(time.Duration(rapid.IntRange(-2, 3).Draw(t, "day")) * dayLength)
			if sweep := entry.Event.Sweep; sweep != nil {
				sweep.HarborCount, sweep.Pushed = rapid.IntRange(0, 9).Draw(t, "harbor_count"), rapid.IntRange(0, 3).Draw(t, "pushed")
				sweep.Deleted = rapid.IntRange(0, 3).Draw(t, "deleted")
			}
		}
		model := &Memory{}
		Apply(t, model, Begin(t, model), history...)
		basis := Begin(t, view)
		for _, batch := range Batches(t, history) {
			Apply(t, view, basis, batch...)
		}
		for range 4 {
			q := coverageQuery(t)
			want, wantErr := model.CoverageReport(t.Context(), q)
			got, err := view.CoverageReport(t.Context(), q)
			if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
				t.Fatalf("CoverageReport(%+v): error %v, want %v", q, err, wantErr)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("CoverageReport(%+v) =\n%s, want\n%s", q, written(t, got), written(t, want))
			}
		}
	})
}

// dense adds events of few digests to a history, so that signatures meet in a bucket, and what is counted changes once more.
func dense(t *rapid.T, history []artifact.Entry) []artifact.Entry {
	seq := uint64(0)
	if n := len(history); n > 0 {
		seq = history[n-1].Seq
	}
	return append(history, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) artifact.Entry {
		seq++
		repository := rapid.SampledFrom([]string{"demo/app", "demo/team/app", "other/app"}).Draw(t, "repository of few")
		kinds := []artifact.Kind{artifact.Received, artifact.Signed, artifact.Signed, artifact.Failed, artifact.Skipped, artifact.Removed}
		e := Event(rapid.SampledFrom(kinds).Draw(t, "kind of few"), Ref(repository, rapid.IntRange(10, 12).Draw(t, "one of few")))
		e.ID += "/" + strconv.FormatUint(seq, 10)
		e.Time = e.Time.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "seconds")) * time.Second)
		switch e.Kind {
		case artifact.Signed:
			e.How, e.KeyID, e.Format, e.SignatureDigest = artifact.Made, "k1", artifact.Legacy, "s1"
		case artifact.Skipped:
			e.Reason = string(rapid.SampledFrom([]policy.Reason{policy.Exempt, policy.IsAccessory, policy.NotEnabled}).Draw(t, "reason of few"))
		default:
		}
		return artifact.Entry{Seq: seq, Event: e}
	}), 0, 40).Draw(t, "few digests")...)
}

func coverageQuery(t *rapid.T) ledger.CoverageQuery {
	q := ledger.CoverageQuery{
		Project:  rapid.SampledFrom([]string{"", "", "demo", "other", "nobody", "-"}).Draw(t, "project"),
		Projects: rapid.SampledFrom([][]string{nil, nil, {}, {"other", "demo", "nobody"}, {"de.mo"}}).Draw(t, "visible projects"),
		Since:    Epoch().AddDate(0, 0, rapid.IntRange(-3, 4).Draw(t, "since")),
		Until:    Epoch().AddDate(0, 0, rapid.IntRange(0, 5).Draw(t, "until")),
	}
	if rapid.IntRange(0, 9).Draw(t, "without since") == 0 {
		q.Since = time.Time{}
	}
	return q
}

func written(t TB, report ledger.CoverageReport) []byte {
	t.Helper()
	text, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return text
}
