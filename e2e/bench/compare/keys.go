package compare

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// keyFiles is one key in all forms that contenders read.
type keyFiles struct {
	public *ecdsa.PublicKey
	// plain is PKCS #8; encrypted is as cosign writes it, and passwordFile has its password.
	plain, encrypted, passwordFile string
	password                       string
}

func newKeyFiles(dir string) (keyFiles, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyFiles{}, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return keyFiles{}, fmt.Errorf("making a key: %w", err)
	}
	k := keyFiles{
		public: &key.PublicKey, password: rand.Text(),
		plain: filepath.Join(dir, "plain.pem"), encrypted: filepath.Join(dir, "cosign.key"),
		passwordFile: filepath.Join(dir, "password"),
	}
	sealed, err := encrypted.Encrypt(der, []byte(k.password))
	if err != nil {
		return keyFiles{}, fmt.Errorf("encrypting the key: %w", err)
	}
	block := func(kind string, content []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	}
	for path, content := range map[string][]byte{
		k.plain:        block("PRIVATE KEY", der),
		k.encrypted:    block("ENCRYPTED SIGSTORE PRIVATE KEY", sealed),
		k.passwordFile: []byte(k.password + "\n"),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return keyFiles{}, fmt.Errorf("writing the key: %w", err)
		}
	}
	return k, nil
}
