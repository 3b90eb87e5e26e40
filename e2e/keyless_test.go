//go:build e2e

package e2e_test

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// keyless is a system that signs with certificates of a real Fulcio where a policy names the key "workload".
type keyless struct {
	*managed
	proofs *proofs
	fulcio *harness.Fulcio
	// front causes trouble.
	front *harness.Front
	// judge asks for a time that is proven, and trusts the log and the authority.
	judge *checker.Checker
}

func newKeyless(t *testing.T, projects int) *keyless {
	t.Helper()
	k := &keyless{proofs: newProofs(t, "rekor-v1")}
	dir := t.TempDir()
	var err error
	if k.fulcio, err = harness.StartFulcio(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.fulcio.Close(); err != nil {
			t.Error(err)
		}
	})
	// The first token has expired.
	if err := k.fulcio.WriteToken(-time.Minute); err != nil {
		t.Fatal(err)
	}
	k.front = newFront(t, filepath.Join(dir, "front"), k.fulcio.URL, fulcioName)
	k.proofs.dns.Set(fulcioName, netip.MustParseAddr("127.0.0.1"))
	k.managed = newManaged(t, env.harbor, someProjects(projects), func(o *harness.Options) {
		k.proofs.asked("off", "off")(o)
		o.Also = append(o.Also, k.front.URL(fulcioName)[len("https://"):])
		edit(o, func(c harness.Config) {
			keys, _ := c["keys"].([]harness.Config)
			harness.Set(c, append(keys, harness.Config{"name": "workload", "fulcio": harness.Config{
				"url": k.front.URL(fulcioName), "ca_file": k.front.CAFile, "roots_file": k.fulcio.Chain, "token_file": k.fulcio.TokenFile,
				"issuer": k.fulcio.Issuer, "subject": k.fulcio.Subject,
			}}), "keys")
			harness.Set(c, keys[0]["name"], "sign", "key")
		})
	})
	k.judge = k.judgeOf(t, checker.Asked{}, checker.Formats()...)
	k.checker = k.judge
	return k
}

