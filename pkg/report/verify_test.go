package report_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"

	"github.com/harborseal/harborseal/pkg/report"
)

func lineOf(t *testing.T, raw string) report.Line {
	t.Helper()
	var line report.Line
	if err := json.Unmarshal([]byte(raw), &line); err != nil {
		t.Fatalf("reading %q: %v", raw, err)
	}
	return line
}

func checkPrintable(t *testing.T, line string) {
	t.Helper()
	for _, r := range strings.TrimSuffix(line, "\n") {
		if !unicode.IsPrint(r) {
			t.Errorf("line = %q, want nothing that does not print: %U", line, r)
		}
	}
}

// part is a file of an archive.
type part struct {
	name    string
	content []byte
	method  uint16
}

// partsOf takes an export apart.
func partsOf(tb testing.TB, b []byte) []part {
	tb.Helper()
	archive, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatalf("opening the export: %v", err)
	}
	var all []part
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			tb.Fatalf("opening %s: %v", f.Name, err)
		}
		content, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			tb.Fatalf("reading %s: %v", f.Name, err)
		}
		all = append(all, part{f.Name, content, f.Method})
	}
	return all
}

func zipped(tb testing.TB, parts []part, comment string) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, p := range parts {
		f, err := w.CreateHeader(&zip.FileHeader{Name: p.name, Method: p.method})
		if err == nil {
			_, err = f.Write(p.content)
		}
		if err != nil {
			tb.Fatalf("writing %s: %v", p.name, err)
		}
	}
	if err := errors.Join(w.SetComment(comment), w.Close()); err != nil {
		tb.Fatalf("writing an archive: %v", err)
	}
	return b.Bytes()
}

func TestVerifyFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	key, other := newKey(t, "harbor.example.com/harborseal/main"), newKey(t, "harbor.example.com/harborseal/main")
	good := export(t, configured(t, &view{rows: 100, row: rowOf}, key), report.Request{Format: report.CSV})
	// A signed export whose manifest lies about its rows, as only who has the key can make it.
	edit := func(name string, change func([]byte) []byte) func() []byte {
		return func() []byte {
			parts := partsOf(t, good)
			for i := range parts {
				if parts[i].name == name {
					parts[i].content = change(parts[i].content)
				}
			}
			return zipped(t, parts, "")
		}
	}
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	for name, c := range map[string]struct {
		file func() []byte
		want string
	}{
		"as it was":                  {edit("", nil), ""},
		"a row was changed":          {edit("report.csv", replace(",unsigned,", ",signed,,")), "was changed"},
		"a byte was changed":         {edit("report.csv", replace("latest", "latesu")), "was changed"},
		"a row was added":            {edit("report.csv", func(b []byte) []byte { return append(b, b[len(b)-300:]...) }), "does not have the"},
		"the rows are a bomb":        {edit("report.csv", func(b []byte) []byte { return append(b, make([]byte, 64<<20)...) }), "does not have the"},
		"a row was removed":          {edit("report.csv", func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] }), "does not have the"},
		"the manifest was changed":   {edit("manifest.json", replace(`"asked_by": ""`, `"asked_by": "eve"`)), "another manifest"},
		"the manifest is none":       {edit("manifest.json", func([]byte) []byte { return []byte("{}") }), "not of an export"},
		"the manifest is too large":  {edit("manifest.json", func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), 17<<20)...) }), "larger than"},
		"the signature was changed":  {edit("manifest.sig", func(b []byte) []byte { return append([]byte("x"), b...) }), "the signature does not hold"},
		"the checkpoint was changed": {edit("checkpoint.txt", func(b []byte) []byte { return append(b, 'x') }), "another one than that of the manifest"},
		"no signature": {func() []byte {
			parts := partsOf(t, good)
			return zipped(t, append(parts[:2:2], parts[3]), "")
		}, "UNSIGNED"},
		"no manifest":    {func() []byte { return zipped(t, partsOf(t, good)[:1], "") }, "ended before its time"},
		"one more file":  {func() []byte { return zipped(t, append(partsOf(t, good), part{"evil.exe", nil, 8}), "") }, "no other files"},
		"a file twice":   {func() []byte { p := partsOf(t, good); return zipped(t, append(p, p[1]), "") }, "no other files"},
		"another first":  {func() []byte { p := partsOf(t, good); p[0].name = "../report.csv"; return zipped(t, p, "") }, "no export"},
		"a comment":      {func() []byte { return zipped(t, partsOf(t, good), "hello") }, "comment"},
		"stored":         {func() []byte { p := partsOf(t, good); p[0].method = zip.Store; return zipped(t, p, "") }, "not written as in an export"},
		"cut off":        {func() []byte { return good[:len(good)/2] }, "cut off"},
		"cut at the end": {func() []byte { return good[:len(good)-1] }, "cut off"},
		"empty":          {func() []byte { return nil }, "cut off"},
		"in front of it": {func() []byte { return append([]byte("#!/bin/sh\nexit\n"), good...) }, "not in its directory"},
	} {
		v := verify(t, c.file(), report.VerifyOptions{Keys: []string{key.VerifierKey()}})
		if got := failed(v); v.OK != (c.want == "") || v.Trusted && !v.OK && v.Manifest == nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: ok %t, %q; want %q", name, v.OK, got, c.want)
		}
	}
	if v := verify(t, good, report.VerifyOptions{Keys: []string{other.VerifierKey()}}); v.OK || v.Trusted {
		t.Error("with another key of the same name: ok, want that it is not signed by it")
	}
	if _, err := report.Verify(bytes.NewReader(good), int64(len(good)), report.VerifyOptions{Keys: []string{"nonsense"}}); err == nil {
		t.Error("with a key that is none: no error")
	}
	if v := verify(t, good, report.VerifyOptions{}); v.OK || v.Trusted || !strings.Contains(failed(v), "UNTRUSTED KEY") {
		t.Errorf("without a key: %+v, want a failure: anybody can sign with a key of their own", v)
	}
	v := verify(t, good, report.VerifyOptions{AllowUnsigned: true})
	if !v.OK || v.Trusted || !strings.Contains(resultOf(v, "signature"), "UNTRUSTED KEY") {
		t.Errorf("without a key, allowed: %+v, want a warning", v)
	}
}

