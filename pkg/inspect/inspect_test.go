package inspect_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/policy"
)

func reasons(r inspect.Report) []string {
	all := []string{}
	for _, p := range r.Problems {
		all = append(all, string(p.Reason))
	}
	return all
}

// summary is each signature in short, sorted: format, key and state, and why it does not count.
func summary(r inspect.Report) []string {
	all := []string{}
	for _, s := range r.Signatures {
		short := []string{string(s.Format)}
		if s.Key != nil {
			short = append(short, s.Key.Name, s.Key.State)
		}
		if s.Verified != (s.Reason == "") || s.Verified != (s.Detail == "") {
			short = append(short, "CONTRADICTS ITSELF")
		}
		all = append(all, strings.Join(append(short, string(s.Reason)), " "))
	}
	slices.Sort(all)
	return all
}

func TestVerify(t *testing.T) {
	elsewhere := func(ref artifact.Ref) *artifact.Claim {
		return &artifact.Claim{Identity: host + "/demo/elsewhere", Digest: ref.Digest()}
	}
	bend := func(s *artifact.Signature) { s.Bytes = slices.Clone(s.Bytes); s.Bytes[len(s.Bytes)-1] ^= 1 }
	both := []artifact.Format{artifact.Legacy, artifact.Bundle}
	tests := []struct {
		name       string
		policy     func(p *policy.Policy)
		sign       func(t *testing.T, w *world, ref artifact.Ref)
		question   inspect.Question
		problems   []string
		signatures []string
	}{
		{
			"signed in both formats", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "one"}) },
			inspect.Question{},
			nil,
			[]string{"bundle one active ", "legacy one active "},
		},
		{
			"by a retired key", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "three"}) },
			inspect.Question{},
			nil,
			[]string{"bundle three verify-only ", "legacy three verify-only "},
		},
		{
			"by a retired key, and the policy wants the active one", func(p *policy.Policy) { p.Terms.ActiveKeyOnly = true },
			func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "three"}) },
			inspect.Question{},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle three verify-only ", "legacy three verify-only "},
		},
		{
			"by another project's key", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "two"}) },
			inspect.Question{},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle two active ", "legacy two active "},
		},
		{
			"by a revoked key", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "gone"}) },
			inspect.Question{},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle gone revoked key_revoked", "legacy gone revoked key_revoked"},
		},
		{"a format is missing", nil, func(t *testing.T, w *world, ref artifact.Ref) {
			t.Helper()
			w.sign(t, ref, artifact.Legacy, made{key: "one"})
		}, inspect.Question{}, []string{"missing_signature"}, []string{"legacy one active "}},
		{"a format is missing that is not asked for", nil, func(t *testing.T, w *world, ref artifact.Ref) {
			t.Helper()
			w.sign(t, ref, artifact.Legacy, made{key: "one"})
		}, inspect.Question{Formats: both[:1]}, nil, []string{"legacy one active "}},
		{"the other key is asked for", nil, func(t *testing.T, w *world, ref artifact.Ref) {
			t.Helper()
			w.signBoth(t, ref, made{key: "one"})
			w.sign(t, ref, artifact.Bundle, made{key: "two"})
		}, inspect.Question{Key: "two", Formats: both[1:]}, nil, []string{"bundle one active ", "bundle two active ", "legacy one active "}},
		{
			"a key is asked for that has not signed", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "one"}) },
			inspect.Question{Key: "two"},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle one active ", "legacy one active "},
		},
		{
			"the active key is asked for, and a retired one has signed", nil,
			func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "three"}) },
			inspect.Question{Key: "one"},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle three verify-only ", "legacy three verify-only "},
		},
		{
			"a revoked key is asked for", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "gone"}) },
			inspect.Question{Key: "gone"},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle gone revoked key_revoked", "legacy gone revoked key_revoked"},
		},
		{
			"a key is asked for that nobody knows", nil, func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "one"}) },
			inspect.Question{Key: "four"},
			[]string{"unknown_key"},
			[]string{"bundle one active ", "legacy one active "},
		},
		{
			"changed", nil, func(t *testing.T, w *world, ref artifact.Ref) {
				t.Helper()
				w.signBoth(t, ref, made{key: "one", change: bend})
			},
			inspect.Question{},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle not_verified", "legacy not_verified"},
		},
		{"of another repository", func(p *policy.Policy) { p.Terms.Format = policy.FormatLegacy }, func(t *testing.T, w *world, ref artifact.Ref) {
			t.Helper()
			w.sign(t, ref, artifact.Legacy, made{key: "one", claim: elsewhere(ref)})
		}, inspect.Question{}, []string{"missing_signature"}, []string{"legacy one active other_repository"}},
		{"not signed", nil, func(t *testing.T, _ *world, _ artifact.Ref) { t.Helper() }, inspect.Question{}, []string{"missing_signature", "missing_signature"}, []string{}},
		{
			"the log entry is missing", func(p *policy.Policy) { p.Terms.Transparency, p.Terms.Log = policy.TransparencyRequired, "log" },
			func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "one"}) },
			inspect.Question{},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle one active ", "legacy one active "},
		},
		{
			"the log entry is there", func(p *policy.Policy) { p.Terms.Transparency, p.Terms.Log = policy.TransparencyRequired, "log" },
			func(t *testing.T, w *world, ref artifact.Ref) {
				t.Helper()
				w.signBoth(t, ref, made{key: "one", logged: true})
			},
			inspect.Question{},
			nil,
			[]string{"bundle one active ", "legacy one active "},
		},
		{
			"the timestamp is missing", func(p *policy.Policy) { p.Terms.Timestamp = policy.TimestampRequired },
			func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "one"}) },
			inspect.Question{},
			[]string{"missing_signature", "missing_signature"},
			[]string{"bundle one active ", "legacy one active "},
		},
		{
			"the policy names a log that is not there", func(p *policy.Policy) { p.Terms.Transparency, p.Terms.Log = policy.TransparencyRequired, "nowhere" },
			func(t *testing.T, w *world, ref artifact.Ref) { t.Helper(); w.signBoth(t, ref, made{key: "one"}) },
			inspect.Question{},
			[]string{"unverifiable"},
			[]string{"bundle one active ", "legacy one active "},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.policy != nil {
				tt.policy(&w.policy)
			}
			ref := w.image(t, 1)
			tt.sign(t, w, ref)
			q := tt.question
			q.Repository, q.Reference = ref.Repository(), ref.Digest()
			r := w.look(t, inspect.VerifyTopic, q)
			if tt.problems == nil {
				tt.problems = []string{}
			}
			if got := reasons(r); !slices.Equal(got, tt.problems) || r.Verified != (len(tt.problems) == 0) {
				t.Errorf("verified %t, problems %+v; want %v", r.Verified, r.Problems, tt.problems)
			}
			if got := summary(r); !slices.Equal(got, tt.signatures) {
				t.Errorf("signatures %q, want %q", got, tt.signatures)
			}
			if r.Repository != ref.Repository() || r.Digest != ref.Digest() || !r.CheckedAt.Equal(noon) || r.MediaType != ociImage {
				t.Errorf("the report is about %s@%s of %s at %s", r.Repository, r.Digest, r.MediaType, r.CheckedAt)
			}
			for what, n := range w.asked {
				if n > 1 {
					t.Errorf("%s was asked for %d times, want each thing once: what is judged is what is shown", what, n)
				}
			}
		})
	}
}

