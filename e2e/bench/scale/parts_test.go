package scale_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/scale"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/ledger"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	ref := func(digest string) harbortest.SyntheticRef {
		return harbortest.SyntheticRef{Repository: "p/a", Digest: digest}
	}
	for name, tt := range map[string]struct {
		requested []string
		want      scale.Found
	}{
		"all":                 {[]string{"p/a@1", "p/a@2"}, scale.Found{Want: 2, Found: 2}},
		"one missing":         {[]string{"p/a@1"}, scale.Found{Want: 2, Found: 1}},
		"another instead":     {[]string{"p/a@1", "p/a@3"}, scale.Found{Want: 2, Found: 1, Others: 1}},
		"the same elsewhere":  {[]string{"p/a@1", "p/a@2", "p/b@1"}, scale.Found{Want: 2, Found: 2, Others: 1}},
		"nothing was asked":   {nil, scale.Found{Want: 2}},
		"another place alone": {[]string{"p/b@1", "p/b@2"}, scale.Found{Want: 2, Others: 2}},
	} {
		requested := map[string]bool{}
		for _, r := range tt.requested {
			requested[r] = true
		}
		if got := scale.Compare(requested, []harbortest.SyntheticRef{ref("1"), ref("2")}); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestSeed lets the ledger's own rules read a seeded event: a sweep recalls the signature under the tag, and that alone.
func TestSeed(t *testing.T) {
	t.Parallel()
	digest := func(c byte) string {
		raw := []byte("sha256:")
		for range 64 {
			raw = append(raw, c)
		}
		return string(raw)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	event, err := scale.SignedEvent(harbortest.SyntheticArtifact{
		SyntheticRef: harbortest.SyntheticRef{Repository: "p/a", Digest: digest('1')}, Signatures: []string{digest('2'), digest('3')},
	}, "key", at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.EncodeEvent(event); err != nil {
		t.Errorf("the event is not one of the ledger's: %v", err)
	}
	record := ledger.Record{Ref: event.Ref}
	record.Apply(artifact.Entry{Seq: 7, Event: event})
	want := artifact.Evidence{Format: artifact.Legacy, KeyID: "key", Digest: digest('3')}
	if len(record.Signatures) != 1 || record.Signatures[0] != want {
		t.Errorf("the ledger has the signatures %v, want %v", record.Signatures, want)
	}
	if !record.SignedAt.Equal(at) {
		t.Errorf("the ledger says that it was signed at %s, want %s", record.SignedAt, at)
	}
	if state := record.State(); state != ledger.Signed {
		t.Errorf("the ledger's state is %s, want %s", state, ledger.Signed)
	}
}
