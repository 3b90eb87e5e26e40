package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// TrustedRootFile is the name under which the command lines of a [TrustDocument] look for its trusted root.
const TrustedRootFile = "trusted_root.json"

// TrustKey is a public key that verifies signatures.
type TrustKey struct {
	Name  string   `json:"name"`
	State KeyState `json:"state"`
	// PublicKey is in PEM. File is the name under which the command lines look for it, which [NewTrustDocument] sets.
	PublicKey string `json:"public_key"`
	File      string `json:"file,omitempty"`
}

// TrustLog is a transparency log.
type TrustLog struct {
	Name string         `json:"name"`
	Type policy.LogType `json:"type"`
	URL  string         `json:"url"`
	// PublicKey is in PEM.
	PublicKey string `json:"public_key"`
	// Origin is the name in the checkpoints of Rekor v2; empty stands for the host of URL.
	Origin string `json:"origin,omitempty"`
}

// TrustAuthority is a timestamp authority.
type TrustAuthority struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Chain is in PEM: the certificate that signs timestamps first, where it is known, and the root last.
	Chain string `json:"certificate_chain"`
}

// TrustIdentity is an identity that signs without a key of its own.
type TrustIdentity struct {
	Name    string   `json:"name"`
	State   KeyState `json:"state"`
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	// URL is Fulcio's.
	URL string `json:"url"`
	// Roots are in PEM: those that are self-signed are trusted, the others lead to them.
	Roots string `json:"roots"`
}

// TrustSources is what a trust document is made of: what is configured, in the order in which it is to stand there. What is
// revoked is left out.
type TrustSources struct {
	// PublicHost is the registry's name as people pull from it.
	PublicHost  string
	Keys        []TrustKey
	Identities  []TrustIdentity
	Logs        []TrustLog
	Authorities []TrustAuthority
	// Formats are those that signatures are written in; none stands for both.
	Formats []artifact.Format
}

// TrustCommand is a command line that verifies an image, and what it asks for.
type TrustCommand struct {
	// Title says for people what the rest says for programs.
	Title string `json:"title"`
	// Key is the name of a key or an identity; Log and Authority are empty where the line asks for none.
	Key       string          `json:"key"`
	Format    artifact.Format `json:"format"`
	Log       string          `json:"log,omitempty"`
	Authority string          `json:"authority,omitempty"`
	// Programs are the versions of cosign that the line is for.
	Programs []string `json:"programs"`
	// Line is for a POSIX shell, in a directory with the document's files. The image's name is to be put in.
	Line string `json:"line"`
}

// TrustDocument is all that a verifier needs who asks neither this program nor the public sigstore. It holds nothing secret.
type TrustDocument struct {
	// TrustedRoot is the content of [TrustedRootFile].
	TrustedRoot json.RawMessage  `json:"trusted_root"`
	Keys        []TrustKey       `json:"keys"`
	Identities  []TrustIdentity  `json:"identities"`
	Logs        []TrustLog       `json:"logs"`
	Authorities []TrustAuthority `json:"authorities"`
	Commands    []TrustCommand   `json:"commands"`
}

// NewTrustDocument writes the document. The same sources give the same bytes of it in JSON. The error names all that cannot be
// read.
func NewTrustDocument(from TrustSources) (TrustDocument, error) {
	d := TrustDocument{
		Keys: []TrustKey{}, Identities: []TrustIdentity{}, Logs: append([]TrustLog{}, from.Logs...),
		Authorities: append([]TrustAuthority{}, from.Authorities...), Commands: []TrustCommand{},
	}
	var errs []error
	for _, k := range from.Keys {
		if k.State == Revoked {
			continue
		}
		_, err := keys.ParsePublicKey([]byte(k.PublicKey))
		if err == nil && !isFileName(k.Name) {
			err = errors.New("its name can be none of a file")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("key %.64q: %w", k.Name, err))
		}
		k.File = k.Name + ".pub"
		d.Keys = append(d.Keys, k)
	}
	for _, i := range from.Identities {
		if i.State != Revoked {
			d.Identities = append(d.Identities, i)
		}
	}
	from.Identities = d.Identities
	root, err := newTrustedRoot(from)
	if err := errors.Join(append(errs, err)...); err != nil {
		return TrustDocument{}, fmt.Errorf("writing the trust document: %w", err)
	}
	d.TrustedRoot = root
	d.Commands = append(d.Commands, newCommands(from, d)...)
	return d, nil
}

// TrustFile is a file that the command lines need.
type TrustFile struct {
	Name    string
	Content []byte
}

// Files are those that the command lines look for: the trusted root and the public keys.
func (d TrustDocument) Files() ([]TrustFile, error) {
	var root bytes.Buffer
	if err := json.Indent(&root, d.TrustedRoot, "", "  "); err != nil {
		return nil, fmt.Errorf("writing %s: %w", TrustedRootFile, err)
	}
	root.WriteByte('\n')
	files := []TrustFile{{Name: TrustedRootFile, Content: root.Bytes()}}
	for _, k := range d.Keys {
		files = append(files, TrustFile{Name: k.File, Content: []byte(k.PublicKey)})
	}
	return files, nil
}

// isFileName says whether a name is one in this directory, on every system and without quotes.
func isFileName(name string) bool {
	return name != "" && len(name) <= 200 && name[0] != '.' && name[0] != '-' && strings.Trim(name, plain) == ""
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	plain   = letters + "._-"
)

// quote writes a word for a POSIX shell.
func quote(word string) string {
	if word != "" && strings.Trim(word, plain+"/:@=,+%") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func formatsOf(from TrustSources) []artifact.Format {
	all := []artifact.Format{artifact.Legacy, artifact.Bundle}
	if len(from.Formats) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(f artifact.Format) bool { return !slices.Contains(from.Formats, f) })
}