// What stands behind a signature, and what it claims.
func TestVerifyShowsWhatProves(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.policy.Terms.Transparency, w.policy.Terms.Log = policy.TransparencyDeferred, "log"
	w.sign(t, ref, artifact.Legacy, made{key: "one", logged: true, stamped: true})
	w.sign(t, ref, artifact.Bundle, made{key: "one"})
	r := w.look(t, inspect.VerifyTopic, inspect.Of(ref))
	if !r.Verified || r.Asked == nil || r.Asked.PolicyRevision != "api-7" || !r.Asked.Enabled || r.Asked.Log != "log" {
		t.Fatalf("verified %t, asked %+v", r.Verified, r.Asked)
	}
	for _, s := range r.Signatures {
		if c := s.Claim; c == nil || c.Digest != ref.Digest() || c.Annotations["environment"] != "production" || c.Truncated {
			t.Errorf("%s: claim %+v", s.Format, c)
		}
		if s.Documents != nil {
			t.Errorf("%s: documents in an answer that has none", s.Format)
		}
		if s.Format == artifact.Bundle {
			if s.Log != nil || s.Timestamp != nil || s.Claim.Registry != "" {
				t.Errorf("a bundle without anything has %+v, %+v", s.Log, s.Timestamp)
			}
			continue
		}
		if s.Claim.Registry != host || s.Claim.Repository != repository {
			t.Errorf("it claims %s/%s", s.Claim.Registry, s.Claim.Repository)
		}
		if l := s.Log; l == nil || !l.Verified || l.Log != "log" || l.Index != 42 || l.IntegratedAt == nil || !l.IntegratedAt.Equal(noon) {
			t.Errorf("log entry %+v", l)
		}
		if at := s.Timestamp; at == nil || !at.Verified || at.Authority != "authority" || at.At == nil || !at.At.Equal(noon) {
			t.Errorf("timestamp %+v", at)
		}
	}
}

