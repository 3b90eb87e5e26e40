package sigstore_test

import (
	"path/filepath"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// TestVerifyCommandLines holds docs/verify.md to the programs: which command line accepts which formats, and where a foreign
// bundle stands in the way. Nothing can go online here.
func TestVerifyCommandLines(t *testing.T) {
	t.Parallel()
	const (
		noLog, rootless, noBundle, asBundle = "no log", "no log, no root", "legacy only", "bundle only"
	)
	flags := map[string][]string{
		noLog:    {"--trusted-root", "ROOT", "--insecure-ignore-tlog"},
		rootless: {"--insecure-ignore-tlog"},
		noBundle: {"--insecure-ignore-tlog", "--new-bundle-format=false"},
		asBundle: {"--trusted-root", "ROOT", "--insecure-ignore-tlog", "--new-bundle-format=true"},
	}
	all := programs(t)
	r := newRegistry(t)
	predicate := filepath.Join(t.TempDir(), "predicate.json")
	write(t, predicate, []byte(`{}`))
	layouts := make(map[string]string)
	for _, layout := range []string{"legacy", "bundle", "both", "legacy beside a foreign attestation", "both beside a foreign attestation"} {
		subject := r.putImage("", layout)
		image := r.host + "/demo/app@" + subject.Digest
		layouts[layout] = image
		c := artifact.Claim{Identity: r.host + "/demo/app", Digest: subject.Digest}
		if layout[:4] != "bund" {
			m, pieces := attach(t, "p256", nil, c)
			r.putAll(newLegacy(t, active("p256")).Tag(subject.Digest), m, pieces)
		}
		if layout[:4] != "lega" {
			m, pieces, err := newBundles(t, active("p256")).Compose(sign(t, "p256", artifact.Bundle, c), subject)
			if err != nil {
				t.Fatal(err)
			}
			r.putAll(m.Digest, m, pieces)
		}
		if len(layout) > 6 {
			p := all["v3.1.3"]
			if err := p.run(t, "attest", "--yes", "--use-signing-config=false", "--tlog-upload=false", "--key", p.file("second.key"),
				"--predicate", predicate, "--type", "custom", image); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		layout, command string
		v2, v3          bool
	}{
		{"legacy", noLog, true, true},
		{"legacy", rootless, true, true},
		{"legacy", noBundle, true, true},
		{"bundle", noLog, true, true},
		{"bundle", rootless, false, true},
		{"bundle", asBundle, true, true},
		{"both", noLog, true, true},
		{"both", rootless, false, true},
		{"both", noBundle, false, true},
		{"both", asBundle, true, true},
		{"legacy beside a foreign attestation", noLog, false, false},
		{"legacy beside a foreign attestation", noBundle, false, true},
		{"both beside a foreign attestation", noLog, true, true},
		{"both beside a foreign attestation", rootless, false, true},
	} {
		for version, want := range map[string]bool{"v2.6.5": tt.v2, "v3.1.3": tt.v3} {
			t.Run(tt.layout+", "+tt.command+", "+version, func(t *testing.T) {
				t.Parallel()
				p := all[version]
				args := []string{"verify", "--key", p.file("p256.pub"), "--allow-http-registry"}
				for _, flag := range flags[tt.command] {
					if flag == "ROOT" {
						flag = p.file("empty-root.json")
					}
					args = append(args, flag)
				}
				if err := p.run(t, append(args, layouts[tt.layout])...); (err == nil) != want {
					t.Errorf("cosign accepts: %v, want %v: %v", err == nil, want, err)
				}
			})
		}
	}
}
