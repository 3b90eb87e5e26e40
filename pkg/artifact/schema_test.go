package artifact_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
)

// constants gives the values of a type's constants, as the source has them.
func constants(t *testing.T, typeName string) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if of, ok := spec.Type.(*ast.Ident); !ok || of.Name != typeName {
				return false
			}
			for _, v := range spec.Values {
				if literal, ok := v.(*ast.BasicLit); ok {
					text, err := strconv.Unquote(literal.Value)
					if err != nil {
						t.Fatal(err)
					}
					values = append(values, text)
				}
			}
			return false
		})
	}
	slices.Sort(values)
	return values
}

// document gives a file of docs/.
func document(t *testing.T, name string) []byte {
	t.Helper()
	root, err := artifacttest.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", name)) //nolint:gosec // a file of the working tree
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// part is what the tests read of the schema.
type part struct {
	Properties map[string]part `json:"properties"`
	Enum       []string        `json:"enum"`
	Defs       map[string]part `json:"$defs"`
}

func schema(t *testing.T) part {
	t.Helper()
	// Enumerations of other things than text, and the schema false, are none of the parts that are looked at.
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(document(t, "events.schema.json"), &raw); err != nil {
		t.Fatal(err)
	}
	var s part
	for name, into := range map[string]any{"properties": &s.Properties, "$defs": &s.Defs} {
		if err := json.Unmarshal(raw[name], into); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestTheVocabularyIsDocumented(t *testing.T) {
	t.Parallel()
	s, page := schema(t), string(document(t, "events.md"))
	for _, tt := range []struct{ typeName, property string }{
		{"Kind", "kind"}, {"Origin", "origin"}, {"Lane", "lane"}, {"How", "how"}, {"Format", "format"}, {"Result", "result"},
	} {
		want, got := constants(t, tt.typeName), slices.Sorted(slices.Values(s.Properties[tt.property].Enum))
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %v, the source %v", tt.property, got, want)
		}
		for _, value := range want {
			if !strings.Contains(page, "`"+value+"`") {
				t.Errorf("%s %q is not in docs/events.md", tt.property, value)
			}
		}
	}
	for _, name := range constants(t, "Kind") {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("kind %q has no row in docs/events.md", name)
		}
		for other := range strings.SplitSeq(page, "\n") {
			words := strings.Split(other, "|")
			if len(words) > 3 && strings.Contains(words[1], "`"+name+"`") && !strings.Contains(other, "`"+string(artifact.Kind(name).Result())+"`") {
				t.Errorf("the row of kind %q does not say that its result is %s", name, artifact.Kind(name).Result())
			}
		}
	}
}

// members gives the names that JSON has for the fields of a struct.
func members(of reflect.Type) []string {
	var names []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestTheSchemaHasEveryMember(t *testing.T) {
	t.Parallel()
	s := schema(t)
	for name, of := range map[string]any{
		"": artifact.Event{}, "evidence": artifact.Evidence{}, "change": artifact.Change{}, "sweep": artifact.Sweep{},
		"outage": artifact.OutageRecord{}, "key": artifact.KeyRecord{}, "report": artifact.ReportRecord{},
		"checkpoint": artifact.CheckpointRecord{}, "epoch": artifact.EpochRecord{},
	} {
		p := s
		if name != "" {
			p = s.Defs[name]
		}
		var got []string
		for member := range p.Properties {
			got = append(got, member)
		}
		slices.Sort(got)
		if want := members(reflect.TypeOf(of)); !slices.Equal(got, want) {
			t.Errorf("%T: the schema has %v, the source %v", of, got, want)
		}
	}
}

// example gives an event of a kind with all that the kind needs.
func example(t *testing.T, kind artifact.Kind) artifact.Event {
	t.Helper()
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	digest := artifact.DigestOf([]byte("x"))
	e := artifact.Event{ID: "1", Kind: kind, Time: at, Origin: artifact.OriginSigner, CorrelationID: "c"}
	if !kind.OfProject() {
		ref, err := artifact.NewRef("demo/team/app", digest)
		if err != nil {
			t.Fatal(err)
		}
		e.Ref = ref
	}
	signature := artifact.Evidence{Format: artifact.Legacy, KeyID: "k", Digest: digest, Log: "rekor", LogIndex: 7, TimestampedAt: at}
	switch kind {
	case artifact.Received, artifact.Confirmed:
		e.Tag, e.Pusher, e.PushedAt = "v1", "ann", &at
	case artifact.Queued:
		e.Parent = digest
	case artifact.Signed:
		e.How, e.Format, e.KeyID, e.SignatureDigest, e.Signatures = artifact.Made, artifact.Legacy, "k", digest, []artifact.Evidence{signature}
		e.LogOwed, e.AsOf, e.Accessories, e.KeySet = []artifact.Format{artifact.Bundle}, 3, []string{digest}, "s"
	case artifact.Removed:
		e.Unsigned, e.Signatures = true, []artifact.Evidence{signature}
	case artifact.Skipped, artifact.Blocked, artifact.Failed, artifact.Dead:
		e.Reason, e.Lane, e.Attempts = "timeout", artifact.Live, 1
	case artifact.Replayed, artifact.Discarded, artifact.Unreadable, artifact.PolicyChanged, artifact.Paused, artifact.Resumed:
		e.Detail, e.Change = "why", &artifact.Change{Before: json.RawMessage(`{}`), From: "cli"}
	case artifact.Swept:
		e.Project, e.Sweep = "demo", &artifact.Sweep{StartedAt: at}
	case artifact.Drifted, artifact.Repaired:
		e.Project, e.Reason = "demo", "webhook_missing"
	case artifact.Outage:
		e.Reason, e.Outage = "timeout", &artifact.OutageRecord{Dependency: "log/rekor", Program: "signer", StartedAt: at, DetectedAt: at, Cause: "timeout"}
	case artifact.KeyAdded, artifact.KeyRetired, artifact.KeyRevoked:
		state := map[artifact.Kind]string{artifact.KeyAdded: "active", artifact.KeyRetired: "retired", artifact.KeyRevoked: "revoked"}[kind]
		e.Key = &artifact.KeyRecord{ID: "k", Name: "main", Use: "image", State: state}
	case artifact.ReportRead, artifact.ReportExported:
		e.Report = &artifact.ReportRecord{Scope: "/api/v1/signatures?project=demo", Format: "csv", SHA256: strings.Repeat("a", 64)}
	case artifact.Checkpointed:
		e.Checkpoint = &artifact.CheckpointRecord{Epoch: 1, Size: 2, LastSeq: 3, Note: "note", Frontier: [][]byte{{1}}}
	case artifact.EpochOpened:
		e.Epoch = &artifact.EpochRecord{Epoch: 1, First: 1, Stream: at, Note: "note"}
	case artifact.Tampered, artifact.RetentionShortened, artifact.BackupMade, artifact.Restored:
		e.Detail = "what"
	default:
	}
	return e
}

func TestEveryKindConforms(t *testing.T) {
	t.Parallel()
	for _, name := range constants(t, "Kind") {
		if err := artifacttest.CheckEvent(example(t, artifact.Kind(name))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// with puts a value into a document, and without takes it away. A path leads through objects, and into the first of a list.
func with(value any, path ...string) func(e map[string]any) {
	return func(e map[string]any) { holder(e, path)[path[len(path)-1]] = value }
}

func without(path ...string) func(e map[string]any) {
	return func(e map[string]any) { delete(holder(e, path), path[len(path)-1]) }
}

func holder(e map[string]any, path []string) map[string]any {
	for _, name := range path[:len(path)-1] {
		switch inner := e[name].(type) {
		case map[string]any:
			e = inner
		case []any:
			e, _ = inner[0].(map[string]any)
		}
	}
	return e
}

func TestWrongDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	s := artifacttest.Open(t)
	for _, tt := range []struct {
		name   string
		kind   artifact.Kind
		change func(e map[string]any)
	}{
		{"no id", artifact.Received, without("id")},
		{"an empty id", artifact.Received, with("", "id")},
		{"no version", artifact.Received, without("v")},
		{"another version", artifact.Received, with(2, "v")},
		{"an unknown kind", artifact.Received, with("of_the_future", "kind")},
		{"no kind", artifact.Received, without("kind")},
		{"no time", artifact.Received, without("time")},
		{"a time that is none", artifact.Received, with("yesterday", "time")},
		{"a day that is none", artifact.Received, with("2026-02-30T12:00:00Z", "time")},
		{"a time not in UTC", artifact.Received, with("2026-01-31T12:00:00+01:00", "time")},
		{"no origin", artifact.Received, without("origin")},
		{"an unknown origin", artifact.Received, with("somewhere", "origin")},
		{"no correlation id", artifact.Received, without("correlation_id")},
		{"an unknown result", artifact.Received, with("perhaps", "result")},
		{"a manifest that is none", artifact.Received, with("demo/app:v1", "ref")},
		{"a manifest without a project", artifact.Received, with("app@sha256:"+strings.Repeat("a", 64), "ref")},
		{"no manifest", artifact.Signed, without("ref")},
		{"a manifest and a project", artifact.Signed, with("demo", "project")},
		{"a sweep of a manifest", artifact.Swept, with("demo/app@sha256:"+strings.Repeat("a", 64), "ref")},
		{"a sweep without a project", artifact.Swept, without("project")},
		{"a sweep without a summary", artifact.Swept, without("sweep")},
		{"signed by no key", artifact.Signed, without("key_id")},
		{"signed somehow", artifact.Signed, with("somehow", "how")},
		{"a format that is none", artifact.Signed, with("pgp", "format")},
		{"evidence without a key", artifact.Signed, without("signatures", "key_id")},
		{"how it was received", artifact.Received, with("made", "how")},
		{"failed without a reason", artifact.Failed, without("reason")},
		{"skipped without a reason", artifact.Skipped, without("reason")},
		{"removed, and signed", artifact.Removed, with(false, "unsigned")},
		{"nothing removed", artifact.Removed, with([]any{}, "signatures")},
		{"a child of nothing", artifact.Queued, without("parent")},
		{"confirmed by nobody", artifact.Confirmed, without("pusher")},
		{"confirmed without a time", artifact.Confirmed, without("pushed_at")},
		{"nothing changed", artifact.PolicyChanged, without("change")},
		{"discarded for no reason", artifact.Discarded, without("detail")},
		{"an outage of nothing", artifact.Outage, without("outage", "dependency")},
		{"a key of nothing", artifact.KeyAdded, without("key")},
		{"a retired key that is active", artifact.KeyRetired, with("active", "key", "state")},
		{"a revoked key that is retired", artifact.KeyRevoked, with("retired", "key", "state")},
		{"a key for something else", artifact.KeyAdded, with("door", "key", "use")},
		{"a report of nothing", artifact.ReportRead, without("report", "scope")},
		{"an export in no format", artifact.ReportExported, without("report", "format")},
		{"a checkpoint without a note", artifact.Checkpointed, without("checkpoint", "note")},
		{"a negative number", artifact.Failed, with(-1, "attempts")},
		{"a number as a text", artifact.Failed, with("1", "attempts")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data, err := artifact.EncodeEvent(example(t, tt.kind))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check(data); err != nil {
				t.Fatalf("it is refused before it is wrong: %v", err)
			}
			var e map[string]any
			if err := json.Unmarshal(data, &e); err != nil {
				t.Fatal(err)
			}
			tt.change(e)
			if data, err = json.Marshal(e); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(data); err == nil {
				t.Errorf("the schema takes %s", data)
			}
		})
	}
}

// TestOlderAndNewerDocuments: an older program did not say who and with what result, a newer one may say more.
func TestOlderAndNewerDocuments(t *testing.T) {
	t.Parallel()
	s := artifacttest.Open(t)
	const older = `{"v":1,"id":"1","kind":"received","ref":"demo/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",` +
		`"time":"2026-01-31T12:00:00.123456Z","origin":"webhook","correlation_id":"c"}`
	if err := s.Check([]byte(older)); err != nil {
		t.Errorf("an older event: %v", err)
	}
	if err := s.CheckCurrent([]byte(older)); err == nil {
		t.Error("an event without actor and result is taken for one of this version")
	}
	data, err := artifact.EncodeEvent(example(t, artifact.Received))
	if err != nil {
		t.Fatal(err)
	}
	newer := slices.Concat(data[:len(data)-1], []byte(`,"mood":"good"}`))
	if err := s.Check(newer); err != nil {
		t.Errorf("a newer event: %v", err)
	}
	if err := s.CheckCurrent(newer); err == nil {
		t.Error("a member of which the document says nothing is taken for one of this version")
	}
}
