package policy_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

func document() policy.Document {
	return policy.Document{
		Version: 1, Project: "demo", ProjectID: 7,
		Spec: policy.Spec{
			Mode: policy.ModeSign, Tags: policy.Globs{Include: []string{"v*"}}, Untagged: policy.UntaggedExclude,
			Exemptions: []policy.Exemption{{Repository: "**", Approver: "jane", Reason: "why", Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}},
		},
		Backfill: policy.Backfill{Choice: "all"}, Blocks: []policy.Block{{Digest: digest, Reason: "r", By: "joe", At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}},
		ChangedBy: "jane", ChangedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func TestDocument(t *testing.T) {
	want := document()
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := policy.DecodeDocument(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	p := got.Policy(12)
	if p.Revision != "api-12" || p.Manager != policy.ByAPI || p.ProjectID != 7 || len(p.Blocks) != 1 || !p.NeedsTags() {
		t.Errorf("its policy is %+v", p)
	}
}

// No annotations at all are another thing than those of the signer.
func TestEmptyAnnotationsAreKept(t *testing.T) {
	for name, annotations := range map[string]map[string]string{"none": {}, "the signer's": nil, "its own": {"a": "b"}} {
		want := document()
		want.Annotations = annotations
		data, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(data), `"annotations"`); got != (annotations != nil) {
			t.Errorf("%s: %s has annotations: %t", name, data, got)
		}
		read, err := policy.DecodeDocument(data)
		if err != nil || !reflect.DeepEqual(read.Annotations, annotations) {
			t.Errorf("%s: got %#v, %v, want %#v", name, read.Annotations, err, annotations)
		}
		fallback := policy.Terms{Annotations: map[string]string{"of": "the signer"}}
		terms := read.Policy(1).Terms.Or(fallback)
		if _, taken := terms.Annotations["of"]; taken != (annotations == nil) {
			t.Errorf("%s: signed with %v", name, terms.Annotations)
		}
		declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"demo"}, Spec: want.Spec, Backfill: want.Backfill}})
		if err != nil {
			t.Fatal(err)
		}
		if data, err = declared.Encode(); err != nil {
			t.Fatal(err)
		}
		again, err := policy.DecodeDeclared(data)
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := again.Lookup("demo"); !reflect.DeepEqual(p.Terms.Annotations, annotations) || again.Revision() != declared.Revision() {
			t.Errorf("%s, of a file: got %#v, want %#v", name, p.Terms.Annotations, annotations)
		}
	}
}

// What a newer program wrote must not be taken for a policy that asks for less.
func TestDocumentsThatCannotBeRead(t *testing.T) {
	for name, tt := range map[string]struct {
		data string
		want error
	}{
		"newer":      {`{"v":2,"project":"demo","project_id":7,"mode":"sign","backfill":{"choice":"all"}}`, artifact.ErrNewerVersion},
		"no version": {`{"project":"demo","project_id":7,"mode":"sign","backfill":{"choice":"all"}}`, nil},
		"no id":      {`{"v":1,"project":"demo","mode":"sign","backfill":{"choice":"all"}}`, nil},
		"no mode":    {`{"v":1,"project":"demo","project_id":7,"backfill":{"choice":"all"}}`, nil},
		"no JSON":    {`{`, nil},
	} {
		_, err := policy.DecodeDocument([]byte(tt.data))
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := policy.DecodePause([]byte(`{"v":2}`)); !errors.Is(err, artifact.ErrNewerVersion) {
		t.Errorf("a newer pause: got %v", err)
	}
	if _, err := policy.DecodeState([]byte(`{"v":2,"project":"demo"}`)); !errors.Is(err, artifact.ErrNewerVersion) {
		t.Errorf("a newer state: got %v", err)
	}
}

func TestSpecReportsAll(t *testing.T) {
	err := policy.Spec{
		Mode: "maybe", Untagged: "perhaps", Restore: "never", Format: "best",
		Repositories: policy.Globs{Include: []string{"", "[", "a/**"}, Exclude: make([]string, policy.MaxGlobs+1)},
		Tags:         policy.Globs{Include: []string{"{a"}, Exclude: []string{strings.Repeat("x", 300)}},
		Rate:         policy.Rate{PerSecond: -1, Burst: -1}, MaxInFlight: 2000,
		Annotations: map[string]string{"a": "b\x00"},
		Exemptions:  []policy.Exemption{{}, {Repository: "a", Digest: "sha256:0", Approver: "a\nb", Reason: strings.Repeat("x", 600)}},
	}.Validate()
	for _, want := range []string{
		"mode", "untagged", "restore", "format", "repositories.include[0]", "repositories.include[1]", "repositories.exclude:",
		"tags.include[0]", "tags.exclude[0]", "rate.per_second", "rate.burst", "max_in_flight", "annotations",
		"exemptions[0]:", "exemptions[0].approver", "exemptions[0].reason", "exemptions[0].expires",
		"exemptions[1].digest", "exemptions[1].approver", "exemptions[1].reason",
	} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("error does not name %s:\n%v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "repositories.include[2]") {
		t.Errorf("error names the good one:\n%v", err)
	}
	if err := (policy.Spec{Mode: policy.ModeSign}).Validate(); err != nil {
		t.Errorf("the least that a policy says: %v", err)
	}
}

// Each glob that is accepted can be matched: doublestar says only when a name leads it there that a glob is malformed.
func FuzzGlobs(f *testing.F) {
	for _, glob := range []string{"team/**", "{a,b}/*", "[a-z]*", "a\\", "[", "{[}]", "[]a]", "[^a]", "[a-", "**{", "[-a]"} {
		f.Add(glob, "team/app")
	}
	f.Fuzz(func(_ *testing.T, glob, name string) {
		spec := policy.Spec{Mode: policy.ModeSign, Repositories: policy.Globs{Include: []string{glob}}}
		if spec.Validate() == nil {
			spec.Repositories.Matches(name)
		}
	})
}
