package main_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	receiver "github.com/harborseal/harborseal/cmd/receiver"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/report"
)

// oneRow is a ledger of one row, whose pusher is hostile.
type oneRow struct{}

func (oneRow) Each(_ context.Context, _ ledger.Query, fn func(ledger.Row) error) (ledger.Position, error) {
	return ledger.Position{Seq: 7}, fn(ledger.Row{
		Project: "demo", Repository: "demo/app", Digest: "sha256:" + strings.Repeat("ab", 32), State: ledger.Failed, Pusher: "\x1b[31m=1+1",
		Reason: "\x1b[2J", FirstSeenAt: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	})
}

func (oneRow) Coverage(context.Context, []string) (map[string]ledger.Coverage, error) {
	return map[string]ledger.Coverage{}, nil
}

func (oneRow) Names(context.Context) ([]string, error) {
	return []string{}, nil
}

func TestReportVerify(t *testing.T) {
	t.Parallel()
	pem, err := notary.NewKey()
	if err != nil {
		t.Fatalf("NewKey: %v", err)
	}
	key, err := notary.ParseKey(pem, "harbor.example.com/harborseal/main")
	if err != nil {
		t.Fatalf("ParseKey: %v", err)
	}
	signed, err := notary.SignCheckpoint(key, 1, 0, sha256.Sum256(nil))
	if err != nil {
		t.Fatalf("SignCheckpoint: %v", err)
	}
	write := func(name string, k report.Key) string {
		cfg := report.Config{View: oneRow{}, Registry: "harbor.example.com", Harbor: "main", Key: k}
		if k != nil {
			cfg.Checkpoint = func(context.Context) (string, error) { return signed, nil }
		}
		e, err := report.New(cfg)
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		var b bytes.Buffer
		if _, err := e.Export(t.Context(), &b, report.Request{Format: report.CSV, Actor: "ann\x1b[31m"}); err != nil {
			t.Fatalf("Export: %v", err)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatalf("writing the export: %v", err)
		}
		return path
	}
	good, unsigned := write("good.zip", key), write("unsigned.zip", nil)
	raw, err := os.ReadFile(good) //nolint:gosec // the test's own
	if err != nil {
		t.Fatalf("reading the export: %v", err)
	}
	half, keyFile := filepath.Join(t.TempDir(), "half.zip"), filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(half, raw[:len(raw)/2], 0o600); err != nil { //nolint:gosec // as above
		t.Fatalf("writing half an export: %v", err)
	}
	if err := os.WriteFile(keyFile, []byte("# the ledger's\n\n"+key.VerifierKey()+"\n"), 0o600); err != nil {
		t.Fatalf("writing the key file: %v", err)
	}
	for name, c := range map[string]struct {
		args []string
		want string // in the output
		err  string
	}{
		"with its key":       {[]string{"verify", good, "--key", key.VerifierKey()}, "the export verifies", ""},
		"with a key file":    {[]string{"verify", "--key-file", keyFile, good}, "1 failed", ""},
		"without a key":      {[]string{"verify", good}, "UNTRUSTED KEY", "does not verify"},
		"no key, allowed":    {[]string{"verify", good, "--allow-unsigned"}, "NOBODY vouches", ""},
		"unsigned":           {[]string{"verify", unsigned}, "UNSIGNED", "does not verify"},
		"unsigned, allowed":  {[]string{"verify", unsigned, "--allow-unsigned"}, "NOBODY vouches", ""},
		"half":               {[]string{"verify", half, "--key", key.VerifierKey()}, "cut off", "does not verify"},
		"JSON":               {[]string{"verify", good, "-o", "json", "--key", key.VerifierKey()}, `"trusted": true`, ""},
		"no file":            {[]string{"verify"}, "", "receiver report verify FILE"},
		"no such file":       {[]string{"verify", "nowhere.zip"}, "", "opening the export"},
		"a folder":           {[]string{"verify", filepath.Dir(good)}, "", "want a file"},
		"a key that is none": {[]string{"verify", good, "--key", "x"}, "", "verifier key"},
		"an empty key file":  {[]string{"verify", good, "--key-file", os.DevNull}, "", "no verifier key"},
		"unknown output":     {[]string{"verify", good, "-o", "xml"}, "", "-o: want text or json"},
	} {
		var out bytes.Buffer
		err := receiver.ReportProgram().Run(t.Context(), append([]string{"report"}, c.args...), &out, os.Stderr)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("%s prints %q, want %q in it", name, out.String(), c.want)
		}
		if strings.ContainsRune(out.String(), '\x1b') {
			t.Errorf("%s prints %q, want no command to a terminal", name, out.String())
		}
		if name == "JSON" && !json.Valid(out.Bytes()) {
			t.Errorf("%s prints %q, want JSON", name, out.String())
		}
	}
}
