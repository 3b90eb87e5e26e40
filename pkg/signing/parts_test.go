package signing_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// testKeys makes a key once for all tests: decrypting one is slow by design.
var testKeys = sync.OnceValues(func() (*keys.Key, error) {
	dir, err := os.MkdirTemp("", "signing")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("correct horse"), 0o600); err != nil {
		return nil, err
	}
	prefix := filepath.Join(dir, "k")
	if _, err := keys.Generate(prefix, password); err != nil {
		return nil, err
	}
	return keys.LoadFile(prefix+".key", password)
})

// parts are what a signer is made of beside the world.
type parts struct {
	ring     *sigstore.Keyring
	keys     signing.Keys // the ring, or something around it
	legacy   *sigstore.Legacy
	bundles  *sigstore.Bundles
	verifier *signing.Verifier
	merger   *signing.Merger
	now      func() time.Time // nil for the clock of this machine
}

func newParts(t *testing.T, w *world) parts {
	t.Helper()
	key, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	ring := newTrustedRing(t, w.trust(), sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: key})
	return partsOf(t, w, w, ring, ring)
}

// newRing gives one that trusts no log.
func newRing(t *testing.T, named ...sigstore.NamedKey) *sigstore.Keyring {
	t.Helper()
	return newTrustedRing(t, sigstore.Trust{}, named...)
}

func newTrustedRing(t *testing.T, trust sigstore.Trust, named ...sigstore.NamedKey) *sigstore.Keyring {
	t.Helper()
	ring, err := sigstore.NewKeyring(named, trust)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// partsOf gives parts that remember nothing yet. The registry is the world, or something around it.
func partsOf(t *testing.T, w *world, registry signing.Registry, ring *sigstore.Keyring, k signing.Keys) parts {
	t.Helper()
	p := parts{ring: ring, keys: k, legacy: sigstore.NewLegacy(ring), bundles: sigstore.NewBundles(ring)}
	cfg := signing.VerifierConfig{
		Registry: registry, Keys: k, Legacy: p.legacy, Bundles: p.bundles, Harbor: w, PublicHost: host, Timestamps: w.stamps != nil,
	}
	if w.logs != nil {
		cfg.Logs = w.logs
	}
	var err error
	if p.verifier, err = signing.NewVerifier(cfg); err != nil {
		t.Fatal(err)
	}
	if p.merger, err = signing.NewMerger(registry, p.legacy); err != nil {
		t.Fatal(err)
	}
	return p
}

// newService is a signer that has just been started.
func newService(t *testing.T, w *world, change ...func(*signing.Config)) (*signing.Service, *signing.Verifier) {
	t.Helper()
	return newParts(t, w).service(t, w, change...)
}

// service is a signer of these parts.
func (p parts) service(t *testing.T, w *world, change ...func(*signing.Config)) (*signing.Service, *signing.Verifier) {
	t.Helper()
	cfg := signing.Config{
		Registry: w, Keys: p.keys, Legacy: p.legacy, Bundles: p.bundles, Verifier: p.verifier, Merger: p.merger, Harbor: w, Queue: w, Policies: w, Logger: zerolog.Nop(), Now: p.now,
	}
	if w.logs != nil {
		cfg.Logs = w.logs
	}
	if w.stamps != nil {
		cfg.Timestamps = w.stamps
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := signing.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, p.verifier
}

// meanwhile lets a twin handle the same request before an operation of this name, as if the queue had given it to both.
func (w *world) meanwhile(t *testing.T, operation string, twin *signing.Service, ref artifact.Ref) {
	t.Helper()
	request := w.waiting[ref]
	w.before = func(name string) {
		if name == operation {
			w.before = nil
			twin.Handle(t.Context(), &delivery{w: w, request: request, attempts: 2, firstSeen: time.Now()})
			w.waiting[ref] = request
		}
	}
}
