package sigstore_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// copies is a manifest of n layers that are the same signature, each with a note of a log entry unless that is empty.
func copies(n int, entry string) artifact.Manifest {
	payload := artifact.DigestOf([]byte("payload"))
	notes := `"dev.cosignproject.cosign/signature":"Zm9v"`
	if entry != "" {
		notes += fmt.Sprintf(`,"dev.sigstore.cosign/bundle":%q`, entry)
	}
	layer := fmt.Sprintf(`{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":7,"digest":%q,"annotations":{%s}}`, payload, notes)
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[%s]}`,
		strings.TrimSuffix(strings.Repeat(layer+",", n), ","))
	return artifact.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: artifact.DigestOf(raw), Raw: raw}
}

// entryOf is a note that can be read, whose body has some bytes more.
func entryOf(more int) string {
	body := fmt.Sprintf(`{"kind":"hashedrekord","apiVersion":"0.0.1","spec":%q}`, strings.Repeat("x", more))
	return fmt.Sprintf(`{"SignedEntryTimestamp":"eA==","Payload":{"body":%q,"logID":"00"}}`, base64.StdEncoding.EncodeToString([]byte(body)))
}

// TestManyCopiesOfASignature: whoever may push can have a thousand copies of a signature merged with a thousand others. That costs what
// the manifests have, and not their product, and what does not fit is left out. It is not parallel, so that it can count what is allocated.
func TestManyCopiesOfASignature(t *testing.T) {
	legacy := newLegacy(t, active("p256"))
	for _, tt := range []struct {
		name           string
		current, other artifact.Manifest
		wantNotes      int
	}{
		{"short notes", copies(900, ""), copies(900, entryOf(0)), 900},
		{"a long note", copies(50, ""), copies(1, entryOf(1<<20)), 0},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := legacy.Merge(&tt.current, []artifact.Manifest{tt.other})
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 128<<20 {
			t.Errorf("%s: merging %d and %d bytes allocates %d MiB", tt.name, len(tt.current.Raw), len(tt.other.Raw), got>>20)
		}
		if err != nil || len(m.Raw) == 0 {
			t.Errorf("%s: %d bytes, %v, want a manifest", tt.name, len(m.Raw), err)
		}
		if got := bytes.Count(m.Raw, []byte("dev.sigstore.cosign/bundle")); got != tt.wantNotes {
			t.Errorf("%s: %d layers have a log entry, want %d", tt.name, got, tt.wantNotes)
		}
	}
}
