package report_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/report"
)

// export makes an export.
func export(tb testing.TB, cfg report.Config, r report.Request) []byte {
	tb.Helper()
	var b bytes.Buffer
	result, err := exporter(tb, cfg).Export(tb.Context(), &b, r)
	if err != nil || !result.Complete || result.SHA256 == "" {
		tb.Fatalf("Export = %+v, %v", result, err)
	}
	return b.Bytes()
}

func verify(tb testing.TB, b []byte, options report.VerifyOptions) report.Verification {
	tb.Helper()
	v, err := report.Verify(bytes.NewReader(b), int64(len(b)), options)
	if err != nil {
		tb.Fatalf("Verify: %v", err)
	}
	return v
}

// failed gives the details of the checks that failed.
func failed(v report.Verification) string {
	var all []string
	for _, c := range v.Checks {
		if c.Result == report.CheckFailed {
			all = append(all, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(all, "; ")
}

func TestExportVerifies(t *testing.T) {
	t.Parallel()
	key := newKey(t, "harbor.example.com/harborseal/main")
	for _, format := range report.Formats() {
		for _, rows := range []int{0, 1, 8000} {
			b := export(t, configured(t, &view{rows: rows, row: rowOf}, key), report.Request{
				Format: format, Actor: "ann", Address: "192.0.2.1", Query: ledger.Query{Project: "demo", Since: started},
				Parameters: map[string]string{"project": "demo"},
			})
			v := verify(t, b, report.VerifyOptions{Keys: []string{key.VerifierKey()}})
			if !v.OK || !v.Trusted {
				t.Fatalf("%s of %d rows: %s", format, rows, failed(v))
			}
			m := v.Manifest
			if m.File.Rows != m.Totals.Rows || int(m.Totals.Rows) != rows || //nolint:gosec // few
				m.AsOf.Sequence != 4711 || m.Scope.AskedBy != "ann" ||
				m.Scope.Parameters["project"] != "demo" || m.Scope.Since == nil || m.Aggregates == nil || m.Aggregates.Signed != 5 ||
				len(m.Inventory) != 1 || m.Registry != "harbor.example.com" || m.Program != "1.2.3" || m.Harbor != "main" {
				t.Errorf("%s of %d rows: manifest = %+v", format, rows, m)
			}
		}
	}
}

// The totals are known for 24 rows: three of each state.
func TestManifestCountsTheRows(t *testing.T) {
	t.Parallel()
	key := newKey(t, "k")
	b := export(t, configured(t, &view{rows: 24, row: rowOf}, key), report.Request{Format: report.CSV})
	m := verify(t, b, report.VerifyOptions{Keys: []string{key.VerifierKey()}}).Manifest
	for state, n := range m.Totals.States {
		if n != 3 {
			t.Errorf("rows of state %s = %d, want 3", state, n)
		}
	}
	// Skipped are the rows 4, 12 and 20: 12 is an accessory, and the others are exempt.
	if len(m.Totals.States) != len(ledger.States()) || m.Totals.Accessories != 1 || m.Totals.Population != 24-3-1 || m.Totals.LogOwed != 3 {
		t.Errorf("totals = %+v", m.Totals)
	}
	if m.Totals.Keys[keyID()] != 6 || !m.Totals.FirstSeen.Equal(started) || !m.Totals.LastSeen.Equal(*rowOf(23).PushedAt) {
		t.Errorf("totals = %+v", m.Totals)
	}
	e := m.Exceptions
	if e.Unsigned != 3 || e.Failed != 3 || e.Dead != 3 || e.Blocked != 3 || e.Exempted != 2 || len(e.List) != 14 || !e.Complete {
		t.Errorf("exceptions = %+v", e)
	}
}

// What a hostile pusher writes comes back as it was, and is no command to anything before.
func TestHostileTextsRunThrough(t *testing.T) {
	t.Parallel()
	key := newKey(t, "k")
	texts := slices.DeleteFunc(hostile(), func(s string) bool { return s == "" || strings.ToValidUTF8(s, "") != s })
	v := &view{rows: len(texts), row: func(i int) ledger.Row {
		row := rowOf(i)
		row.Pusher, row.Detail, row.Note, row.Tags = texts[i], texts[i], texts[i], []string{texts[i], "latest"}
		return row
	}}
	for _, format := range report.Formats() {
		b := export(t, configured(t, v, key), report.Request{Format: format})
		if got := verify(t, b, report.VerifyOptions{Keys: []string{key.VerifierKey()}}); !got.OK {
			t.Errorf("%s: %s", format, failed(got))
		}
		rows := contentOf(t, b, "report."+string(format))
		lines := strings.SplitAfter(rows, "\n")
		lines = lines[:len(lines)-1]
		if format == report.JSONL {
			for i, line := range lines {
				checkPrintable(t, line)
				if got := lineOf(t, line); got.Pusher != texts[i] || got.Tags[0] != texts[i] {
					t.Errorf("line %d has %q, want %q", i, got.Pusher, texts[i])
				}
			}
			continue
		}
		for i, line := range lines[1:] {
			record := checkLine(t, line, len(report.Columns()))
			at := func(name string) string { return record[slices.Index(report.Columns(), name)] }
			pusher, err := report.Unescape(at("pusher"))
			tags, err2 := report.UnescapeList(at("tags"))
			if err != nil || err2 != nil || pusher != texts[i] || !slices.Equal(tags, []string{texts[i], "latest"}) {
				t.Errorf("line %d has %q and %q, want %q", i, pusher, tags, texts[i])
			}
		}
	}
}

func TestCSVHasEachColumn(t *testing.T) {
	t.Parallel()
	row := rowOf(1)
	record, err := csv.NewReader(bytes.NewReader(report.AppendRow(nil, "harbor.example.com", &row))).Read()
	want := []string{
		"harbor.example.com", "demo", "demo/team/app", digest(1), "application/vnd.oci.image.manifest.v1+json", "1.1 latest", "2", "", "0",
		"signed", "", "", "robot$ci", "harbor_audit", "2026-03-01T12:00:01.000000Z", "2026-03-01T12:00:01.000000Z", "2026-03-01T12:00:01.000000Z",
		"2026-03-01T12:00:03.000000Z", "2026-03-01T12:00:03.000000Z", "made", keyID() + " " + keyID(), "legacy bundle", digest(1+1e6) + " " + digest(1+2e6),
		"rekor none", "1 none", "2026-03-01T12:00:03.000000Z none", "", "owed", "bundle", "", "", "0", "12", "2",
	}
	if err != nil || !reflect.DeepEqual(record, want) || len(report.Columns()) != len(want) {
		t.Errorf("row = %q, %v\nwant  %q", record, err, want)
	}
}

// proofs proves events of a log of its own.
type proofs struct {
	key  *notary.Key
	data map[uint64][]byte
}

func (p proofs) ProveRow(_ context.Context, _ artifact.Ref, seq uint64) (*report.Proof, error) {
	data, there := p.data[seq]
	if !there {
		return nil, nil //nolint:nilnil // no checkpoint has it yet
	}
	// Two leaves: the event, and one behind it.
	leaf, beside := notary.LeafHash(seq, "ledger", data), notary.LeafHash(seq+1, "ledger", data)
	var root [32]byte
	copy(root[:], rfc6962.DefaultHasher.HashChildren(leaf[:], beside[:]))
	signed, err := notary.SignCheckpoint(p.key, 1, 2, root)
	return &report.Proof{Subject: "ledger", Event: data, Index: 0, Size: 2, Hashes: [][]byte{beside[:]}, Checkpoint: signed}, err
}

func TestProofs(t *testing.T) {
	t.Parallel()
	key := newKey(t, "k")
	eventOf := func(i int) []byte {
		ref, err := artifact.ParseRef("demo/team/app@" + digest(i))
		if err != nil {
			t.Fatalf("ParseRef: %v", err)
		}
		data, err := artifact.EncodeEvent(artifact.Event{ID: "x", Kind: artifact.Received, Ref: ref, Time: started, Origin: artifact.OriginWebhook, CorrelationID: "x"})
		if err != nil {
			t.Fatalf("EncodeEvent: %v", err)
		}
		return data
	}
	for name, c := range map[string]struct {
		data map[uint64][]byte
		want string
	}{
		"each row but one":         {map[uint64][]byte{1: eventOf(0), 2: eventOf(1)}, ""},
		"an event of other digest": {map[uint64][]byte{1: eventOf(1), 2: eventOf(1)}, "the event is of another digest"},
	} {
		cfg := configured(t, &view{rows: 3, row: rowOf}, key)
		cfg.Prover = proofs{key, c.data}
		v := verify(t, export(t, cfg, report.Request{Format: report.JSONL, Proofs: true}), report.VerifyOptions{Keys: []string{key.VerifierKey()}})
		if got := failed(v); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if c.want == "" && v.Manifest.File.Proven != 2 {
			t.Errorf("%s: %d proven, want 2", name, v.Manifest.File.Proven)
		}
	}
}

// failing takes so many bytes.
type failing struct {
	left int
	err  error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}

func TestExportEndsWithItsReader(t *testing.T) {
	t.Parallel()
	v := &view{rows: 1 << 30, row: rowOf}
	gone := errors.New("gone")
	result, err := exporter(t, configured(t, v, newKey(t, "k"))).Export(t.Context(), &failing{300_000, gone}, report.Request{Format: report.CSV})
	if !errors.Is(err, gone) || result.Complete || result.SHA256 != "" || result.Rows == 0 || v.ended == nil {
		t.Errorf("Export = %+v, %v, and the query ended with %v; want the writer's error, and a query that ended", result, err, v.ended)
	}
}

// A query that has no rows at the moment ends as well.
func TestExportEndsWithItsReaderWhileTheDatabaseThinks(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	_, err := exporter(t, configured(t, &view{rows: 700, row: func(i int) ledger.Row { return rowOf(8*i + 1) }, waits: true}, newKey(t, "k"))).Export(t.Context(), &failing{1000, gone}, report.Request{Format: report.CSV})
	if !errors.Is(err, gone) {
		t.Errorf("Export = %v, want the writer's error", err)
	}
}

func TestExportEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	v := &view{rows: 1 << 30}
	v.row = func(i int) ledger.Row {
		if i == 20000 {
			cancel()
		}
		return rowOf(i)
	}
	var b bytes.Buffer
	_, err := exporter(t, configured(t, v, newKey(t, "k"))).Export(ctx, &b, report.Request{Format: report.CSV})
	if !errors.Is(err, context.Canceled) || !errors.Is(v.ended, context.Canceled) {
		t.Errorf("Export = %v, and the query ended with %v; want both cancelled", err, v.ended)
	}
	if got := failed(verify(t, b.Bytes(), report.VerifyOptions{})); !strings.Contains(got, "cut off") {
		t.Errorf("Verify of what was sent = %q, want that it was cut off", got)
	}
}

func TestExportFailsWithTheLedger(t *testing.T) {
	t.Parallel()
	away := fault.Newf(fault.Transient, fault.Unavailable, "away")
	var b bytes.Buffer
	_, err := exporter(t, configured(t, &view{rows: 10, row: rowOf, err: away}, newKey(t, "k"))).Export(t.Context(), &b, report.Request{Format: report.CSV})
	if !errors.Is(err, away) || b.Len() != 0 {
		t.Errorf("Export = %v after %d bytes, want the ledger's fault and nothing written", err, b.Len())
	}
}

func TestExportsAreFew(t *testing.T) {
	t.Parallel()
	inside, leave := make(chan struct{}), make(chan struct{})
	v := &view{rows: 1, row: func(i int) ledger.Row {
		inside <- struct{}{}
		<-leave
		return rowOf(i)
	}}
	cfg := configured(t, v, newKey(t, "k"))
	cfg.MaxRunning = 1
	e := exporter(t, cfg)
	done := make(chan error)
	go func() {
		_, err := e.Export(t.Context(), io.Discard, report.Request{Format: report.CSV})
		done <- err
	}()
	<-inside
	if _, err := e.Export(t.Context(), io.Discard, report.Request{Format: report.CSV}); !errors.Is(err, report.ErrBusy) {
		t.Errorf("a second export = %v, want ErrBusy", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Errorf("the first export: %v", err)
	}
	go func() { <-inside }()
	if _, err := e.Export(t.Context(), io.Discard, report.Request{Format: report.CSV}); err != nil {
		t.Errorf("a third export = %v, want a place", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	e := exporter(t, configured(t, &view{}, newKey(t, "k")))
	for name, r := range map[string]report.Request{
		"no format":        {},
		"unknown format":   {Format: "xlsx"},
		"proofs in CSV":    {Format: report.CSV, Proofs: true},
		"bad filter":       {Format: report.CSV, Query: ledger.Query{Project: "NO"}},
		"proofs from none": {Format: report.JSONL, Proofs: true},
	} {
		if err := e.Check(&r); err == nil {
			t.Errorf("Check of %s = nil, want an error", name)
		}
	}
	if _, err := report.New(report.Config{}); err == nil {
		t.Error("New without a view = nil, want an error")
	}
}

func contentOf(t *testing.T, b []byte, name string) string {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("opening the export: %v", err)
	}
	f, err := archive.Open(name)
	if err != nil {
		t.Fatalf("opening %s: %v", name, err)
	}
	content, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	return string(content)
}
