package tlog_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

// FuzzSubmit answers with whatever comes: it is either the entry that the log made, or an error.
func FuzzSubmit(f *testing.F) {
	type world struct {
		log    *virtualLog
		s      artifact.Signature
		answer []byte
	}
	worlds := make(map[policy.LogType]world)
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		w := world{log: newVirtualLog(f, kind, 3), s: sign(f, newSigner(f, "P-256"), artifact.Bundle, "a payload")}
		l := client(f, w.log, func(c *tlog.Config) {
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				resp, err := newTransport(f).RoundTrip(r)
				if err != nil {
					return nil, err
				}
				defer func() { _ = resp.Body.Close() }()
				w.answer, err = io.ReadAll(resp.Body)
				resp.Body = io.NopCloser(bytes.NewReader(w.answer))
				return resp, err
			})
		})
		if _, err := l.Submit(f.Context(), w.s); err != nil {
			f.Fatalf("Submit: %v", err)
		}
		worlds[kind] = w
		f.Add(kind == policy.RekorV2, uint16(201), w.answer, w.answer)
		f.Add(kind == policy.RekorV2, uint16(409), []byte(`{"code":6,"message":"with index 3"}`), w.answer)
	}
	f.Fuzz(func(t *testing.T, v2 bool, status uint16, first, second []byte) {
		kind := policy.RekorV1
		if v2 {
			kind = policy.RekorV2
		}
		w := worlds[kind]
		n := 0
		l := client(t, w.log, func(c *tlog.Config) {
			c.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
				n++
				header := http.Header{"Location": {"/api/v1/log/entries/" + strings.Repeat("ab", 32)}}
				if n == 1 {
					return &http.Response{StatusCode: int(status), Header: header, Body: io.NopCloser(bytes.NewReader(first))}, nil
				}
				return &http.Response{StatusCode: 200, Header: header, Body: io.NopCloser(bytes.NewReader(second))}, nil
			})
		})
		e, err := l.Submit(t.Context(), w.s)
		if err != nil {
			return
		}
		if err := l.Verify(e, w.s); err != nil || e.Proof == nil || e.Proof.Index != 3 {
			t.Errorf("got an entry that does not verify: %v", err)
		}
	})
}

// FuzzVerify holds entries of outside against a signature: none but the log's own is valid.
func FuzzVerify(f *testing.F) {
	v := newVirtualLog(f, policy.RekorV1, 3)
	l := client(f, v)
	s := sign(f, newSigner(f, "P-256"), artifact.Bundle, "a payload")
	good, err := l.Submit(f.Context(), s)
	if err != nil {
		f.Fatalf("Submit: %v", err)
	}
	f.Add(good.Body, good.Index, good.IntegratedAt, good.SET, good.Proof.Checkpoint, good.Proof.RootHash, good.Proof.Index, good.Proof.TreeSize)
	f.Fuzz(func(t *testing.T, body []byte, index, at int64, set []byte, checkpoint string, root []byte, place, size int64) {
		e := good
		e.Body, e.Index, e.IntegratedAt, e.SET = body, index, at, set
		e.Proof = &artifact.InclusionProof{Index: place, TreeSize: size, RootHash: root, Hashes: good.Proof.Hashes, Checkpoint: checkpoint}
		if l.Verify(e, s) == nil && (!bytes.Equal(body, good.Body) || index != good.Index || at != good.IntegratedAt || place != good.Proof.Index) {
			t.Errorf("an entry that the log did not make is valid: %+v", e)
		}
	})
}