// judgeOf judges by the identity.
func (k *keyless) judgeOf(t *testing.T, asked checker.Asked, formats ...checker.Format) *checker.Checker {
	t.Helper()
	c, err := k.CheckerOf(k.Keys.Public, formats...)
	if err == nil {
		c, err = c.Trusting(k.proofs.trust(t), asked)
	}
	if err == nil {
		c, err = c.By(checker.Identity{Issuer: k.fulcio.Issuer, Subject: k.fulcio.Subject, Roots: contentOf(t, k.fulcio.Chain)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// certificates gives those beside an image's legacy signatures, in PEM.
func (k *keyless) certificates(t *testing.T, p harness.Pushed) []string {
	t.Helper()
	layers, err := k.legacyLayers(t.Context(), t, p)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range layers {
		if certificate := l.Annotations["dev.sigstore.cosign/certificate"]; certificate != "" {
			all = append(all, certificate)
		}
	}
	return all
}

// TestKeyless signs with certificates of a real Fulcio: what is there afterwards is accepted by identity and issuer, and by no
// others. The token is read again when its file is replaced, and while Fulcio is away the certificate in use goes on.
func TestKeyless(t *testing.T) {
	t.Parallel()
	wishes := []struct {
		format         string
		log, timestamp bool
	}{
		{"bundle", false, true},
		{"legacy", true, false},
		{"both", true, true},
	}
	k := newKeyless(t, len(wishes)+1)
	k.refusesTimeless(t)
	policy := func(format string, log, timestamp bool) settings {
		s := settings{"backfill": "all", "key": "workload", "format": format, "log": "rekor", "transparency": "off", "timestamp": "off"}
		if log {
			s["transparency"] = "required"
		}
		if timestamp {
			s["timestamp"] = "required"
		}
		return s
	}
	for i, one := range wishes {
		k.enable(t, k.projects[i], policy(one.format, one.log, one.timestamp))
	}
	pushed := make([]harness.Pushed, len(wishes))
	for i := range wishes {
		pushed[i] = k.pushTagged(t, i, "v1")
	}
	k.awaitCount(t, 1, "harborseal_signing_failures_total", `outcome="failed"`)
	for _, p := range pushed {
		if row := k.audit(t.Context(), t, p); row.State == "signed" {
			t.Errorf("%s is signed with a token that has expired", p.Digest)
		}
	}
	if err := k.fulcio.WriteToken(time.Hour); err != nil {
		t.Fatal(err)
	}
	k.awaitSigned(t, pushed...)

	if err := k.front.Cause(t.Context(), harness.Trouble{Refuse: true}); err != nil {
		t.Fatal(err)
	}
	away := make([]harness.Pushed, len(wishes))
	for i := range wishes {
		away[i] = k.pushTagged(t, i, "away")
	}
	k.awaitSigned(t, away...)
	k.settled(t)
	was, is := k.certificates(t, pushed[2]), k.certificates(t, away[2])
	if len(was) != 1 || !slices.Equal(was, is) {
		t.Errorf("signed with the certificates %q, and while Fulcio is away with %q, want one, the same", was, is)
	}

	v := k.newVerifiers(t)
	for i, one := range wishes {
		formats := wish{format: one.format}.formats()
		judge := k.judgeOf(t, checker.Asked{Log: one.log, Timestamp: one.timestamp}, formats...)
		k.judgeWith(t, judge, pushed[i], away[i])
		for _, p := range []harness.Pushed{pushed[i], away[i]} {
			v.acceptKeyless(t, k.fulcio, p, formats, one.log, one.timestamp)
		}
	}
}

func (k *keyless) pushTagged(t *testing.T, project int, tag string) harness.Pushed {
	t.Helper()
	img, err := harness.NewImage(false)
	return k.pushTo(t, k.projects[project]+"/app", tag, img, err)
}

// refusesTimeless: nothing would prove that a certificate of minutes was alive when it signed.
func (k *keyless) refusesTimeless(t *testing.T) {
	t.Helper()
	project := k.projects[len(k.projects)-1]
	for _, asked := range []settings{
		{"transparency": "off", "timestamp": "off"}, {"transparency": "off", "timestamp": "optional"}, {"transparency": "deferred", "timestamp": "off", "log": "rekor"},
	} {
		asked["backfill"], asked["key"] = "all", "workload"
		answer := k.call(t, k.admin, http.MethodPut, "projects/"+project, asked, nil)
		if body := string(answer.Body); answer.Status != http.StatusUnprocessableEntity || !strings.Contains(body, "keyless") {
			t.Errorf("%v: the answer is %d %s, want 422 that says what a keyless signature needs", asked, answer.Status, body)
		}
	}
}

// acceptKeyless tries the lines for the identity.
func (v *verifiers) acceptKeyless(t *testing.T, f *harness.Fulcio, p harness.Pushed, formats []checker.Format, log, timestamp bool) {
	t.Helper()
	tried := 0
	for _, c := range v.document.Commands {
		if c.Key != "workload" || !slices.Contains(formats, checker.Format(c.Format)) || c.Log != "" && !log || c.Authority != "" && !timestamp {
			continue
		}
		for _, program := range c.Programs {
			tried++
			out, err := v.run(t, program, c.Line, p)
			if err != nil {
				t.Errorf("cosign %s, %s: %v\n%s", program, c.Title, err, out)
			}
			other := strings.Replace(c.Line, f.Subject, f.Subject+"2", 1)
			if out, err := v.run(t, program, other, p); err == nil || other == c.Line {
				t.Errorf("cosign %s, %s accepts another subject with\n%s\n%s", program, c.Title, other, out)
			}
		}
	}
	if tried == 0 {
		t.Errorf("signer trust-root has no line for %q", formats)
	}
	for _, format := range formats {
		args := []string{"-identity", f.Subject, "-issuer", f.Issuer, "-trusted-root", v.file("trusted_root.json"), "-format", string(format)}
		if log {
			args = append(args, "-log")
		}
		if timestamp {
			args = append(args, "-timestamp")
		}
		if err := v.sigstoreGo(t, append(args, v.image(p))...); err != nil {
			t.Errorf("format %s: %v", format, err)
		}
		args[3] += "/other"
		if v.sigstoreGo(t, append(args, v.image(p))...) == nil {
			t.Errorf("format %s: sigstore-go accepts another issuer", format)
		}
	}
}