// A manifest that its key has signed is not believed either where the rows say something else.
func TestVerifyCountsAgain(t *testing.T) {
	t.Parallel()
	key := newKey(t, "k")
	cfg := configured(t, &view{rows: 16, row: rowOf}, key)
	for _, format := range report.Formats() {
		good := export(t, cfg, report.Request{Format: format})
		for from, want := range map[string]string{
			`"population": 13`: "totals: ", `"unsigned": 2`: "totals: ", `"rows": 16`: "", `"proven": 0`: "proofs: ",
		} {
			parts := partsOf(t, good)
			at := bytes.LastIndex(parts[1].content, []byte(from))
			if at < 0 {
				t.Fatalf("the manifest has no %s: %s", from, parts[1].content)
			}
			parts[1].content[at+len(from)-1]++
			signature, err := report.Sign(parts[1].content, key)
			if err != nil {
				t.Fatalf("Sign: %v", err)
			}
			parts[2].content = signature
			v := verify(t, zipped(t, parts, ""), report.VerifyOptions{Keys: []string{key.VerifierKey()}})
			if v.OK || !strings.Contains(failed(v), want) {
				t.Errorf("%s with another %s: %q, want %q", format, from, failed(v), want)
			}
		}
	}
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	b := export(t, report.Config{View: &view{rows: 10, row: rowOf}, Registry: "r"}, report.Request{Format: report.JSONL})
	if v := verify(t, b, report.VerifyOptions{}); v.OK || !strings.Contains(failed(v), "UNSIGNED") {
		t.Errorf("Verify = %+v, want UNSIGNED", v)
	}
	if v := verify(t, b, report.VerifyOptions{AllowUnsigned: true}); !v.OK || v.Trusted || !strings.Contains(resultOf(v, "signature"), "UNSIGNED") {
		t.Errorf("Verify = %+v, want a warning", v)
	}
}

func resultOf(v report.Verification, name string) string {
	for _, c := range v.Checks {
		if c.Name == name {
			return c.Result + " " + c.Detail
		}
	}
	return ""
}

func FuzzVerify(f *testing.F) {
	key := newKey(f, "k")
	for _, format := range report.Formats() {
		b := export(f, configured(f, &view{rows: 3, row: rowOf}, key), report.Request{Format: format})
		f.Add(b)
		f.Add(b[:len(b)-30])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := report.Verify(bytes.NewReader(b), int64(len(b)), report.VerifyOptions{Keys: []string{key.VerifierKey()}})
		if err != nil {
			t.Fatalf("Verify: %v", err)
		}
		if v.Trusted && v.Manifest == nil || len(v.Checks) == 0 || v.OK && len(v.Checks) < 7 {
			t.Errorf("Verify = %+v", v)
		}
	})
}
