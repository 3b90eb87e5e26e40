package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/config"
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
		for _, has := range []bool{key.File != "", key.KMS != "", key.PKCS11.Module != ""} {
			if has {
				private++
			}
		}
		if (key.State == config.Active) != (private == 1) || (private == 0 && key.PublicKeyFile == "") {
			t.Errorf("signer: accepted the key %+v", key)
		}
	}
	if !active[s.Sign.Key] || s.Harbor.PublicHost == "" || strings.Contains(s.Harbor.URL, "@") || s.Sweep.Full < time.Second || s.Sweep.Incremental < time.Second ||
		s.Sign.Concurrency < 1 || !filepath.IsAbs(s.Harbor.SecretFile) {
		t.Errorf("signer: accepted %+v", s)
	}
}
