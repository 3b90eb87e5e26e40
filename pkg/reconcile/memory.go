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

// rememberedFor bounds how long a check is relied on: a listing does not tell when a tag moved between two signature
// manifests that it shows both.
const rememberedFor = time.Hour

// memory knows which manifests were seen to carry a valid signature, together with the signature manifests that Harbor
// listed for them then. Content under a digest never changes, so this holds as long as the listing shows the same.
type memory struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time // when it was verified; guarded by mu
}

func newMemory() *memory { return &memory{seen: make(map[[sha256.Size]byte]time.Time)} }

func (m *memory) verified(l artifact.Listed) bool {
	k := key(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	at, found := m.seen[k]
	return found && time.Since(at) < rememberedFor
}

func (m *memory) remember(l artifact.Listed) {
	k := key(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seen) >= maxRemembered {
		clear(m.seen) // it is verified anew; forgetting costs time, never truth
	}
	m.seen[k] = time.Now()
}

func key(l artifact.Listed) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(l.Ref.String()))
	for _, digest := range slices.Sorted(slices.Values(l.Signatures)) {
		h.Write([]byte("\n" + digest))
	}
	return [sha256.Size]byte(h.Sum(nil))
}
