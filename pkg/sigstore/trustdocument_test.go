package sigstore_test

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

func (d *deployment) sources(tb testing.TB) sigstore.TrustSources {
	tb.Helper()
	return sigstore.TrustSources{
		PublicHost:  host,
		Keys:        []sigstore.TrustKey{{Name: "p256", State: sigstore.Active, PublicKey: string(loadedKeys()["p256"].PublicPEM())}},
		Identities:  []sigstore.TrustIdentity{d.identity.source()},
		Logs:        []sigstore.TrustLog{d.one.source(tb), d.two.source(tb)},
		Authorities: []sigstore.TrustAuthority{d.authority.source()},
	}
}

func (d *deployment) document(tb testing.TB) sigstore.TrustDocument {
	tb.Helper()
	document, err := sigstore.NewTrustDocument(d.sources(tb))
	if err != nil {
		tb.Fatalf("NewTrustDocument: %v", err)
	}
	return document
}

// material is a trusted root with a key beside it.
type material struct {
	root.TrustedMaterial

	key crypto.PublicKey
}

func (m material) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	v, err := signature.LoadVerifier(m.key, crypto.SHA256)
	return root.NewExpiringKey(v, time.Time{}, time.Time{}), err
}

// goVerifies checks a bundle with sigstore-go and the trusted root: with an entry and a timestamp, if they are asked for.
func goVerifies(tb testing.TB, trusted root.TrustedMaterial, raw []byte, digest string, entry, stamped, keyless bool) error {
	tb.Helper()
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return err
	}
	var options []verify.VerifierOption
	if entry {
		options = append(options, verify.WithTransparencyLog(1))
	}
	switch {
	case stamped:
		options = append(options, verify.WithSignedTimestamps(1))
	case keyless:
		options = append(options, verify.WithIntegratedTimestamps(1))
	default:
		options = append(options, verify.WithNoObserverTimestamps())
	}
	by := verify.WithKey()
	if keyless {
		id, err := verify.NewShortCertificateIdentity(oidcIssuer, "", oidcSubject, "")
		if err != nil {
			tb.Fatal(err)
		}
		by = verify.WithCertificateIdentity(id)
	}
	v, err := verify.NewVerifier(trusted, options...)
	if err != nil {
		tb.Fatal(err)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		tb.Fatal(err)
	}
	_, err = v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", sum), by))
	return err
}

func (d *deployment) material(tb testing.TB) root.TrustedMaterial {
	tb.Helper()
	return material{TrustedMaterial: parseRoot(tb, d.document(tb).TrustedRoot), key: rawKeys()["p256"].Public()}
}

func parseRoot(tb testing.TB, raw []byte) root.TrustedMaterial {
	tb.Helper()
	trusted, err := root.NewTrustedRootFromJSON(raw)
	if err != nil {
		tb.Fatalf("sigstore-go refuses our trusted root: %v", err)
	}
	return trusted
}

// TestSigstoreGoAcceptsOurMaterial: with nothing but our trusted root it verifies what we write, and what another log or
// authority made it does not.
func TestSigstoreGoAcceptsOurMaterial(t *testing.T) {
	t.Parallel()
	d, stranger := newDeployment(t), newDeployment(t)
	trusted, strange := d.material(t), stranger.material(t)
	for _, tt := range []struct {
		name, key, log string
		stamped        bool
	}{
		{"logged in Rekor v1", "p256", "one", false},
		{"logged in Rekor v2", "p256", "two", false},
		{"timestamped", "p256", "", true},
		{"logged in Rekor v1 and timestamped", "p256", "one", true},
		{"logged in Rekor v2 and timestamped", "p256", "two", true},
		{"keyless, logged in Rekor v1", "keyless", "one", false},
		{"keyless, timestamped", "keyless", "", true},
		{"keyless, logged in Rekor v1 and timestamped", "keyless", "one", true},
		{"keyless, logged in Rekor v2 and timestamped", "keyless", "two", true},
	} {
		raw := d.attach(t, d.sign(t, tt.key, artifact.Bundle, tt.log, tt.stamped)).pieces[0].Raw
		keyless := tt.key == "keyless"
		if err := goVerifies(t, trusted, raw, digest, tt.log != "", tt.stamped, keyless); err != nil {
			t.Errorf("%s: sigstore-go refuses our bundle: %v\n%s", tt.name, err, raw)
		}
		if goVerifies(t, strange, raw, digest, tt.log != "", tt.stamped, keyless) == nil {
			t.Errorf("%s: sigstore-go accepts it with another deployment's trusted root", tt.name)
		}
		if tt.log == "" && goVerifies(t, trusted, raw, digest, true, tt.stamped, keyless) == nil {
			t.Errorf("%s: sigstore-go finds an entry that is not there", tt.name)
		}
	}
}

