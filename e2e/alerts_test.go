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

	"go.yaml.in/yaml/v3"
)

// These tests need no server and so no build tag: the alert rules and the runbooks are held to each other and to the programs' source.

const (
	rulesFile  = "../deploy/alerts/harborseal.rules.yaml"
	rulesTests = "../deploy/alerts/harborseal.test.yaml"
	runbooks   = "../docs/runbooks"
)

// alertRule is one rule of the file.
type alertRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []alertRule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal([]byte(textOf(t, rulesFile)), &file); err != nil {
		t.Fatal(err)
	}
	var rules []alertRule
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) < 10 {
		t.Fatalf("%s has %d rules: is it written in another way now?", rulesFile, len(rules))
	}
	return rules
}

// Every alert has its page, which the list of pages names; every page is of an alert; and a test of promtool lets each alert fire.
func TestAlertsHaveRunbooks(t *testing.T) {
	list := textOf(t, filepath.Join(runbooks, "README.md"))
	fired := firedAlerts(t)
	pages := make(map[string]bool)
	for _, rule := range alertRules(t) {
		name, ok := strings.CutPrefix(rule.Annotations["runbook"], "docs/runbooks/")
		if !ok {
			t.Errorf("%s names the runbook %q, want one in docs/runbooks", rule.Alert, rule.Annotations["runbook"])
			continue
		}
		pages[name] = true
		title, _, _ := strings.Cut(textOf(t, filepath.Join(runbooks, name)), "\n")
		if alerts := strings.Split(strings.TrimPrefix(title, "# "), ", "); !slices.Contains(alerts, rule.Alert) {
			t.Errorf("%s is entitled %q, want %s to be one of its alerts", name, title, rule.Alert)
		}
		line := regexp.MustCompile(`(?m)^\| .*\b` + rule.Alert + `\b.* \| \[[^\]]+\]\(` + regexp.QuoteMeta(name) + `\) \|$`)
		if !line.MatchString(list) {
			t.Errorf("README.md of the runbooks does not lead from %s to %s", rule.Alert, name)
		}
		if severity := rule.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has the severity %q, want page or ticket", rule.Alert, severity)
		}
		if rule.Annotations["summary"] == "" || rule.For == "" {
			t.Errorf("%s has the summary %q and waits for %q, want both", rule.Alert, rule.Annotations["summary"], rule.For)
		}
		if !fired[rule.Alert] {
			t.Errorf("no test in %s lets %s fire", rulesTests, rule.Alert)
		}
	}
	for _, page := range runbookPages(t) {
		if name := filepath.Base(page); name != "README.md" && !pages[name] {
			t.Errorf("no alert leads to %s", name)
		}
	}
}

// firedAlerts are those that a test of promtool lets fire.
func firedAlerts(t *testing.T) map[string]bool {
	t.Helper()
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name     string `yaml:"alertname"`
				Expected []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal([]byte(textOf(t, rulesTests)), &file); err != nil {
		t.Fatal(err)
	}
	fired := make(map[string]bool)
	for _, test := range file.Tests {
		for _, alert := range test.Alerts {
			fired[alert.Name] = fired[alert.Name] || len(alert.Expected) > 0
		}
	}
	return fired
}

// Every metric that rules and runbooks speak of is one of the programs'; in a pattern for grep it may be the beginning of some.
func TestAlertsNameMetrics(t *testing.T) {
	known := declaredMetrics(t)
	for _, page := range append(runbookPages(t), rulesFile, rulesTests) {
		text := textOf(t, page)
		patterns := regexp.MustCompile(`grep [^`+"`"+`]*`).FindAllString(text, -1)
		for _, name := range regexp.MustCompile(`harborseal_[a-z_]+`).FindAllString(text, -1) {
			begins := func(metric string) bool { return strings.HasPrefix(metric, name) }
			searched := slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(p, name) })
			found := known[name] || searched && slices.ContainsFunc(slices.Collect(maps.Keys(known)), begins)
			if !found {
				t.Errorf("%s has the metric %s, which no program has", page, name)
			}
		}
	}
}

// declaredMetrics are the names of all metrics in the source, with some that are none. Those of the queue are put together.
func declaredMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := make(map[string]bool)
	for path, text := range stringsBelow(t, "../pkg") {
		for literal := range text {
			switch queue := strings.HasPrefix(path, filepath.Join("..", "pkg", "queue")+string(filepath.Separator)); {
			case strings.HasPrefix(literal, "harborseal_"):
				known[literal] = true
			case queue && regexp.MustCompile(`^[a-z]+(_[a-z]+)+$`).MatchString(literal):
				known["harborseal_"+literal], known["harborseal_queue_"+literal] = true, true
			}
		}
	}
	if len(known) < 50 {
		t.Fatalf("the source has %d names of metrics: are they declared in another way now?", len(known))
	}
	return known
}

