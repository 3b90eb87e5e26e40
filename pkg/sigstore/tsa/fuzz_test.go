package tsa_test

import (
	"testing"

	"github.com/digitorus/timestamp"
)

// Whatever stands in a registry in place of a timestamp does no harm, and nothing but the authority's own verifies.
func FuzzVerify(f *testing.F) {
	s := &server{chain: newChain(f)}
	a := newAuthority(f, configOf(s))
	response, _, err := a.Stamp(f.Context(), message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(response)
	f.Add(refusal(f, timestamp.Rejection, timestamp.BadAlgorithm))
	f.Add([]byte{0x30, 0x80, 0x30, 3, 2, 1, 0, 0, 0})
	f.Add(response[:len(response)/2])
	for _, token := range tangled(f) {
		f.Add(granted(f, token))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		at, err := a.Verify(raw, message)
		if err == nil && !at.Equal(start) {
			t.Errorf("%x verifies, at %s", raw, at)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	s := &server{chain: newChain(f)}
	a := newAuthority(f, configOf(s))
	f.Add(refusal(f, timestamp.Rejection, timestamp.SystemFailure))
	f.Add([]byte{0x30, 5, 0x30, 3, 2, 1, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s.answer = func([]byte) []byte { return raw }
		if _, _, err := a.Stamp(t.Context(), message); err == nil {
			t.Errorf("%x counts as an answer to another request", raw)
		}
	})
}
