package keys_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const password = "correct horse battery staple"

// rawKeys are made once: RSA keys take their time.
var rawKeys = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"p256":    must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"second":  must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"p384":    must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ed25519": must(ed, err),
		"rsa":     must(rsa.GenerateKey(rand.Reader, 2048)),
		"p521":    must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"rsa1024": must(rsa.GenerateKey(rand.Reader, 1024)), //nolint:gosec // to be refused
	}
})

// loadedKeys are loaded once: decryption is slow by design.
var loadedKeys = sync.OnceValue(func() map[string]*keys.Key {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	passwordFile := filepath.Join(dir, "password")
	loaded := make(map[string]*keys.Key)
	for _, name := range []string{"p256", "second", "p384", "ed25519", "rsa"} {
		path := filepath.Join(dir, name)
		err := errors.Join(os.WriteFile(path, encryptKey(rawKeys()[name]), 0o600), os.WriteFile(passwordFile, []byte(password+"\n"), 0o600))
		if err == nil {
			loaded[name], err = keys.LoadFile(path, passwordFile)
		}
		if err != nil {
			panic(err)
		}
	}
	return loaded
})

func encryptKey(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return encryptBytes(der)
}

// pkcs8PEM is a key in PEM, not encrypted.
func pkcs8PEM(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func encryptBytes(plain []byte) []byte {
	data, err := encrypted.Encrypt(plain, []byte(password))
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: data})
}
