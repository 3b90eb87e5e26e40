package footprint_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/footprint"
)

const mebibyte = 1 << 20

func TestWhatProvidersAdd(t *testing.T) {
	t.Parallel()
	rows := []footprint.Row{
		{Program: "receiver", Size: 40 * mebibyte},
		{Program: "signer", Size: 80 * mebibyte, Start: 12 * time.Millisecond},
		{Program: "signer", Tags: "no_a", Provider: "a", Size: 73 * mebibyte},
		{Program: "signer", Tags: "b", Provider: "b", Size: 84 * mebibyte},
		{Program: "signer", Tags: "c", Provider: "c", Failed: "no compiler"},
		{Program: "signer", CGO: true, Size: 78 * mebibyte},
		{Program: "signer", Tags: "d", CGO: true, Provider: "d", Size: 79 * mebibyte},
	}
	footprint.Compare(rows)
	for i, want := range []int64{0, 0, 7, 4, 0, 0, 1} {
		if got := rows[i].Adds; got != want*mebibyte {
			t.Errorf("row %d: adds %d bytes, want %d MiB", i, got, want)
		}
	}
	var out bytes.Buffer
	if err := footprint.Print(&out, rows); err != nil {
		t.Fatal(err)
	}
	var table []string
	for line := range strings.Lines(out.String()) {
		table = append(table, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range []string{
		"signer 80.0 12 - -", "signer -tags no_a 73.0 0 a 7.0", "signer -tags c - - c not built", "not built: no compiler",
		"signer with CGO -tags d 79.0 0 d 1.0",
	} {
		if !strings.Contains("\n"+strings.Join(table, "\n")+"\n", "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}
