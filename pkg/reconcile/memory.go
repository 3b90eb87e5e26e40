package reconcile

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// maxRemembered bounds the memory to about 10 MiB.
const maxRemembered = 200_000

// rememberedFor bounds how long a fact is relied on: a listing does not tell when a tag moved between two signature
// manifests that it shows both.
const rememberedFor = time.Hour

// memory knows which manifests were seen to carry a valid signature, together with the signature manifests that Harbor
// listed for them then: content under a digest never changes, so this holds as long as the listing shows the same. And it
// knows which ones a sweep has asked for: one that is never signed, such as an untagged attestation, would otherwise be
// asked for, looked at and skipped by every sweep.
type memory struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time // when; guarded by mu
}

func newMemory() *memory { return &memory{seen: make(map[[sha256.Size]byte]time.Time)} }

func (m *memory) lately(k [sha256.Size]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, found := m.seen[k]
	return found && time.Since(at) < rememberedFor
}

func (m *memory) forget(k [sha256.Size]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.seen, k)
}

func (m *memory) remember(k [sha256.Size]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seen) >= maxRemembered {
		clear(m.seen) // forgetting costs work, never truth
	}
	m.seen[k] = time.Now()
}

// verifiedKey names the fact that a manifest was seen signed as a revision of the policies asks, while Harbor listed these
// signatures.
func verifiedKey(revision string, l artifact.Listed) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("verified " + revision + " " + l.Ref.String()))
	for _, digest := range slices.Sorted(slices.Values(l.Signatures)) {
		h.Write([]byte("\n" + digest))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// askedKey names the fact that a sweep asked for a manifest.
func askedKey(ref artifact.Ref) [sha256.Size]byte {
	return sha256.Sum256([]byte("asked " + ref.String()))
}
