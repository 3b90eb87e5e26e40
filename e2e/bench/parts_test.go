package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// fake is a part's result.
type fake struct {
	Value int `json:"value"`
}

func (f fake) Missed() bool { return f.Value < 0 }

func (f fake) Print(out io.Writer) error {
	_, err := fmt.Fprintf(out, "value %d\n", f.Value)
	return err
}

func TestWrite(t *testing.T) {
	t.Parallel()
	r := &result{harbor: "https://harbor.example.com", parts: []partResult{{"second", fake{2}}, {"first", fake{1}}}}
	var table, raw bytes.Buffer
	if err := r.write(&table, "table"); err != nil {
		t.Fatal(err)
	}
	if got, want := table.String(), "Harbor at https://harbor.example.com\nvalue 2\n\nvalue 1\n"; got != want {
		t.Errorf("the table is %q, want %q", got, want)
	}
	if err := r.write(&raw, "json"); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Harbor        string
		First, Second fake
	}
	if err := json.Unmarshal(raw.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	if read.Harbor != r.harbor || read.First.Value != 1 || read.Second.Value != 2 {
		t.Errorf("the JSON form says %+v:\n%s", read, &raw)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	all := strings.Join(allParts(), ",")
	for _, tt := range []struct {
		args  []string
		parts string
	}{
		{nil, all},
		{[]string{"-quick"}, partSigning},
		{[]string{"-quick", "-parts", "surge,flood"}, "surge,flood"},
		{[]string{"-parts", "projects"}, "projects"},
	} {
		if o, err := parse(tt.args, io.Discard); err != nil || o.parts != tt.parts {
			t.Errorf("%q: got the parts %q, %v; want %q", tt.args, o.parts, err, tt.parts)
		}
	}
	for _, args := range [][]string{
		{"-parts", "none"}, {"-parts", ""}, {"-o", "yaml"}, {"-count", "0"}, {"-debts", "0"}, {"-surge", "-1"}, {"more"}, {"-unknown"},
	} {
		if o, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: got %+v, want an error", args, o)
		}
	}
	if sorted := slices.Sorted(slices.Values(allParts())); len(slices.Compact(sorted)) != len(allParts()) {
		t.Errorf("a part is named twice: %q", sorted)
	}
}
