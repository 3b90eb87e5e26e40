package tlog_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// A log that has the entry already, and lies about it in what it publishes.
func TestLiesInTiles(t *testing.T) {
	for _, tt := range []struct {
		name   string
		path   string // of what is changed: a part of it
		edit   func([]byte) []byte
		reason fault.Reason
	}{
		{"checkpoint changed", "/checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("\n301\n"), []byte("\n302\n"), 1) }, fault.ProofInvalid},
		{"checkpoint is HTML", "/checkpoint", func([]byte) []byte { return []byte("<html>") }, fault.ProofInvalid},
		{"checkpoint too long", "/checkpoint", func(b []byte) []byte { return append(b, bytes.Repeat([]byte("x"), 70<<10)...) }, fault.BadAnswer},
		{"hash changed", "/tile/0/001", func(b []byte) []byte { b[0] ^= 1; return b }, fault.ProofInvalid},
		{"hash of a level changed", "/tile/1/", func(b []byte) []byte { b[0] ^= 1; return b }, fault.ProofInvalid},
		{"tile cut off", "/tile/0/001", func(b []byte) []byte { return b[:40] }, fault.BadAnswer},
		{"tile too long", "/tile/0/001", func(b []byte) []byte { return append(b, make([]byte, 9000)...) }, fault.BadAnswer},
		{"entries cut off", "/tile/entries/", func(b []byte) []byte { return b[:len(b)-1] }, fault.BadAnswer},
		{"no entries", "/tile/entries/", func([]byte) []byte { return nil }, fault.BadAnswer},
		{"entry changed", "/tile/entries/", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, fault.ProofInvalid},
		{"entries endless", "/tile/entries/", func(b []byte) []byte { return append(b, make([]byte, 9<<20)...) }, fault.BadAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV2, 300)
			l := client(t, v)
			s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
			if _, err := l.Submit(t.Context(), s); err != nil {
				t.Fatalf("Submit: %v", err)
			}
			v.instead = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, tt.path) {
					return false
				}
				real := &recorded{header: make(http.Header)}
				v.serve(real, r)
				_, _ = w.Write(tt.edit(real.body.Bytes()))
				return true
			}
			_, err := l.Submit(t.Context(), s)
			wantFault(t, err, fault.Transient, tt.reason)
			v.instead = nil
			if _, err := l.Submit(t.Context(), s); err != nil {
				t.Errorf("Submit, without lies: %v", err)
			}
		})
	}
}

// recorded keeps an answer.
type recorded struct {
	header http.Header
	body   bytes.Buffer
	status int
}

func (r *recorded) Header() http.Header         { return r.header }
func (r *recorded) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorded) WriteHeader(status int)      { r.status = status }

// A partial tile that is gone is read from the full one, which takes its place.
func TestFullTileInPlaceOfPartial(t *testing.T) {
	v := newVirtualLog(t, policy.RekorV2, 10)
	s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
	submit(t, v, s)
	// The tree has grown by a tile, the checkpoint that is read is from before.
	for i := range 300 {
		v.add(fmt.Appendf(nil, "later %d", i))
	}
	v.instead = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/checkpoint"):
			v.publish(20)
			v.serve(w, r)
			v.publish(-1)
			return true
		case strings.Contains(r.URL.Path, ".p/"):
			w.WriteHeader(http.StatusNotFound)
			return true
		default:
			return false
		}
	}
	e, err := client(t, v).Submit(t.Context(), s)
	if err != nil {
		t.Fatalf("Submit: %v", err)
	}
	if e.Index != 10 || e.Proof.TreeSize != 20 {
		t.Errorf("got the entry %d in a tree of %d, want 10 in 20", e.Index, e.Proof.TreeSize)
	}
}
