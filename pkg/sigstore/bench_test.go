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
