package notary

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// pemType is what a PKCS #8 key is called in PEM.
const pemType = "PRIVATE KEY"

// maxKeyFile bounds what is read of a key file.
const maxKeyFile = 64 << 10

// Key is the ledger key. It signs notes: checkpoints, the openings of epochs, and exports. It is safe for concurrent use.
type Key struct {
	private  ed25519.PrivateKey
	vkey     string
	verifier note.Verifier
}

// KeyName is the name of the ledger key of a harbor, as notes show it.
func KeyName(publicHost, harbor string) string { return publicHost + "/harborseal/" + harbor }

// NewKey makes a key and gives its PEM form (PKCS #8).
func NewKey() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a ledger key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("making a ledger key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// LoadKey reads a key file. The key must be none of the image keys, which are those of which the caller knows the public halves:
// who signs images must not be able to vouch for the record of it.
func LoadKey(path, name string, imageKeys ...crypto.PublicKey) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger key: %w", err)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("reading the ledger key: %s is no key file", path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("reading the ledger key: %w", err)
	}
	key, err := ParseKey(data, name, imageKeys...)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger key in %s: %w", path, err)
	}
	return key, nil
}

// ParseKey reads the PEM form of a key. No error holds anything of it.
func ParseKey(data []byte, name string, imageKeys ...crypto.PublicKey) (*Key, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return nil, errors.New("want an Ed25519 key in PEM (PKCS #8): `receiver ledger new-key` makes one")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block is no PKCS #8 key")
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("want an Ed25519 key, not %T", parsed)
	}
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("want an Ed25519 key")
	}
	if slices.ContainsFunc(imageKeys, func(image crypto.PublicKey) bool { return public.Equal(image) }) {
		return nil, errors.New("this key signs images: the ledger needs a key of its own")
	}
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("making the verifier key: %w", err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("the name %q cannot be that of a key: %w", name, err)
	}
	return &Key{private: private, vkey: vkey, verifier: verifier}, nil
}

// Name implements note.Signer, as do KeyHash and Sign.
func (k *Key) Name() string { return k.verifier.Name() }

// KeyHash implements note.Signer.
func (k *Key) KeyHash() uint32 { return k.verifier.KeyHash() }

// Sign implements note.Signer.
func (k *Key) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.private, msg), nil }

// idDomain is the first line of what event ids are made of; no note begins with it.
const idDomain = "harborseal/id/v1"

// eventID gives the id of an event of the notary's. All who hold the key agree on it, so that the ledger keeps one event. Nobody else
// can foresee it: who did could use the id, or the subject that is made of it, before the notary does, and the ledger would take the
// notary's event for a repetition.
func (k *Key) eventID(kind artifact.Kind, parts ...string) string {
	text := strings.Join(append([]string{idDomain, k.Name(), string(kind)}, parts...), "\n")
	sum := sha256.Sum256(ed25519.Sign(k.private, []byte(text))) // the same signature each time
	return artifact.EventID(kind, artifact.Ref{}, append(slices.Clone(parts), hex.EncodeToString(sum[:]))...)
}

// VerifierKey is the public half, in the form of signed notes: what verifiers and auditors are given.
func (k *Key) VerifierKey() string { return k.vkey }

// Keys are those whose notes are accepted. It is safe for concurrent use.
type Keys struct {
	texts     []string
	verifiers note.Verifiers
}

// NewKeys reads verifier keys: that of the present key, and those of before. Repetitions are allowed.
func NewKeys(vkeys ...string) (*Keys, error) {
	k := &Keys{}
	seen := map[string]bool{}
	var list []note.Verifier
	for _, text := range vkeys {
		verifier, err := note.NewVerifier(text)
		if err != nil {
			return nil, fmt.Errorf("verifier key %.100q: %w", text, err)
		}
		if !seen[text] {
			seen[text] = true
			k.texts, list = append(k.texts, text), append(list, verifier)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no verifier key is given")
	}
	k.verifiers = note.VerifierList(list...)
	return k, nil
}

// Texts are the verifier keys, the present one first.
func (k *Keys) Texts() []string { return append([]string(nil), k.texts...) }

// open verifies a note and gives its text and who has signed it.
func (k *Keys) open(signed string) (text, signer string, err error) {
	n, err := note.Open([]byte(signed), k.verifiers)
	if err != nil {
		return "", "", err
	}
	return n.Text, n.Sigs[0].Name, nil
}
