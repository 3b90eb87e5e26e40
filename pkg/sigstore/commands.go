package sigstore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/pubkey"
)

// What the programs are called that the command lines were tried with.
const (
	cosignV2 = "v2.6.5"
	cosignV3 = "v3.1.3"
)

// verifiedBy is one key or identity in a command line.
type verifiedBy struct {
	name    string
	keyless bool
	// odd says that the key is neither ECDSA on P-256 nor RSA. Signatures with others are over something else than SHA-256 to a
	// log: Rekor v2 takes none of them, and Rekor v1 none that is legacy.
	odd bool
	// flags name it to cosign.
	flags string
}

// newCommands writes a line for each key or identity, format, and what may stand behind a signature, as far as cosign can
// verify it.
func newCommands(from TrustSources, d TrustDocument) []TrustCommand {
	var signers []verifiedBy
	for _, k := range d.Keys {
		signers = append(signers, verifiedBy{name: k.Name, odd: isOdd(k), flags: "--key " + quote(k.File)})
	}
	for _, i := range d.Identities {
		signers = append(signers, verifiedBy{name: i.Name, keyless: true, flags: fmt.Sprintf(
			"--certificate-identity %s --certificate-oidc-issuer %s --insecure-ignore-sct", quote(i.Subject), quote(i.Issuer))})
	}
	host := from.PublicHost
	if host == "" {
		host = "HOST"
	}
	image := quote(host + "/PROJECT/REPOSITORY:TAG")
	var commands []TrustCommand
	for _, signer := range signers {
		for _, format := range formatsOf(from) {
			for _, log := range append([]TrustLog{{}}, d.Logs...) {
				for _, authority := range append([]TrustAuthority{{}}, d.Authorities...) {
					c := TrustCommand{Key: signer.name, Format: format, Log: log.Name, Authority: authority.Name}
					if verifiable(signer, format, log, authority) {
						commands = append(commands, c.lines(signer, image)...)
					}
				}
			}
		}
	}
	return commands
}

func isOdd(k TrustKey) bool {
	key, err := pubkey.Parse([]byte(k.PublicKey))
	if err != nil {
		return true
	}
	switch public := key.Public.(type) {
	case *ecdsa.PublicKey:
		return public.Curve != elliptic.P256()
	case *rsa.PublicKey:
		return false
	default:
		return true
	}
}

// verifiable says whether cosign can check what a line asks for. A legacy signature has no place for an entry of Rekor v2. A
// certificate of minutes needs a time, which Rekor v2 does not give. Both programs accept a legacy signature without the
// timestamp that they are asked to use, unless its certificate could not be verified without.
func verifiable(by verifiedBy, format artifact.Format, log TrustLog, authority TrustAuthority) bool {
	logged, stamped := log.Name != "", authority.Name != ""
	switch {
	case by.odd && (log.Type == policy.RekorV2 || logged && format == artifact.Legacy):
		return false
	case format == artifact.Legacy && (log.Type == policy.RekorV2 || stamped && (logged || !by.keyless)):
		return false
	case by.keyless:
		return stamped || log.Type == policy.RekorV1
	default:
		return true
	}
}

// lines writes the command line for both programs, and the one that v3 needs where bundles of others stand beside a legacy
// signature: it looks at these alone then, and v2 has no way out.
//
// Without --offline both programs ask the public Rekor for a legacy signature's missing entry.
func (c TrustCommand) lines(by verifiedBy, image string) []TrustCommand {
	flags := []string{"cosign verify", by.flags, "--trusted-root " + TrustedRootFile}
	var behind []string
	if c.Log == "" {
		flags = append(flags, "--insecure-ignore-tlog")
	} else {
		flags = append(flags, "--offline")
		behind = append(behind, "logged in "+c.Log)
	}
	if c.Authority != "" {
		flags = append(flags, "--use-signed-timestamps")
		behind = append(behind, "timestamped by "+c.Authority)
	}
	if len(behind) == 0 {
		behind = []string{"no log and no timestamp asked for"}
	}
	c.Programs = []string{cosignV2, cosignV3}
	c.Title = fmt.Sprintf("%s, %s, %s", c.Key, c.Format, strings.Join(behind, " and "))
	c.Line = strings.Join(append(flags, image), " ")
	if c.Format != artifact.Legacy {
		return []TrustCommand{c}
	}
	beside := c
	beside.Programs = []string{cosignV3}
	beside.Title += ", beside bundles of others"
	beside.Line = strings.Join(append(flags, "--new-bundle-format=false", image), " ")
	return []TrustCommand{c, beside}
}
