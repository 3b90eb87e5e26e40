//go:build e2e

package e2e_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOperationsReasons holds the tables of reasons to the reasons that the programs have.
func TestOperationsReasons(t *testing.T) {
	t.Parallel()
	tests := []struct {
		page     string
		heading  string
		dirs     []string
		typeName string
		least    int
	}{
		{"../docs/operations.md", "## When something fails", []string{"../pkg/fault", "../pkg/policy"}, "Reason", 40},
		{"../docs/operations.md", "## When Harbor drifts", []string{"../pkg/enroll"}, "reason", 15},
		{"../docs/admins.md", "## What goes wrong in Harbor", []string{"../pkg/enroll"}, "reason", 15},
	}
	for _, tt := range tests {
		section := readSection(t, tt.page, tt.heading)
		documented := make(map[string]bool)
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(section, -1) {
			for _, reason := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
				documented[reason[1]] = true
			}
		}
		delete(documented, "reason") // the heading of a column
		known := make(map[string]bool)
		for _, dir := range tt.dirs {
			constants(t, dir, tt.typeName, func(value string) { known[value] = true })
		}
		if len(known) < tt.least {
			t.Fatalf("reasons in %s: got only %d, are they declared in another way now?", tt.dirs, len(known))
		}
		for reason := range known {
			// One row names two reasons of the receiver's log outside its first column.
			if !documented[reason] && !strings.Contains(section, "`"+reason+"`") {
				t.Errorf("%s, %q, does not explain the reason %q", tt.page, tt.heading, reason)
			}
		}
		for reason := range documented {
			if !known[reason] {
				t.Errorf("%s, %q, explains %q, which is no reason of the programs", tt.page, tt.heading, reason)
			}
		}
	}
}

// TestOperationsMetrics holds the tables of metrics to what the programs show and to what their source can show: a series
// with labels appears when it first happens.
func TestOperationsMetrics(t *testing.T) {
	t.Parallel()
	section := readSection(t, "../docs/operations.md", "## Health")
	documented := make(map[string]bool)
	for _, name := range regexp.MustCompile("`(harborseal_[a-z_]+)").FindAllStringSubmatch(section, -1) {
		documented[name[1]] = true
	}
	w := newManaged(t, env.harbor, someProjects(1))
	shown := make(map[string]bool)
	for _, program := range append(w.Signers, w.Receiver) {
		metrics, err := w.Metrics(t.Context(), program)
		if err != nil {
			t.Fatal(err)
		}
		for sample := range maps.Keys(metrics) {
			base, _, _ := strings.Cut(sample, "{")
			if strings.HasPrefix(base, "harborseal_") {
				shown[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(base, "_bucket"), "_sum"), "_count")] = true
			}
		}
	}
	for name := range shown {
		if !documented[name] {
			t.Errorf("docs/operations.md does not have the metric %s", name)
		}
	}
	source := literals(t, "../pkg")
	for name := range documented {
		// The queue's names are put together from two or three parts.
		if !source[name] && !source[strings.TrimPrefix(name, "harborseal_queue_")] && !source[strings.TrimPrefix(name, "harborseal_")] {
			t.Errorf("docs/operations.md has the metric %s, which no program has", name)
		}
	}
	delete(source, "harborseal_schema") // a key of the streams' metadata
	delete(source, "harborseal_")       // what the names of the queue's usage begin with
	for name := range source {
		if strings.HasPrefix(name, "harborseal_") && !documented[name] {
			t.Errorf("docs/operations.md does not have the metric %s", name)
		}
	}
}

// constants calls found with the value of each string constant of a named type in a folder.
func constants(t *testing.T, dir, typeName string, found func(value string)) {
	t.Helper()
	for _, file := range sources(t, dir) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != typeName {
				return true
			}
			for _, value := range spec.Values {
				if text, ok := stringOf(value); ok {
					found(text)
				}
			}
			return true
		})
	}
}

// literals are all string literals below a folder, without tests.
func literals(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for _, file := range sources(t, dir) {
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := stringOf(n); ok {
				all[text] = true
			}
			return true
		})
	}
	return all
}

func stringOf(n ast.Node) (string, bool) {
	literal, ok := n.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}

func sources(t *testing.T, dir string) []*ast.File {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	files := make([]*ast.File, 0, len(paths))
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// Only what injects faults may skip on a real Harbor: those tests call needsFaults, and testdata/skips.txt lists them. Beside them, a
// clone without the history has no older programs for a rolling upgrade.
func TestOnlyFaultsSkip(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	skips := 0
	for _, file := range files {
		raw, err := os.ReadFile(file) //nolint:gosec // a source of this folder
		if err != nil {
			t.Fatal(err)
		}
		skips += len(regexp.MustCompile(`\bt\.(Skip|Skipf|SkipNow)\(`).FindAll(raw, -1))
	}
	if skips != 3 {
		t.Errorf("%d places skip tests, want needsFaults, full and the rolling upgrade alone", skips)
	}
}
