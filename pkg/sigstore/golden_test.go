package sigstore_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

// update writes the golden file anew. TestGoldenByThePrograms says then whether the programs accept it.
var update = flag.Bool("update", false, "write testdata anew")

// golden is what a deployment has written, and what verifies it.
type golden struct {
	Sources sigstore.TrustSources `json:"sources"`
	Image   artifact.Descriptor   `json:"image"`
	Written []goldenSignature     `json:"written"`
}

type goldenSignature struct {
	// Signature is what was written with the key of that name, Manifest and Blob are how.
	Key       string             `json:"key"`
	Signature artifact.Signature `json:"signature"`
	Manifest  string             `json:"manifest"`
	Blob      string             `json:"blob"`
}

const (
	goldenFile  = "testdata/material.json"
	goldenImage = "golden"
)

func readGolden(tb testing.TB) golden {
	tb.Helper()
	raw, err := os.ReadFile(goldenFile)
	if err != nil {
		tb.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		tb.Fatal(err)
	}
	return g
}

func writeGolden(t *testing.T) {
	t.Helper()
	g := golden{Image: newRegistry(t).putImage("", goldenImage)}
	// In the year 2000, so that everything has expired.
	synctest.Test(t, func(t *testing.T) {
		d := newDeployment(t)
		g.Sources = d.sources(t)
		c := artifact.Claim{Identity: identity, Digest: g.Image.Digest}
		for _, key := range []string{"p256", "keyless"} {
			for _, kind := range kinds() {
				s := d.ring.Proven(d.signClaim(t, key, kind.format, kind.log, true, c))
				m, blob := composeIn(t, d.legacy, d.bundles, s, g.Image)
				g.Written = append(g.Written, goldenSignature{Key: key, Signature: s, Manifest: string(m.Raw), Blob: string(blob.Raw)})
			}
		}
	})
	raw, err := json.MarshalIndent(g, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, append(raw, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// composeIn gives the manifest of a signature and its first blob.
func composeIn(tb testing.TB, l *sigstore.Legacy, b *sigstore.Bundles, s artifact.Signature, image artifact.Descriptor) (artifact.Manifest, artifact.Blob) {
	tb.Helper()
	var m artifact.Manifest
	var pieces []artifact.Blob
	var err error
	if s.Format == artifact.Legacy {
		m, pieces, err = l.Append(nil, s)
	} else {
		m, pieces, err = b.Compose(s, image)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return m, pieces[0]
}

// formats are those of somebody who has nothing but the sources.
func (g golden) formats(tb testing.TB) (*sigstore.Legacy, *sigstore.Bundles) {
	tb.Helper()
	var trust sigstore.Trust
	for _, l := range g.Sources.Logs {
		v, err := tlog.New(tlog.Config{Name: l.Name, Type: l.Type, URL: l.URL, PublicKey: []byte(l.PublicKey), Transport: nobody{}})
		if err != nil {
			tb.Fatal(err)
		}
		trust.Logs = append(trust.Logs, v)
	}
	for _, a := range g.Sources.Authorities {
		v, err := tsa.New(tsa.Config{Name: a.Name, URL: a.URL, Chain: []byte(a.Chain), Transport: nobody{}})
		if err != nil {
			tb.Fatal(err)
		}
		trust.Timestamps = append(trust.Timestamps, v)
	}
	var named []sigstore.NamedKey
	for _, k := range g.Sources.Keys {
		public, err := keys.ParsePublicKey([]byte(k.PublicKey))
		if err != nil {
			tb.Fatal(err)
		}
		named = append(named, sigstore.NamedKey{Name: k.Name, State: sigstore.VerifyOnly, Public: public})
	}
	for _, i := range g.Sources.Identities {
		v, err := fulcio.New(fulcio.Config{
			Name: i.Name, URL: i.URL, Roots: []byte(i.Roots), TokenFile: "none", Issuer: i.Issuer, Subject: i.Subject, Transport: nobody{},
		})
		if err != nil {
			tb.Fatal(err)
		}
		named = append(named, sigstore.NamedKey{Name: i.Name, State: sigstore.VerifyOnly, Identity: v})
	}
	ring, err := sigstore.NewKeyring(named, trust)
	if err != nil {
		tb.Fatal(err)
	}
	return sigstore.NewLegacy(ring), sigstore.NewBundles(ring)
}

// TestGolden: what both programs have accepted is written in the same way by every version, and counts for ever: all
// certificates in it have expired.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	g := readGolden(t)
	l, b := g.formats(t)
	for _, w := range g.Written {
		name := w.Key + ", " + string(w.Signature.Format) + ", " + w.Signature.Entry.Log
		m, blob := composeIn(t, l, b, w.Signature, g.Image)
		if string(m.Raw) != w.Manifest || string(blob.Raw) != w.Blob {
			t.Errorf("%s: it is written as\n%s\n%s, want\n%s\n%s", name, m.Raw, blob.Raw, w.Manifest, w.Blob)
		}
		c := artifact.Claim{Identity: identity, Digest: g.Image.Digest}
		var got []artifact.Signature
		var err error
		if w.Signature.Format == artifact.Legacy {
			got, err = l.Verify(t.Context(), m, c, anyKey, noFetch(t))
		} else {
			got, err = b.Verify(t.Context(), m, c, fetchPieces([]artifact.Blob{blob}))
		}
		if err != nil || len(got) != 1 || !got[0].Logged() || !got[0].TimestampedAt.Equal(w.Signature.TimestampedAt) || got[0].TimestampedAt.Year() != 1999 || !bytes.Equal(got[0].Bytes, w.Signature.Bytes) {
			t.Errorf("%s: Verify() = %+v, %v, want the logged and timestamped signature", name, got, err)
		}
	}
	if len(g.Written) != 6 {
		t.Errorf("%d signatures, want 6", len(g.Written))
	}
}

// TestGoldenByThePrograms: they accept the golden file with the command lines that its sources give.
func TestGoldenByThePrograms(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	document, err := sigstore.NewTrustDocument(g.Sources)
	if err != nil {
		t.Fatal(err)
	}
	files, err := document.Files()
	if err != nil {
		t.Fatal(err)
	}
	l, _ := g.formats(t)
	tried := 0
	for version, p := range programs(t) {
		if err := os.Mkdir(p.file("bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(p.path, filepath.Join(p.dir, "bin", "cosign")); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			write(t, p.file(f.Name), f.Content)
		}
		for _, w := range g.Written {
			r := newRegistry(t)
			subject := r.putImage("", goldenImage)
			m := artifact.Manifest{MediaType: manifestType, Raw: []byte(w.Manifest), Digest: artifact.DigestOf([]byte(w.Manifest))}
			reference := m.Digest
			if w.Signature.Format == artifact.Legacy {
				reference = l.Tag(subject.Digest)
			}
			r.putAll(reference, m, []artifact.Blob{{Digest: artifact.DigestOf([]byte(w.Blob)), Raw: []byte(w.Blob)}, {Digest: artifact.DigestOf([]byte("{}")), Raw: []byte("{}")}})
			for _, c := range document.Commands {
				if c.Key != w.Key || c.Format != w.Signature.Format || c.Log != w.Signature.Entry.Log || c.Programs[0] != "v2.6.5" {
					continue
				}
				tried++
				if err := p.line(t, p.dir, c.Line, r.host+"/demo/app@"+subject.Digest); err != nil {
					t.Errorf("%s: %s: cosign refuses it: %v", version, c.Title, err)
				}
			}
		}
	}
	if tried < 12 {
		t.Errorf("%d lines were tried, want one for each signature and version at least", tried)
	}
}
