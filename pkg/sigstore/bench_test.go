package sigstore_test

import (
	"fmt"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// What the engine may spend on a signature is 1 ms; this package's part is signing, appending and verifying.
func BenchmarkLegacy(b *testing.B) {
	for _, name := range []string{"p256", "ed25519", "rsa"} {
		r, l := newRing(b, active(name)), newLegacy(b, active(name))
		c := claim()
		c.Annotations = map[string]string{"team": "a"}
		s := sign(b, name, artifact.Legacy, c)
		m, _ := attach(b, name, nil, c)
		b.Run("Sign/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Sign(b.Context(), name, artifact.Legacy, c); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("Verify/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := l.Verify(b.Context(), m, c, anyKey, noFetch(b)); err != nil || len(got) != 1 {
					b.Fatal(len(got), err)
				}
			}
		})
		b.Run("Valid/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !r.Valid(s, c) {
					b.Fatal("not valid")
				}
			}
		})
	}
	l := newLegacy(b, active("p256"))
	s := sign(b, "p256", artifact.Legacy, claim())
	for _, n := range []int{0, 1, 999} {
		existing := manifestOf(b, manyLayers(n)...)
		b.Run(fmt.Sprintf("Append/to %d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := l.Append(&existing, s); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Verify/among %d others", n), func(b *testing.B) {
			m, _, err := l.Append(&existing, s)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if got, err := l.Verify(b.Context(), m, claim(), anyKey, noFetch(b)); err != nil || len(got) != 1 {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}

func BenchmarkBundle(b *testing.B) {
	r, bundles := newRing(b, active("p256")), newBundles(b, active("p256"))
	s := sign(b, "p256", artifact.Bundle, claim())
	m, pieces := compose(b, s)
	b.Run("Sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Sign(b.Context(), "p256", artifact.Bundle, claim()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Compose", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			compose(b, s)
		}
	})
	b.Run("Verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got, err := bundles.Verify(b.Context(), m, claim(), fetchPieces(pieces)); err != nil || len(got) != 1 {
				b.Fatal(len(got), err)
			}
		}
	})
}

// What is proven costs its signatures: one of a log's promise, one of its checkpoint, those of a timestamp's certificates.
func BenchmarkMaterial(b *testing.B) {
	d := newDeployment(b)
	for _, bench := range []struct {
		name, key string
		format    artifact.Format
		log       string
		stamped   bool
	}{
		{"legacy/alone", "p256", artifact.Legacy, "", false},
		{"legacy/logged", "p256", artifact.Legacy, "one", false},
		{"legacy/logged and stamped", "p256", artifact.Legacy, "one", true},
		{"legacy/keyless", "keyless", artifact.Legacy, "one", false},
		{"bundle/alone", "p256", artifact.Bundle, "", false},
		{"bundle/logged in v1", "p256", artifact.Bundle, "one", false},
		{"bundle/logged in v2", "p256", artifact.Bundle, "two", false},
		{"bundle/stamped", "p256", artifact.Bundle, "", true},
		{"bundle/keyless", "keyless", artifact.Bundle, "one", false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			a := d.attach(b, d.sign(b, bench.key, bench.format, bench.log, bench.stamped))
			b.ReportAllocs()
			for b.Loop() {
				if got := d.verify(b, a); len(got) != 1 || got[0].Logged() != (bench.log != "") {
					b.Fatalf("%+v", got)
				}
			}
		})
	}
}
