package sigstore_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// line runs a command line of the trust document for an image, by a shell, in a directory with the document's files.
func (p program) line(t *testing.T, dir, line, image string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	words := strings.Replace(line, host+"/PROJECT/REPOSITORY:TAG", image, 1) + " --allow-http-registry"
	cmd := exec.CommandContext(ctx, "sh", "-c", words) //nolint:gosec // the line under test
	cmd.Dir = dir
	// Nothing beyond loopback is reached: what asks the public sigstore fails.
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(p.dir, "bin")+":"+os.Getenv("PATH"), "HOME="+p.dir, "DOCKER_CONFIG="+p.dir,
		"HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", words, err, out)
	}
	return nil
}

// push attaches a signature of an image of its own, and a bundle of somebody else if that is asked for.
func (d *deployment) push(t *testing.T, r memoryRegistry, content, key string, format artifact.Format, log string, stamped, beside bool, change func(*artifact.Signature)) string {
	t.Helper()
	subject := r.putImage("", content)
	image := r.host + "/demo/app@" + subject.Digest
	s := d.signClaim(t, key, format, log, stamped, artifact.Claim{Identity: r.host + "/demo/app", Digest: subject.Digest})
	if change != nil {
		change(&s)
	}
	if format == artifact.Legacy {
		m, pieces, err := d.legacy.Append(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		r.putAll(d.legacy.Tag(subject.Digest), m, pieces)
	} else {
		m, pieces, err := d.bundles.Compose(s, subject)
		if err != nil {
			t.Fatal(err)
		}
		r.putAll(m.Digest, m, pieces)
	}
	if beside {
		m, pieces, err := d.bundles.Compose(sign(t, "second", artifact.Bundle, artifact.Claim{Digest: subject.Digest}), subject)
		if err != nil {
			t.Fatal(err)
		}
		r.putAll(m.Digest, m, pieces)
	}
	return image
}

// TestTrustDocumentByThePrograms: each command line of the document accepts what it is for, and refuses what lacks what it asks
// for, with both programs.
func TestTrustDocumentByThePrograms(t *testing.T) {
	t.Parallel()
	all := programs(t)
	d, stranger := newDeployment(t), newDeployment(t)
	document := d.document(t)
	files, err := document.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, f := range files {
			write(t, p.file(f.Name), f.Content)
		}
		if err := os.Mkdir(p.file("bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(p.path, filepath.Join(p.dir, "bin", "cosign")); err != nil {
			t.Fatal(err)
		}
	}
	r := newRegistry(t)
	for i, c := range document.Commands {
		beside := !slices.Contains(c.Programs, "v2.6.5")
		name := func(what string) string { return fmt.Sprintf("%d %s", i, what) }
		logged, stamped := c.Log, c.Authority != ""
		good := d.push(t, r, name("good"), c.Key, c.Format, logged, stamped, beside, nil)
		bad := map[string]string{
			"by another": stranger.another(t, r, name("by another"), c, beside),
		}
		if c.Log != "" {
			bad["not logged"] = d.push(t, r, name("not logged"), c.Key, c.Format, "", stamped, beside, nil)
			bad["logged by another log"] = d.push(t, r, name("another log"), c.Key, c.Format, "", stamped, beside, func(s *artifact.Signature) {
				s.Entry = stranger.signLike(t, *s, c.Log).Entry
			})
			bad["logged for another signature"] = d.push(t, r, name("another entry"), c.Key, c.Format, "", stamped, beside, func(s *artifact.Signature) {
				s.Entry = d.sign(t, c.Key, c.Format, c.Log, false).Entry
			})
		}
		if c.Authority != "" {
			bad["not timestamped"] = d.push(t, r, name("not timestamped"), c.Key, c.Format, logged, false, beside, nil)
			bad["timestamped by another authority"] = d.push(t, r, name("another authority"), c.Key, c.Format, logged, false, beside, func(s *artifact.Signature) {
				s.Timestamp = stranger.authority.stamp(t, s.Bytes, d.within())
			})
		}
		for _, version := range c.Programs {
			t.Run(c.Title+", "+version, func(t *testing.T) {
				t.Parallel()
				p := all[version]
				if err := p.line(t, p.dir, c.Line, good); err != nil {
					t.Errorf("cosign refuses what the line is for: %v", err)
				}
				for what, image := range bad {
					if p.line(t, p.dir, c.Line, image) == nil {
						t.Errorf("cosign accepts what is %s: %s", what, c.Line)
					}
				}
			})
		}
	}
}

// another signs as somebody whom the document does not name.
func (d *deployment) another(t *testing.T, r memoryRegistry, content string, c sigstore.TrustCommand, beside bool) string {
	t.Helper()
	if c.Key == "keyless" {
		return d.push(t, r, content, c.Key, c.Format, c.Log, c.Authority != "", beside, nil)
	}
	there := *d
	ring, err := sigstore.NewKeyring([]sigstore.NamedKey{active("second")}, d.trust)
	if err != nil {
		t.Fatal(err)
	}
	there.ring = ring
	return there.push(t, r, content, "second", c.Format, c.Log, c.Authority != "", beside, nil)
}

// TestProgramsAfterCompletion: what was attached first and completed later is accepted as if it had been written at once.
func TestProgramsAfterCompletion(t *testing.T) {
	t.Parallel()
	all := programs(t)
	d := newDeployment(t)
	document := d.document(t)
	r := newRegistry(t)
	for version, p := range all {
		write(t, p.file(sigstore.TrustedRootFile), document.TrustedRoot)
		for _, key := range []string{"p256", "keyless"} {
			subject := r.putImage("", version+key)
			image := r.host + "/demo/app@" + subject.Digest
			c := artifact.Claim{Identity: r.host + "/demo/app", Digest: subject.Digest}
			s := d.signClaim(t, key, artifact.Legacy, "", true, c)
			m, pieces, err := d.legacy.Append(nil, s)
			if err != nil {
				t.Fatal(err)
			}
			r.putAll(d.legacy.Tag(subject.Digest), m, pieces)
			args := []string{"verify", "--trusted-root", p.file(sigstore.TrustedRootFile), "--offline", "--allow-http-registry"}
			if key == "keyless" {
				args = append(args, "--certificate-identity", oidcSubject, "--certificate-oidc-issuer", oidcIssuer, "--insecure-ignore-sct")
			} else {
				args = append(args, "--key", p.file(key+".pub"))
			}
			args = append(args, image)
			if p.run(t, args...) == nil {
				t.Errorf("%s, %s: cosign finds an entry before there is one", version, key)
			}
			s.Entry = d.one.entry(t, s, d.within())
			if m, pieces, err = d.legacy.Append(&m, s); err != nil {
				t.Fatal(err)
			}
			r.putAll(d.legacy.Tag(subject.Digest), m, pieces)
			if err := p.run(t, args...); err != nil {
				t.Errorf("%s, %s: cosign refuses the completed signature: %v", version, key, err)
			}
		}
	}
}

// TestProgramsAcceptLoggedKeys: an entry in a log keeps no kind of key from being verified. What the log does not take is not
// asked of it.
func TestProgramsAcceptLoggedKeys(t *testing.T) {
	t.Parallel()
	all := programs(t)
	d := newDeployment(t)
	document := d.document(t)
	r := newRegistry(t)
	for name, key := range loadedKeys() {
		for _, kind := range kinds() {
			log := d.one
			if kind.log == "two" {
				log = d.two
			}
			there := *d
			var err error
			if there.ring, err = sigstore.NewKeyring([]sigstore.NamedKey{active(name)}, d.trust); err != nil {
				t.Fatal(err)
			}
			if err := log.verifier(t).Accepts(kind.format, spki(t, rawKeys()[name].Public())); err != nil {
				t.Logf("%s, %s, %s: %v", name, kind.format, kind.log, err)
				continue
			}
			image := there.push(t, r, name+kind.log, name, kind.format, kind.log, false, false, nil)
			for version, p := range all {
				t.Run(fmt.Sprintf("%s, %s, %s, %s", name, kind.format, kind.log, version), func(t *testing.T) {
					t.Parallel()
					write(t, p.file(sigstore.TrustedRootFile), document.TrustedRoot)
					err := p.run(t, "verify", "--key", p.file(name+".pub"), "--trusted-root", p.file(sigstore.TrustedRootFile), "--offline", "--allow-http-registry", image)
					if err != nil {
						t.Errorf("cosign refuses the logged signature by a key of the kind %s, %s: %v", name, key.ID(), err)
					}
				})
			}
		}
	}
}
