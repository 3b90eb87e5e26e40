package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// testSignatureTime bounds a test signature, wherever the key is.
const testSignatureTime = 20 * time.Second

// checkKeys says of each key whether it could be opened, and has each one that signs sign something that nobody sees: it is
// composed, and verified, as it would be beside an image, in memory.
func (d *doctor) checkKeys(ctx context.Context) {
	var named []sigstore.NamedKey
	for i, k := range d.app.engine.keys {
		c := preflight.Check{Name: preflight.Key, Subject: d.cfg.Keys[i].Name, Status: preflight.OK}
		if k.err != nil {
			c.Status, c.Detail = preflight.Failed, k.err.Error()
			c.Fix = fixOf(d.cfg.Keys[i])
			d.add(c)
			continue
		}
		named = append(named, k.named(d.cfg.Keys[i]))
		c.Detail = "key id " + k.public.ID()
		if identity := k.named(d.cfg.Keys[i]).Identity; identity != nil {
			c.Detail = "identity id " + identity.KeyID()
		}
		if d.cfg.Keys[i].State != config.Active {
			c.Detail = string(d.cfg.Keys[i].State) + ", " + c.Detail
		}
		d.add(c)
	}
	if len(named) == 0 {
		return
	}
	ring, err := sigstore.NewKeyring(named, d.app.engine.proofs.trust())
	if err != nil {
		d.add(preflight.Check{
			Name: preflight.Configuration, Subject: "keys", Status: preflight.Failed, Detail: err.Error(),
			Fix: "mend keys in the configuration; signer --check-config says it as well",
		})
		return
	}
	d.ring = ring
	for _, k := range named {
		if k.Signer != nil {
			d.add(d.testSignature(ctx, k.Name))
		}
	}
}

// fixOf says where to look for what keeps a key from being opened.
func fixOf(k config.Key) string {
	switch {
	case k.State != config.Active:
		return "put the public key where public_key_file says, in PEM"
	case k.Keyless():
		return "check roots_file, issuer and subject; whether Fulcio gives a certificate is a check of its own"
	case k.KMS != "":
		return "see that the KMS answers this machine, that the credentials are good, and that they may use this key"
	case k.PKCS11 != config.PKCS11{}:
		return "see that the HSM and its library work, and check the token, the key's label and the PIN"
	default:
		return "check the file of the key and its password_file; both belong to this program's account, with mode 0600"
	}
}

func (d *doctor) testSignature(ctx context.Context, key string) preflight.Check {
	ctx, cancel := context.WithTimeout(ctx, testSignatureTime)
	defer cancel()
	c := preflight.Check{
		Name: preflight.TestSignature, Subject: key, Status: preflight.OK, Detail: "signed and verified in memory, as legacy and as bundle",
	}
	subject := artifact.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json", Raw: []byte("{}"), Digest: artifact.DigestOf([]byte("{}"))}
	claim := artifact.Claim{Identity: d.cfg.Harbor.PublicHost + "/" + testRepository, Digest: subject.Digest}
	err := errors.Join(d.testLegacy(ctx, key, claim), d.testBundle(ctx, key, claim, subject))
	if err != nil {
		c.Status, c.Detail = preflight.Failed, err.Error()
		c.Fix = "see that what holds the key lets this program sign with it: docs/keys.md"
	}
	return c
}

func (d *doctor) testLegacy(ctx context.Context, key string, claim artifact.Claim) error {
	signature, err := d.ring.Sign(ctx, key, artifact.Legacy, claim)
	if err != nil {
		return err
	}
	format := sigstore.NewLegacy(d.ring)
	m, blobs, err := format.Append(nil, signature)
	if err != nil {
		return fmt.Errorf("composing a legacy signature: %w", err)
	}
	found, err := format.Verify(ctx, m, claim, func(id string) bool { return d.ring.Accepts(key, id) }, fetchFrom(blobs))
	return verified(signature, found, err)
}

func (d *doctor) testBundle(ctx context.Context, key string, claim artifact.Claim, subject artifact.Manifest) error {
	signature, err := d.ring.Sign(ctx, key, artifact.Bundle, claim)
	if err != nil {
		return err
	}
	format := sigstore.NewBundles(d.ring)
	m, blobs, err := format.Compose(signature, artifact.Descriptor{
		MediaType: subject.MediaType, Digest: subject.Digest, Size: int64(len(subject.Raw)),
	})
	if err != nil {
		return fmt.Errorf("composing a bundle: %w", err)
	}
	found, err := format.Verify(ctx, m, claim, fetchFrom(blobs))
	return verified(signature, found, err)
}

// verified says that what was made is what was found.
func verified(made artifact.Signature, found []artifact.Signature, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("verifying the %s signature: %w", made.Format, err)
	case len(found) != 1 || !bytes.Equal(found[0].Bytes, made.Bytes):
		return fmt.Errorf("the %s signature that was just made does not verify", made.Format)
	}
	return nil
}

// fetchFrom reads what was to be uploaded.
func fetchFrom(blobs []artifact.Blob) sigstore.Fetch {
	return func(_ context.Context, digest string) ([]byte, error) {
		for _, b := range blobs {
			if b.Digest == digest {
				return b.Raw, nil
			}
		}
		return nil, fault.Newf(fault.Gone, fault.NotFound, "blob %s was not made", digest)
	}
}