// An entry and a timestamp of something else are shown for what they are.
func TestVerifyUnprovenMaterial(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.policy.Terms.Format = policy.FormatLegacy
	w.sign(t, ref, artifact.Legacy, made{key: "one", change: func(s *artifact.Signature) {
		s.Entry = w.log.enter(artifact.Signature{Bytes: []byte("another one")})
		s.Timestamp = stampOf([]byte("another one"))
	}})
	s := w.look(t, inspect.VerifyTopic, inspect.Of(ref)).Signatures[0]
	if !s.Verified || s.Log == nil || s.Log.Verified || s.Log.Log != "" || s.Timestamp == nil || s.Timestamp.Verified || s.Timestamp.At != nil {
		t.Errorf("verified %t, log %+v, timestamp %+v; want both there and unproven", s.Verified, s.Log, s.Timestamp)
	}
}

func TestVerifyByTag(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.signBoth(t, ref, made{key: "one"})
	w.manifests["v1"] = w.manifests[ref.Digest()]
	if r := w.look(t, inspect.VerifyTopic, inspect.Question{Repository: repository, Reference: "v1"}); r.Digest != ref.Digest() || !r.Verified {
		t.Errorf("v1 is %s, verified %t", r.Digest, r.Verified)
	}
}

func TestVerifyIsNeverFromMemory(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.signBoth(t, ref, made{key: "one"})
	if r := w.look(t, inspect.VerifyTopic, inspect.Of(ref)); !r.Verified {
		t.Fatalf("not verified: %+v", r.Problems)
	}
	// The bundles stay listed, and what they hold is gone.
	for digest := range w.blobs {
		delete(w.blobs, digest)
	}
	if r := w.look(t, inspect.VerifyTopic, inspect.Of(ref)); r.Verified || !slices.Contains(r.Missing, artifact.Bundle) {
		t.Errorf("verified %t, missing %v; want the bundle to be missing", r.Verified, r.Missing)
	}
}

func TestVerifyErrors(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.signBoth(t, ref, made{key: "one"})
	ask := func(q any) error {
		raw, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.inspect.AnswerVerify(t.Context(), raw)
		return err
	}
	want := func(what string, err error, kind fault.Kind) {
		t.Helper()
		if err == nil || fault.Of(err).Kind != kind {
			t.Errorf("%s: %v, want %s", what, err, kind)
		}
	}
	want("no such tag", ask(inspect.Question{Repository: repository, Reference: "v9"}), fault.Gone)
	for name, q := range map[string]any{
		"no object": "x", "no repository": inspect.Question{Reference: "v1"}, "no reference": inspect.Question{Repository: repository},
		"a wrong digest": inspect.Question{Repository: repository, Reference: "sha256:1"}, "a path": inspect.Question{Repository: repository, Reference: "../v1"},
		"a format":       inspect.Question{Repository: repository, Reference: "v1", Formats: []artifact.Format{"x"}},
		"a format twice": inspect.Question{Repository: repository, Reference: "v1", Formats: []artifact.Format{"legacy", "legacy"}},
		"a long key":     inspect.Question{Repository: repository, Reference: "v1", Key: strings.Repeat("k", 1000)},
	} {
		want(name, ask(q), fault.Permanent)
	}
	w.policyErr = errors.New("policies are not loaded")
	want("no policy", ask(inspect.Of(ref)), fault.Transient)
	w.policyErr = nil
	for what := range w.asked {
		if strings.HasPrefix(what, "v") {
			continue
		}
		t.Errorf("%s was asked for by a question that is none", what)
	}
	w.fail = func(what string) error {
		if strings.HasPrefix(what, "referrers") {
			return fault.Newf(fault.Transient, fault.Unavailable, "away")
		}
		return nil
	}
	want("the registry answers half", ask(inspect.Of(ref)), fault.Transient)
}

// Garbage under the tag, and a flood of bundles, end in an answer that says so.
func TestVerifyAFlood(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.sign(t, ref, artifact.Legacy, made{key: "one"})
	for n := range 120 {
		claim := artifact.Claim{Identity: host + "/" + repository, Digest: ref.Digest(), Annotations: map[string]string{"n": strings.Repeat("x", n+1)}}
		w.sign(t, ref, artifact.Bundle, made{key: "gone", claim: &claim})
	}
	r := w.look(t, inspect.EvidenceTopic, inspect.Of(ref))
	if r.Verified || !r.MoreSignatures || !slices.Contains(reasons(r), "too_much") {
		t.Errorf("verified %t, more %t, problems %v; want what is too much", r.Verified, r.MoreSignatures, reasons(r))
	}
}

