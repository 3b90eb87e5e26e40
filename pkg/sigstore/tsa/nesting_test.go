package tsa_test

import (
	"bytes"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// sequence writes a sequence around its contents.
func sequence(tb testing.TB, contents ...[]byte) []byte {
	tb.Helper()
	raw, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(contents...)})
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// granted is a response with something in place of a timestamp.
func granted(tb testing.TB, token []byte) []byte {
	tb.Helper()
	return sequence(tb, []byte{0x30, 3, 2, 1, 0}, token)
}

// tangled are tokens whose parts reach beyond those around them, so that whoever follows them reads what is behind once more for each,
// and that again.
func tangled(tb testing.TB) map[string][]byte {
	tb.Helper()
	end := bytes.Repeat([]byte{5, 0}, 8)
	deep := []byte{5, 0}
	for len(deep) < 15_000 {
		deep = sequence(tb, deep)
	}
	repeat := func(part ...byte) []byte { return sequence(tb, bytes.Repeat(part, 30), end) }
	return map[string][]byte{
		"definite":      repeat(0x30, 6, 0x30, 2),
		"long form":     repeat(0x30, 0x81, 8, 0x30, 0x81, 3),
		"tagged":        repeat(0xa0, 6, 0xa1, 2),
		"without end":   repeat(0x30, 0x80),
		"empty at once": slices.Concat([]byte{0x30, 8}, bytes.Repeat([]byte{0x30, 0x80, 0, 0}, 2)),
		"deep":          deep,
	}
}

// TestTangledTimestamps: a hundred bytes that anybody may put beside a copy of a signature must not keep a signer busy for ever.
func TestTangledTimestamps(t *testing.T) {
	s := &server{chain: newChain(t)}
	a := newAuthority(t, configOf(s))
	for name, token := range tangled(t) {
		raw := granted(t, token)
		started := time.Now()
		_, err := a.Verify(raw, message)
		if err == nil || fault.Of(err).Reason != fault.ProofInvalid {
			t.Errorf("%s: Verify gives %v, want %s", name, err, fault.ProofInvalid)
		}
		if took := time.Since(started); took > time.Second {
			t.Errorf("%s: it took %s to read %d bytes", name, took, len(raw))
		}
		s.answer = func([]byte) []byte { return raw }
		if _, _, err := a.Stamp(t.Context(), message); err == nil {
			t.Errorf("%s: it counts as a timestamp", name)
		}
	}
}

// TestATimestampWithIndefiniteLengths verifies: there are authorities that write such ones.
func TestATimestampWithIndefiniteLengths(t *testing.T) {
	s := &server{chain: newChain(t)}
	a := newAuthority(t, configOf(s))
	s.answer = func(response []byte) []byte {
		var parts struct {
			Status asn1.RawValue
			Token  struct {
				Type    asn1.RawValue
				Content asn1.RawValue
			}
		}
		if _, err := asn1.Unmarshal(response, &parts); err != nil {
			t.Fatal(err)
		}
		content := slices.Concat([]byte{0xa0, 0x80}, parts.Token.Content.Bytes, []byte{0, 0})
		return granted(t, sequence(t, parts.Token.Type.FullBytes, content))
	}
	response, at, err := a.Stamp(t.Context(), message)
	if err != nil || !at.Equal(start) {
		t.Fatalf("Stamp gives %s, %v, want %s", at, err, start)
	}
	if !bytes.Contains(response, []byte{0xa0, 0x80}) {
		t.Fatal("the response has no indefinite length")
	}
}
