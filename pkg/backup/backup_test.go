package backup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/backup"
)

// store is a queue with two streams, whose copies are texts that end with a mark.
type store struct {
	content  map[string]string
	failAt   string // the stream of which a copy fails half way
	restored map[string]string
	removed  []string
}

const mark = "."

func newStore() *store {
	return &store{content: map[string]string{"A": "first" + mark, "B": "second" + mark}, restored: map[string]string{}}
}

func (s *store) Streams() []string { return []string{"A", "B"} }

func (s *store) Snapshot(_ context.Context, stream string, w io.Writer, progress func(int64)) (json.RawMessage, error) {
	text := s.content[stream]
	if stream == s.failAt {
		text = text[:2]
	}
	n, err := io.WriteString(w, text)
	progress(int64(n))
	if err == nil && stream == s.failAt {
		err = errors.New("the connection was lost")
	}
	return json.RawMessage(fmt.Sprintf(`{"name":%q}`, stream)), err
}

func (s *store) Check(_ string, _ json.RawMessage, r io.Reader) (backup.Contents, error) {
	data, err := io.ReadAll(r)
	if err == nil && !bytes.HasSuffix(data, []byte(mark)) {
		err = errors.New("it is cut off")
	}
	return backup.Contents{Messages: 1, FirstSeq: 1, LastSeq: uint64(len(data)), FirstTime: time.Unix(1, 0).UTC(), LastTime: time.Unix(2, 0).UTC()}, err
}

func (s *store) Present(context.Context) (names []string, err error) {
	for name := range s.restored {
		names = append(names, name)
	}
	return names, nil
}

func (s *store) Restore(_ context.Context, stream string, description json.RawMessage, r io.Reader, _ func(int64)) error {
	data, err := io.ReadAll(r)
	s.restored[stream] = string(data)
	if stream == s.failAt {
		err = errors.New("no space left on device")
	}
	if !strings.Contains(string(description), stream) {
		err = fmt.Errorf("description %s", description)
	}
	return err
}

func (s *store) Remove(_ context.Context, stream string) error {
	s.removed = append(s.removed, stream)
	delete(s.restored, stream)
	return nil
}

func newBackup(t *testing.T) (*store, backup.Options, backup.Manifest) {
	t.Helper()
	s, o := newStore(), backup.Options{Dir: filepath.Join(t.TempDir(), "backup"), Harbor: "default", Version: "v1"}
	m, err := backup.Make(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, o, m
}

func TestMakeAndCheck(t *testing.T) {
	t.Parallel()
	s, o, m := newBackup(t)
	checked, err := backup.Check(t.Context(), s, s.Streams(), o)
	if err != nil {
		t.Fatal(err)
	}
	if checked.SHA256 != m.SHA256 || checked.Of("B").LastSeq != 7 || checked.Bytes() != 13 || checked.Version != "v1" {
		t.Errorf("got %+v, want what Make gave: %+v", checked, m)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("the folder has %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v: want it for its owner alone", e.Name(), info.Mode(), err)
		}
	}
	if err := backup.Restore(t.Context(), s, checked, o); err != nil || s.restored["A"] != "first." || s.restored["B"] != "second." {
		t.Errorf("restored: %v, %v", s.restored, err)
	}
	if err := backup.Restore(t.Context(), s, checked, o); !errors.Is(err, backup.ErrNotEmpty) {
		t.Errorf("restored twice: %v", err)
	}
}

func TestMakeTakesAnEmptyFolder(t *testing.T) {
	t.Parallel()
	_, o, _ := newBackup(t)
	if _, err := backup.Make(t.Context(), newStore(), o); err == nil || !strings.Contains(err.Error(), "holds a backup") {
		t.Errorf("over a backup: %v", err)
	}
	if err := os.Remove(filepath.Join(o.Dir, "manifest.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Make(t.Context(), newStore(), o); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("over one that was interrupted: %v", err)
	}
}

// What fails leaves a folder in which it can be tried again.
func TestMakeFails(t *testing.T) {
	t.Parallel()
	s, o := newStore(), backup.Options{Dir: filepath.Join(t.TempDir(), "backup"), Harbor: "default"}
	s.failAt = "B"
	if _, err := backup.Make(t.Context(), s, o); err == nil || !strings.Contains(err.Error(), "connection was lost") {
		t.Errorf("got %v", err)
	}
	s.failAt, s.content["A"] = "", "no end"
	if _, err := backup.Make(t.Context(), s, o); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("a copy that cannot be read: %v", err)
	}
	s.content["A"] = "first" + mark
	if _, err := backup.Make(t.Context(), s, o); err != nil {
		t.Errorf("the third attempt: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	replace := func(from, to string) func(string) error {
		return func(dir string) error {
			path := filepath.Join(dir, "manifest.json")
			content, err := os.ReadFile(path) //nolint:gosec // of this test
			if err == nil && !bytes.Contains(content, []byte(from)) {
				err = fmt.Errorf("the manifest has no %s", from)
			}
			if err == nil {
				err = os.WriteFile(path, bytes.Replace(content, []byte(from), []byte(to), 1), 0o600) //nolint:gosec // as above
			}
			return err
		}
	}
	write := func(name, content string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) }
	}
	for _, c := range []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"no manifest", func(dir string) error { return os.Remove(filepath.Join(dir, "manifest.json")) }, "interrupted"},
		{"a missing file", func(dir string) error { return os.Remove(filepath.Join(dir, "B.snapshot")) }, "no such file"},
		{"a shorter file", write("B.snapshot", "seco"), "B.snapshot is damaged"},
		{"a longer file", write("B.snapshot", "second.."), "B.snapshot is damaged"},
		{"another byte", write("A.snapshot", "fisrt."), "A.snapshot is damaged"},
		{"another Harbor", replace(`"harbor": "default"`, `"harbor": "other"`), `"other"`},
		{"a newer format", replace(`"format": 1`, `"format": 2`), "format 2"},
		{"another key", replace(`"format": 1`, `"format": 1, "extra": true`), "extra"},
		{"no JSON", write("manifest.json", "{"), "manifest.json"},
		{"a path", replace(`"file": "A.snapshot"`, `"file": "../A.snapshot"`), "not that of stream A"},
		{"another count", replace(`"messages": 1`, `"messages": 2`), "something else"},
		{"a stream less", write("manifest.json", `{"format":1,"harbor":"default","streams":[]}`), "names 0 streams"},
		{"a huge manifest", write("manifest.json", strings.Repeat(" ", 5<<20)), "larger than any"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, o, _ := newBackup(t)
			if err := c.damage(o.Dir); err != nil {
				t.Fatal(err)
			}
			if _, err := backup.Check(t.Context(), s, s.Streams(), o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRestoreRemovesWhatItHasMade(t *testing.T) {
	t.Parallel()
	s, o, m := newBackup(t)
	s.failAt = "B"
	if err := backup.Restore(t.Context(), s, m, o); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(s.removed, []string{"B", "A"}) || len(s.restored) > 0 {
		t.Errorf("removed are %v, and left %v", s.removed, s.restored)
	}
	s.failAt = ""
	if err := backup.Restore(t.Context(), s, m, o); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

// FuzzManifest reads what somebody else may have written.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"harbor":"default","streams":[]}`))
	f.Add([]byte(`{"format":1,"harbor":"default","streams":[{"stream":"A","file":"A.snapshot","bytes":1}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "manifest.json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := backup.Check(t.Context(), newStore(), []string{"A", "B"}, backup.Options{Dir: dir, Harbor: "default"}); err == nil {
			t.Errorf("an empty folder is a backup: %+v", m)
		}
	})
}