func TestEvidence(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	w.signBoth(t, ref, made{key: "one", logged: true, stamped: true})
	r := w.look(t, inspect.EvidenceTopic, inspect.Of(ref))
	if !r.Verified || len(r.Signatures) != 2 {
		t.Fatalf("verified %t, %d signatures", r.Verified, len(r.Signatures))
	}
	for _, s := range r.Signatures {
		d := s.Documents
		if d == nil || d.Payload == nil || d.Signature == nil || d.Timestamp == nil || d.LogEntry == nil || d.Payload.Encoding != "utf-8" || d.Signature.Encoding != "base64" || d.Timestamp.Encoding != "base64" {
			t.Fatalf("%s: documents %+v", s.Format, d)
		}
		raw, err := base64.StdEncoding.DecodeString(d.Signature.Data)
		if err != nil || "sha256:"+d.Signature.SHA256 != artifact.DigestOf(raw) || d.Signature.Size != len(raw) || string(decoded(t, d.Timestamp)) != string(stampOf(raw)) {
			t.Errorf("%s: signature and timestamp do not belong together: %v", s.Format, err)
		}
		switch s.Format {
		case artifact.Legacy:
			if s.Blob != artifact.DigestOf([]byte(d.Payload.Data)) || d.RekorBundle == nil || d.Bundle != nil || len(d.Annotations) != 1 {
				t.Errorf("legacy: payload of %s, rekor bundle %+v, annotations %v", s.Blob, d.RekorBundle, d.Annotations)
			}
		case artifact.Bundle:
			if d.Bundle == nil || s.Blob != artifact.DigestOf([]byte(d.Bundle.Data)) || d.InclusionProof == nil || len(d.InclusionProof.Hashes) != 1 || d.InclusionProof.Checkpoint == "" {
				t.Errorf("bundle: %+v, proof %+v", d.Bundle, d.InclusionProof)
			}
		}
	}
}

func decoded(t *testing.T, d *inspect.Document) []byte {
	t.Helper()
	if d.Encoding == "utf-8" {
		return []byte(d.Data)
	}
	raw, err := base64.StdEncoding.DecodeString(d.Data)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Documents that do not fit are left out, and say so. look checks the length of the answer.
func TestEvidenceThatIsTooLong(t *testing.T) {
	w := newWorld(t)
	ref := w.image(t, 1)
	for n := range 40 {
		claim := artifact.Claim{Identity: host + "/" + repository, Digest: ref.Digest(), Annotations: map[string]string{"n": strings.Repeat("\"\x01", 4000+n), "m": strings.Repeat("é", 4000)}}
		w.sign(t, ref, artifact.Legacy, made{key: "one", claim: &claim})
	}
	r := w.look(t, inspect.EvidenceTopic, inspect.Of(ref))
	whole, cut := 0, 0
	for _, s := range r.Signatures {
		if !s.Claim.Truncated {
			t.Errorf("a claim with annotations of thousands of bytes is shown whole")
		}
		if p := s.Documents.Payload; p.Truncated {
			cut++
			if p.Data != "" || p.Size < 10_000 || p.SHA256 == "" {
				t.Errorf("what is left out is %d bytes, %q", p.Size, p.SHA256)
			}
		} else {
			whole++
		}
	}
	if whole == 0 || cut == 0 {
		t.Errorf("%d payloads are whole, %d left out; want some of each", whole, cut)
	}
}

func TestNew(t *testing.T) {
	if _, err := inspect.New(inspect.Config{}); err == nil {
		t.Error("New without anything gives no error")
	}
	if _, err := inspect.NewClient(nil); err == nil {
		t.Error("NewClient without an asker gives no error")
	}
}

// What comes over the queue is the word of another program.
func FuzzQuestion(f *testing.F) {
	w := newWorld(f)
	f.Add([]byte(`{"repository":"demo/app","reference":"v1","formats":["legacy"],"key":"k"}`))
	f.Add([]byte(`{"repository":"demo/app","reference":"sha256:1"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		w.asked = map[string]int{}
		_, err := w.inspect.AnswerVerify(t.Context(), raw)
		var q inspect.Question
		valid := json.Unmarshal(raw, &q) == nil && q.Validate() == nil
		if err == nil || valid != (fault.Of(err).Kind == fault.Gone) || valid != (len(w.asked) > 0) {
			t.Errorf("%q: asked for %v, valid: %t; %v", raw, w.asked, valid, err)
		}
	})
}