func TestTrustDocumentIsDeterministic(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	from := d.sources(t)
	// Two identities of one Fulcio need its certificates once.
	again := d.identity.source()
	again.Name, again.Subject = "other", "somebody@example.com"
	from.Identities = append(from.Identities, again)
	var first []byte
	for range 20 {
		document, err := sigstore.NewTrustDocument(from)
		if err != nil {
			t.Fatal(err)
		}
		raw := mustJSON(t, document)
		if first != nil && !bytes.Equal(raw, first) {
			t.Fatalf("the document is\n%s, then\n%s", first, raw)
		}
		first = raw
		files, err := document.Files()
		if err != nil || len(files) != 2 || files[0].Name != sigstore.TrustedRootFile || files[1].Name != "p256.pub" {
			t.Fatalf("Files() = %d, %v, want the trusted root and the key", len(files), err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, files[0].Content); err != nil || !bytes.Equal(compact.Bytes(), document.TrustedRoot) {
			t.Errorf("the file is\n%s, want\n%s", files[0].Content, document.TrustedRoot)
		}
	}
	if got := bytes.Count(first, []byte("fulcio.example.com")); got != 3 {
		t.Errorf("Fulcio's address is there %d times, want one for each identity and one in the trusted root", got)
	}
}

// What there is none of is an empty list, for readers in other languages.
func TestTrustDocumentOfNothing(t *testing.T) {
	t.Parallel()
	document, err := sigstore.NewTrustDocument(sigstore.TrustSources{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"trusted_root":{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"},"keys":[],"identities":[],"logs":[],"authorities":[],"commands":[]}`
	if got := string(mustJSON(t, document)); got != want {
		t.Errorf("the document is\n%s, want\n%s", got, want)
	}
	parseRoot(t, document.TrustedRoot)
}

func TestTrustDocumentLeavesOutWhatIsRevoked(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	from := d.sources(t)
	from.Keys = append(from.Keys, sigstore.TrustKey{Name: "old", State: sigstore.Revoked, PublicKey: string(loadedKeys()["second"].PublicPEM())})
	from.Identities[0].State = sigstore.Revoked
	document, err := sigstore.NewTrustDocument(from)
	if err != nil {
		t.Fatal(err)
	}
	raw := string(mustJSON(t, document))
	if len(document.Keys) != 1 || len(document.Identities) != 0 || strings.Contains(raw, "old") || strings.Contains(raw, "fulcio") {
		t.Errorf("the document has what is revoked:\n%s", raw)
	}
}

func TestTrustDocumentRefuses(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for name, tt := range map[string]struct {
		change func(*sigstore.TrustSources)
		want   string
	}{
		"a log without a key":         {func(s *sigstore.TrustSources) { s.Logs[0].PublicKey = "" }, `log "one"`},
		"a log without an address":    {func(s *sigstore.TrustSources) { s.Logs[1].URL = "log" }, `log "two"`},
		"an origin that is no host":   {func(s *sigstore.TrustSources) { s.Logs[1].Origin = "log.example.com/2026" }, "verifiers take none but"},
		"an authority without chain":  {func(s *sigstore.TrustSources) { s.Authorities[0].Chain = "" }, `timestamp authority "authority"`},
		"an authority with a key":     {func(s *sigstore.TrustSources) { s.Authorities[0].Chain = s.Logs[0].PublicKey }, `timestamp authority "authority"`},
		"an identity without a root":  {func(s *sigstore.TrustSources) { s.Identities[0].Roots = chainPEM(d.identity.intermediate) }, `identity "keyless"`},
		"a key that is none":          {func(s *sigstore.TrustSources) { s.Keys[0].PublicKey = "hello" }, `key "p256"`},
		"a key's name that is a path": {func(s *sigstore.TrustSources) { s.Keys[0].Name = "../p256" }, "none of a file"},
	} {
		from := d.sources(t)
		tt.change(&from)
		if _, err := sigstore.NewTrustDocument(from); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: NewTrustDocument() = %v, want an error with %q", name, err, tt.want)
		}
	}
	from := d.sources(t)
	from.Logs[0].PublicKey, from.Authorities[0].Chain = "", ""
	if _, err := sigstore.NewTrustDocument(from); err == nil || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "authority") {
		t.Errorf("NewTrustDocument() = %v, want all problems at once", err)
	}
}

// An origin of its own is what verifiers must find as the host.
func TestTrustedRootHasTheOrigin(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	l := d.two.source(t)
	l.URL, l.Origin = "http://10.0.0.7:3003", logHost
	raw := d.attach(t, d.sign(t, "p256", artifact.Bundle, "two", false)).pieces[0].Raw
	for origin, want := range map[string]bool{logHost: true, "": false, "other.example.com": false} {
		l.Origin = origin
		document, err := sigstore.NewTrustDocument(sigstore.TrustSources{Logs: []sigstore.TrustLog{l}})
		if err != nil {
			t.Fatal(err)
		}
		err = goVerifies(t, material{TrustedMaterial: parseRoot(t, document.TrustedRoot), key: rawKeys()["p256"].Public()}, raw, digest, true, false, false)
		if (err == nil) != want {
			t.Errorf("origin %q: sigstore-go accepts: %v, want %v: %v", origin, err == nil, want, err)
		}
	}
}

// Everything of a line that comes from outside is one word to a shell.
func TestCommandsAreQuoted(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	from := d.sources(t)
	from.Identities[0].Subject = `o'neill; rm -rf "$HOME"`
	from.Formats = []artifact.Format{artifact.Bundle}
	document, err := sigstore.NewTrustDocument(from)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, c := range document.Commands {
		if c.Format != artifact.Bundle || c.Title == "" {
			t.Errorf("command %+v, want a bundle's with a title", c)
		}
		if c.Key == "keyless" {
			lines++
			if want := `--certificate-identity 'o'\''neill; rm -rf "$HOME"' `; !strings.Contains(c.Line, want) {
				t.Errorf("line %s, want it with %s", c.Line, want)
			}
		}
	}
	if lines != 4 { // Rekor v1, timestamped, both, Rekor v2 and timestamped
		t.Errorf("%d lines for the identity, want 4", lines)
	}
}

// TestCommands pins what a deployment with one of each is told.
func TestCommands(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	const (
		by    = "cosign verify --key p256.pub --trusted-root trusted_root.json "
		as    = "cosign verify --certificate-identity " + oidcSubject + " --certificate-oidc-issuer " + oidcIssuer + " --insecure-ignore-sct --trusted-root trusted_root.json "
		image = " " + host + "/PROJECT/REPOSITORY:TAG"
		both  = "v2.6.5 v3.1.3"
	)
	want := []string{
		both + "|p256, legacy, no log and no timestamp asked for|" + by + "--insecure-ignore-tlog" + image,
		"v3.1.3|p256, legacy, no log and no timestamp asked for, beside bundles of others|" + by + "--insecure-ignore-tlog --new-bundle-format=false" + image,
		both + "|p256, legacy, logged in one|" + by + "--offline" + image,
		"v3.1.3|p256, legacy, logged in one, beside bundles of others|" + by + "--offline --new-bundle-format=false" + image,
		both + "|p256, bundle, no log and no timestamp asked for|" + by + "--insecure-ignore-tlog" + image,
		both + "|p256, bundle, timestamped by authority|" + by + "--insecure-ignore-tlog --use-signed-timestamps" + image,
		both + "|p256, bundle, logged in one|" + by + "--offline" + image,
		both + "|p256, bundle, logged in one and timestamped by authority|" + by + "--offline --use-signed-timestamps" + image,
		both + "|p256, bundle, logged in two|" + by + "--offline" + image,
		both + "|p256, bundle, logged in two and timestamped by authority|" + by + "--offline --use-signed-timestamps" + image,
		both + "|keyless, legacy, timestamped by authority|" + as + "--insecure-ignore-tlog --use-signed-timestamps" + image,
		"v3.1.3|keyless, legacy, timestamped by authority, beside bundles of others|" + as + "--insecure-ignore-tlog --use-signed-timestamps --new-bundle-format=false" + image,
		both + "|keyless, legacy, logged in one|" + as + "--offline" + image,
		"v3.1.3|keyless, legacy, logged in one, beside bundles of others|" + as + "--offline --new-bundle-format=false" + image,
		both + "|keyless, bundle, timestamped by authority|" + as + "--insecure-ignore-tlog --use-signed-timestamps" + image,
		both + "|keyless, bundle, logged in one|" + as + "--offline" + image,
		both + "|keyless, bundle, logged in one and timestamped by authority|" + as + "--offline --use-signed-timestamps" + image,
		both + "|keyless, bundle, logged in two and timestamped by authority|" + as + "--offline --use-signed-timestamps" + image,
	}
	commands := d.document(t).Commands
	if len(commands) != len(want) {
		t.Errorf("%d commands, want %d", len(commands), len(want))
	}
	for i, c := range commands {
		if got := strings.Join(c.Programs, " ") + "|" + c.Title + "|" + c.Line; i >= len(want) || got != want[i] {
			t.Errorf("command %d is\n%s, want\n%s", i, got, want[min(i, len(want)-1)])
		}
	}
}

// What no log takes has no line: a P-384 key's entry would be one that nobody could verify.
func TestCommandsForOddKeys(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for name, want := range map[string][]string{
		"p384":    {"legacy ", "legacy ", "bundle ", "bundle one"},
		"ed25519": {"legacy ", "legacy ", "bundle ", "bundle one"},
		"rsa":     {"legacy ", "legacy ", "legacy one", "legacy one", "bundle ", "bundle one", "bundle two"},
	} {
		from := d.sources(t)
		from.Identities, from.Authorities = nil, nil
		from.Keys = []sigstore.TrustKey{{Name: name, State: sigstore.VerifyOnly, PublicKey: string(loadedKeys()[name].PublicPEM())}}
		document, err := sigstore.NewTrustDocument(from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range document.Commands {
			got = append(got, string(c.Format)+" "+c.Log)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: commands for %q, want %q", name, got, want)
		}
	}
}
