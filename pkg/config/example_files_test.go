package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const examples = "../../config"

func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(allLeaves(t)) {
		t.Errorf("got %v, want one file for each of %d programs", files, len(allLeaves(t)))
	}
	for _, file := range files {
		if err := load(file, file, nil); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// documented is a key as an example shows it, set or commented out.
type documented struct {
	path string
	// comment is the prose above it, on one line.
	comment string
}

// readExample finds the keys of an example. A commented key is "#key:" or "#- key:", prose is "# text".
func readExample(t *testing.T, file string) []documented {
	t.Helper()
	content, err := fs.ReadFile(os.DirFS(examples), file)
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`^( *)#?(- )?([a-z0-9_]+):( .*)?$`)
	prose := regexp.MustCompile(`^ *#( (.*))?$`)
	type level struct {
		indent int
		path   string
	}
	var (
		keys    []documented
		comment []string
		above   []level
	)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if m := prose.FindStringSubmatch(line); m != nil {
			comment = append(comment, m[2])
			continue
		}
		if m := key.FindStringSubmatch(line); m != nil {
			indent := len(m[1]) + len(m[2])
			for len(above) > 0 && above[len(above)-1].indent >= indent {
				above = above[:len(above)-1]
			}
			path := m[3]
			if len(above) > 0 {
				path = above[len(above)-1].path + "." + path
			}
			above = append(above, level{indent, path})
			keys = append(keys, documented{path, strings.Join(comment, " ")})
		}
		comment = nil
	}
	return keys
}

func TestExamplesDocumentEveryKey(t *testing.T) {
	for file, want := range allLeaves(t) {
		keys := readExample(t, file)
		for _, l := range want {
			// The reader does not tell lists of mappings from mappings.
			path := strings.ReplaceAll(l.path, "[]", "")
			shown := slices.IndexFunc(keys, func(d documented) bool { return d.path == path && d.comment != "" })
			if shown < 0 {
				t.Errorf("%s: %s is missing, or nothing stands above it", file, l.path)
				continue
			}
			comment := keys[shown].comment
			switch {
			case l.hasDefault && !strings.Contains(comment+" ", "Default: "+l.fallback+" "):
				t.Errorf("%s: %s: got %q, want it to say %q", file, l.path, comment, "Default: "+l.fallback)
			case !l.hasDefault && !strings.Contains(comment, "Default: ") && !strings.Contains(comment, "Required"):
				t.Errorf("%s: %s: got %q, want it to say what happens without it", file, l.path, comment)
			}
		}
	}
}

// What is commented out must be right as well: it is what people uncomment.
func TestExamplesUncommented(t *testing.T) {
	commented := regexp.MustCompile(`(?m)^( *)#((?:- )?[a-z0-9_]+:)`)
	for file, exclusive := range map[string][]string{
		"receiver.yaml": {
			"ledger.database: want postgres beside ledger.postgres.address",
			"queue.credentials_file: exclude queue.username: set one of them",
			"queue.urls: exclude queue.embedded.enabled: the receiver runs its own server, or uses others",
		},
		"signer.yaml": {"queue.credentials_file: exclude queue.username: set one of them"},
	} {
		content, err := fs.ReadFile(os.DirFS(examples), file)
		if err != nil {
			t.Fatal(err)
		}
		everything := commented.ReplaceAllString(string(content), "$1$2")
		if everything == string(content) {
			t.Fatalf("%s: nothing is commented out", file)
		}
		err = load(file, write(t, everything), nil)
		got := problemsOf(err)
		slices.Sort(got)
		if !slices.Equal(got, exclusive) {
			t.Errorf("%s: got\n%v\nwant what excludes each other alone:\n%s", file, err, strings.Join(exclusive, "\n"))
		}
	}
}
