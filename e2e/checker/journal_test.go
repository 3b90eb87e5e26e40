package checker_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
)

func TestReadJournal(t *testing.T) {
	t.Parallel()
	attestation, foreign, lasting := push(3, absent), push(4, absent), faultStep("kill", 5, 6)
	attestation.Subject, attestation.Parent = absent, absent
	foreign.Kind, foreign.Format, foreign.Key, foreign.Tag = checker.StepForeign, checker.Bundle, "PEM", ""
	lasting.Ended = time.Time{}
	enabled := policy(1, checker.Formats()...)
	enabled.Keys, enabled.Exempt, enabled.Backfill = []string{"a"}, []string{repository}, true
	want := []checker.Step{policy(0), enabled, push(2, absent), attestation, foreign, lasting, step(checker.StepCalm, 7)}
	var written bytes.Buffer
	for _, s := range want {
		if err := json.NewEncoder(&written).Encode(s); err != nil {
			t.Fatal(err)
		}
		written.WriteString("\n")
	}
	got, err := checker.ReadJournal(&written)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("reading what was written: got %+v, %v, want %+v", got, err, want)
	}
}

func TestReadJournalRefuses(t *testing.T) {
	t.Parallel()
	const head = `"began":"2026-11-22T19:00:00Z","ended":"2026-11-22T19:00:01Z","accepted":true`
	unit := `"repository":"demo/app","digest":"` + absent + `"`
	for name, line := range map[string]string{
		"no JSON":                    `{`,
		"no time":                    `{"kind":"calm"}`,
		"an end before its start":    `{"kind":"calm","began":"2026-11-22T19:00:00Z","ended":"2026-11-22T18:00:00Z"}`,
		"accepted without an end":    `{"kind":"calm","began":"2026-11-22T19:00:00Z","accepted":true}`,
		"an unknown kind":            `{"kind":"pull",` + head + `,` + unit + `}`,
		"an unknown key":             `{"kind":"calm",` + head + `,"projekt":"demo"}`,
		"a push of no digest":        `{"kind":"push",` + head + `,"repository":"demo/app","digest":"sha256:1"}`,
		"a push without a project":   `{"kind":"push",` + head + `,"repository":"app","digest":"` + absent + `"}`,
		"a deletion of nothing":      `{"kind":"delete",` + head + `}`,
		"a foreign without a key":    `{"kind":"foreign",` + head + `,` + unit + `,"format":"legacy"}`,
		"a foreign of some format":   `{"kind":"foreign",` + head + `,` + unit + `,"format":"both","key":"PEM"}`,
		"a policy of no project":     `{"kind":"policy",` + head + `,"enabled":true,"formats":["legacy"]}`,
		"a policy of no format":      `{"kind":"policy",` + head + `,"project":"demo","enabled":true}`,
		"a disabled policy's format": `{"kind":"policy",` + head + `,"project":"demo","formats":["legacy"]}`,
		"a fault of no kind":         `{"kind":"fault",` + head + `}`,
	} {
		if got, err := checker.ReadJournal(strings.NewReader("\n" + line + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: got %+v and the error %v, want one in line 2", name, got, err)
		}
	}
}

func TestReadLedger(t *testing.T) {
	t.Parallel()
	ref := repository + "@" + absent
	got, err := checker.ReadLedger(strings.NewReader(`{"seq":3,"stored":"2026-11-22T19:00:00Z","event":{"v":1,"kind":"signed","ref":"` + ref +
		`","time":"2030-01-01T00:00:00Z","signatures":[{"format":"legacy","key_id":"aa","digest":"sha256:1","log":"rekor","log_index":4}],"canary":true}}
{"seq":5,"stored":"2026-11-22T19:00:01Z","event":{"kind":"dead","ref":"` + ref + `","reason":"quota_exceeded"}}`))
	start := time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC)
	want := []checker.LedgerEvent{
		{Seq: 3, Stored: start, Kind: "signed", Ref: ref, Canary: true, Signatures: []checker.RowSignature{
			{Format: checker.Legacy, KeyID: "aa", Digest: "sha256:1", Log: "rekor", LogIndex: 4},
		}},
		{Seq: 5, Stored: start.Add(time.Second), Kind: "dead", Ref: ref, Reason: "quota_exceeded"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	const good = `{"seq":1,"stored":"2026-11-22T19:00:00Z","event":{"kind":"swept"}}`
	for name, text := range map[string]string{
		"no JSON":       `[`,
		"no sequence":   `{"stored":"2026-11-22T19:00:00Z","event":{"kind":"swept"}}`,
		"no time":       `{"seq":1,"event":{"kind":"swept"}}`,
		"no kind":       `{"seq":1,"stored":"2026-11-22T19:00:00Z","event":{}}`,
		"an old one":    good + "\n" + good,
		"a line of MiB": `{"seq":1,"stored":"` + strings.Repeat("x", 5<<20) + `"}`,
	} {
		if got, err := checker.ReadLedger(strings.NewReader(text)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func FuzzReadJournal(f *testing.F) {
	seed, err := json.Marshal(push(1, absent))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"kind":"calm","began":"2026-11-22T19:00:00Z"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		steps, err := checker.ReadJournal(bytes.NewReader(raw))
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, s := range steps {
			if err := json.NewEncoder(&again).Encode(s); err != nil {
				t.Fatalf("writing what was read: %v", err)
			}
		}
		if got, err := checker.ReadJournal(&again); err != nil || len(got) != len(steps) {
			t.Errorf("reading again: got %d steps, %v, want %d", len(got), err, len(steps))
		}
	})
}