// The runbook of what does not answer explains every cause, and every dependency by its name; that of the canary every step.
func TestRunbooksExplain(t *testing.T) {
	for _, tt := range []struct {
		page, dir, typeName string
		least               int
	}{
		{"dependency-down.md", "../pkg/dependency", "Cause", 7},
		{"canary-fails.md", "../pkg/canary", "step", 5},
	} {
		values := typedStrings(t, tt.dir, tt.typeName)
		if len(values) < tt.least {
			t.Fatalf("%s has %d values of %s: are they declared in another way now?", tt.dir, len(values), tt.typeName)
		}
		text := textOf(t, filepath.Join(runbooks, tt.page))
		for _, value := range values {
			if !regexp.MustCompile("(?m)^ *\\| (`[a-z]+`, )*`" + value + "`").MatchString(text) {
				t.Errorf("%s has no row for %q", tt.page, value)
			}
		}
	}
	source := stringsBelow(t, "../pkg/app")
	text := textOf(t, filepath.Join(runbooks, "dependency-down.md"))
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(text, -1) {
		for _, name := range regexp.MustCompile("`([a-z_]+/?)").FindAllStringSubmatch(row[1], -1) {
			if name[1] != "dependency" && !within(source, name[1]) {
				t.Errorf("dependency-down.md has the dependency %q, which no program has", name[1])
			}
		}
	}
}

// What runbooks quote of logs is logged in these words, or begins so; the settings that they name stand in the example
// configurations, and the requests are those of the API.
func TestRunbooksQuote(t *testing.T) {
	source := stringsBelow(t, "../pkg")
	settings := textOf(t, "../config/receiver.yaml") + textOf(t, "../config/signer.yaml")
	api := textOf(t, "../pkg/api/openapi.yaml")
	quotes, names, requests := 0, 0, 0
	for _, page := range runbookPages(t) {
		text := textOf(t, page)
		for _, quoted := range regexp.MustCompile("log line\\s+`([^`]+)`").FindAllStringSubmatch(text, -1) {
			quotes++
			if !within(source, quoted[1]) {
				t.Errorf("%s quotes the log line %q, which no program writes", page, quoted[1])
			}
		}
		for _, setting := range regexp.MustCompile("`([a-z_]+(?:\\.[a-z_]+)+)`").FindAllStringSubmatch(text, -1) {
			names++
			last := setting[1][strings.LastIndexByte(setting[1], '.')+1:]
			if !regexp.MustCompile(`(?m)^[ #-]*` + last + `:`).MatchString(settings) {
				t.Errorf("%s names the setting %s, which no configuration has", page, setting[1])
			}
		}
		for _, path := range regexp.MustCompile(`/api/v1/[a-z-]+(/<project>(/[a-z-]+)?)?`).FindAllString(text, -1) {
			requests++
			if path = strings.ReplaceAll(path, "<project>", "{name}"); !strings.Contains(api, "\n  "+path+":") {
				t.Errorf("%s asks for %s, which the API does not have", page, path)
			}
		}
	}
	if quotes < 5 || names < 10 || requests < 5 {
		t.Errorf("the runbooks quote %d log lines, %d settings and %d requests: are they written in another way now?", quotes, names, requests)
	}
}

func runbookPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("the runbooks are %q, %v", pages, err)
	}
	return pages
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path) //nolint:gosec // a file of the project
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stringsBelow are the string literals of each file below a folder, without tests.
func stringsBelow(t *testing.T, dir string) map[string]map[string]bool {
	t.Helper()
	all := make(map[string]map[string]bool)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all[path] = make(map[string]bool)
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if text, err := strconv.Unquote(literal.Value); err == nil {
					all[path][text] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// within says whether a literal begins with a text.
func within(files map[string]map[string]bool, text string) bool {
	for _, literals := range files {
		for literal := range literals {
			if strings.HasPrefix(literal, text) {
				return true
			}
		}
	}
	return false
}

// typedStrings are the values of the constants of a named type in a folder.
func typedStrings(t *testing.T, dir, typeName string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^\t\w+ +` + typeName + ` += "([^"]+)"`)
	var values []string
	for _, path := range paths {
		for _, value := range declared.FindAllStringSubmatch(textOf(t, path), -1) {
			values = append(values, value[1])
		}
	}
	return values
}
