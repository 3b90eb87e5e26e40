package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
)

// FuzzLoad feeds one file and one variable to both programs: an error, or a configuration that is what its package says.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"receiver.yaml", "signer.yaml"} {
		content, err := fs.ReadFile(os.DirFS(examples), name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content, "HARBORSEAL_KEYS_0_NAME=k")
	}
	f.Add([]byte(minimalReceiver), "HARBORSEAL_QUEUE_EMBEDDED_USERS_1_NAME=x")
	f.Add([]byte(minimalSigner), "HARBORSEAL_HARBOR_URL=https://h")
	f.Add([]byte(minimalSigner), "HARBORSEAL_SIGN_ANNOTATIONS=a=b,c=d")
	f.Add([]byte(withoutKeys+"keys: ["+file+", "+identity+"]\nlogs: ["+rekor1+", "+rekor2+"]\ntimestamp_authorities: ["+authority+
		"]\nsign: {key: k, log: r2, transparency: deferred}\n"), "HARBORSEAL_LOGS_0_STATE=verify-only")
	f.Add([]byte("a: &a [*a]\n? {b: 1}\n: 2\n<<: {log: {level: x}}\n"), "HARBORSEAL_PORT_1_TCP=x")
	f.Add([]byte("keys: [[], {1: 2}, 2026-11-22, !!binary eA==, .nan]\n"), "=")
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, content []byte, variable string) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := config.LoadReceiver(path, []string{variable})
		if (r == nil) == (err == nil) {
			t.Fatalf("receiver: got %v and error %v, want one of them", r, err)
		}
		var secrets []string
		if err == nil {
			secrets = slices.Concat(r.Webhook.SecretFiles, r.Webhook.MasterSecretFiles)
			if _, err := r.Declared(); err != nil {
				t.Errorf("receiver: accepted policies that are none: %v", err)
			}
		}
		if err == nil && (len(secrets) == 0 || !filepath.IsAbs(secrets[0]) || r.Queue.Embedded.Enabled == (len(r.Queue.URLs) > 0)) {
			t.Errorf("receiver: accepted %+v", r)
		}
		s, err := config.LoadSigner(path, []string{variable})
		if (s == nil) == (err == nil) {
			t.Fatalf("signer: got %v and error %v, want one of them", s, err)
		}
		if err == nil {
			checkSigner(t, s)
		}
	})
}

func checkSigner(t *testing.T, s *config.Signer) {
	t.Helper()
	active := make(map[string]bool)
	for _, key := range s.Keys {
		if key.State == config.Active {
			active[key.Name] = true
		}
		private := 0
		for _, has := range []bool{key.File != "", key.KMS != "", key.PKCS11.Module != "", key.Fulcio.TokenFile != ""} {
			if has {
				private++
			}
		}
		identity := key.Fulcio.RootsFile != "" && key.Fulcio.Issuer != "" && key.Fulcio.Subject != ""
		if (key.State == config.Active) != (private == 1) || key.Keyless() != identity || (private == 0 && !identity && key.PublicKeyFile == "") {
			t.Errorf("signer: accepted the key %+v", key)
		}
	}
	checkLogs(t, s)
	if !active[s.Sign.Key] || s.Harbor.PublicHost == "" || strings.Contains(s.Harbor.URL, "@") || s.Sweep.Full < time.Second || s.Sweep.Incremental < time.Second ||
		s.Sign.Concurrency < 1 || !filepath.IsAbs(s.Harbor.SecretFile) {
		t.Errorf("signer: accepted %+v", s)
	}
}

func checkLogs(t *testing.T, s *config.Signer) {
	t.Helper()
	active := make(map[string]bool)
	for _, l := range s.Logs {
		active[l.Name] = l.State == config.Active
		v2 := l.Type == policy.RekorV2
		if l.PublicKeyFile == "" || strings.Contains(l.URL, "@") || v2 != (l.Origin != "") || !v2 && l.TilesURL != "" {
			t.Errorf("signer: accepted the log %+v", l)
		}
	}
	terms := s.Terms()
	means := s.Means(terms)
	means.Formats, means.Bundles = []artifact.Format{artifact.Legacy, artifact.Bundle}, true
	if s.Sign.Log != "" && !active[s.Sign.Log] || terms.Format != policy.FormatLegacy && terms.Verifiable(means) != nil {
		t.Errorf("signer: accepted the terms %+v", terms)
	}
}
