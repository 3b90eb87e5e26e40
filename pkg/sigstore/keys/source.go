package keys

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	defaultTimeout = 10 * time.Second
	// A KMS answers many at once; an HSM is faster with few (SoftHSM signs 4,500 times a second for one caller, and less for many).
	defaultKMSCalls    = 8
	defaultPKCS11Calls = 4
)

// Source says where a key is: exactly one of File, KMS and PKCS11 is set.
type Source struct {
	// Name is what people call the key; it stands in errors.
	Name string

	// File and PasswordFile are what [LoadFile] takes.
	File, PasswordFile string

	// KMS is a key in the form of sigstore's providers:
	//
	//	hashivault://NAME                                 a key of Vault's transit engine
	//	awskms://[ENDPOINT]/(ID|ARN|alias/NAME|ALIAS-ARN)  the endpoint is a host, dialled with TLS; mostly empty
	//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K[/cryptoKeyVersions/V]
	//	azurekms://VAULT/KEY[/VERSION]
	//
	// [Providers] tells which of them this program was built with.
	KMS string
	// Vault is needed with hashivault://.
	Vault VaultOptions
	// AWS may be set with awskms://.
	AWS AWSOptions

	// PKCS11 is a key in an HSM. Only a build with the tag pkcs11 and CGO can open it.
	PKCS11 PKCS11Options

	// PublicKeyFile is a PEM file with the public key that the key must have; empty for any. With it, a key can be opened while
	// its KMS or HSM does not answer or refuses the credentials.
	PublicKeyFile string

	// Transport carries every request to Vault and AWS; it is required for them and belongs to the caller: the one of
	// pkg/egress, which knows the authorities and the proxies.
	Transport http.RoundTripper
	// MaxCalls is how many calls to the KMS or HSM run at a time for this key; 0 is 8 for a KMS and 4 for PKCS #11. Files know no limit.
	MaxCalls int
	// Timeout is how long one call to the KMS or HSM may take; 0 is 10 s.
	Timeout time.Duration
}

// VaultOptions is what hashivault:// needs beside the name of the key.
type VaultOptions struct {
	// Address is the origin of Vault: https, or http on a loopback address, where a Vault Agent may listen.
	Address string
	// TokenFile holds the token on one line, for its owner alone. It is read at every call: whoever renews the token,
	// Vault Agent say, rewrites the file.
	TokenFile string
	// Mount is where the transit engine is mounted; empty for "transit".
	Mount string
	// Namespace is that of Vault Enterprise; empty for none.
	Namespace string
	// KeyVersion is the version that signs; 0 for the newest. It needs [Source.PublicKeyFile], because sigstore's provider
	// knows no public key but the newest. With it, rotating the key in Vault changes nothing here.
	KeyVersion int
}

// AWSOptions is what the URI of a key in AWS KMS does not say. All of it may be empty: the environment and the machine's
// role settle it then, as with every program that uses the SDK of AWS.
type AWSOptions struct {
	// Region is one such as eu-central-1.
	Region string
	// CredentialsFile is a file in the format of ~/.aws/credentials, for its owner alone. It is the only source of
	// credentials then, and read again every 5 minutes.
	CredentialsFile string
	// Profile is the section of CredentialsFile, or of the profile files without one; empty for "default".
	Profile string
}

// PKCS11Options says where in an HSM a key is.
type PKCS11Options struct {
	// Module is the absolute path of the HSM's shared library.
	Module string
	// Token is the label of the token.
	Token string
	// Label and ID name the key pair; at least one is set, and one pair alone may match. ID is hexadecimal.
	Label, ID string
	// PINFile holds the user's PIN on one line, for its owner alone.
	PINFile string
}

// Open opens a key. A key in a KMS or HSM is asked for its public part once, which is kept, and then for a signature.
//
// An error that is a fault of the reason [fault.KeyUnavailable] says that nobody answered, or somebody who cannot serve now: trying
// again may help. With [fault.Unauthorized], the KMS or HSM refused the credentials: it may help once they are renewed. Any other
// needs another configuration or another key. With [Source.PublicKeyFile], Open does not return these two faults but a key that is
// not proven yet: see [Key.Unproven]. The caller closes the key.
func Open(ctx context.Context, s Source) (*Key, error) {
	key, err := s.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", s.Name, err)
	}
	key.name = s.Name
	return key, nil
}

func (s Source) open(ctx context.Context) (*Key, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	pinned, err := s.pinned()
	if err != nil {
		return nil, err
	}
	if s.File == "" {
		return s.openRemote(ctx, pinned)
	}
	key, err := LoadFile(s.File, s.PasswordFile) //nolint:contextcheck // a file's key waits for nothing
	if err != nil {
		return nil, err
	}
	return key, s.matches(key.public, pinned)
}

func (s Source) check() error {
	set := 0
	for _, is := range []bool{s.File != "", s.KMS != "", s.PKCS11 != PKCS11Options{}} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New("want exactly one of a file, a KMS and PKCS #11")
	case s.MaxCalls < 0:
		return fmt.Errorf("at most %d calls at a time: want 0 or more", s.MaxCalls)
	case s.Timeout < 0:
		return fmt.Errorf("timeout of %s: want 0 or more", s.Timeout)
	case s.PasswordFile != "" && s.File == "":
		return errors.New("a password file goes with a key file alone")
	case strings.ContainsAny(s.KMS, "@?# "):
		// It is shown in errors, so that no credentials may be in it.
		return errors.New("the KMS reference holds one of @?# or a blank: credentials and options are no part of it")
	}
	return nil
}

func (s Source) pinned() (PublicKey, error) {
	if s.PublicKeyFile == "" {
		return PublicKey{}, nil
	}
	data, err := os.ReadFile(s.PublicKeyFile)
	if err != nil {
		return PublicKey{}, fmt.Errorf("pinned public key: %w", err)
	}
	key, err := ParsePublicKey(data)
	if err != nil {
		return PublicKey{}, fmt.Errorf("pinned public key: %s: %w", s.PublicKeyFile, err)
	}
	return key, nil
}

func (s Source) matches(public, pinned PublicKey) error {
	if pinned.IsZero() || pinned.ID() == public.ID() {
		return nil
	}
	return fmt.Errorf("its public key %s is not the one in %s (%s): point it at the right key, or replace that file if the key was changed "+
		"on purpose; then restart", public.ID(), s.PublicKeyFile, pinned.ID())
}

// openRemote opens a key of a KMS or HSM.
func (s Source) openRemote(ctx context.Context, pinned PublicKey) (*Key, error) {
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	there, where, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	key, err := s.prepare(ctx, newCalls(s.MaxCalls, s.Timeout, there), where, pinned)
	switch {
	case err == nil:
		return key, nil
	case pinned.IsZero() && isAway(err):
		err = fmt.Errorf("%w (set public_key_file to start without it)", err)
	}
	return nil, errors.Join(fmt.Errorf("%s: %w", where, err), there.close())
}

// connect gives the far side of a key, and what to call it in errors.
func (s *Source) connect(ctx context.Context) (there remote, where string, err error) {
	if s.KMS != "" {
		s.MaxCalls = defaultTo(s.MaxCalls, defaultKMSCalls)
		there, err = openKMS(ctx, *s)
		return there, s.KMS, err
	}
	s.MaxCalls = defaultTo(s.MaxCalls, defaultPKCS11Calls)
	there, err = openPKCS11(s.PKCS11)
	return there, "token " + s.PKCS11.Token, err
}

func defaultTo(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// prepare makes a key and proves it. If the other side does not answer now or refuses the credentials, a pinned key is proven later.
func (s Source) prepare(ctx context.Context, c *calls, where string, pinned PublicKey) (*Key, error) {
	public := pinned
	if pinned.IsZero() {
		var err error
		if public, err = ask(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := c.there.fits(public.key); err != nil {
		return nil, err
	}
	p := newProof(c, where, func(ctx context.Context) error { return s.confirm(ctx, c, public) })
	if err := p.try(ctx); err == nil || !pinned.IsZero() && (isAway(err) || isRefused(err)) {
		p.settle(err)
	} else {
		return nil, err
	}
	key := &Key{public: public, deterministic: !randomized(public), close: c.close, name: s.Name, proof: p}
	key.sign = func(ctx context.Context, payload []byte) ([]byte, error) {
		if err := p.require(ctx); err != nil {
			return nil, fmt.Errorf("%s: unproven since the start: %w", where, err)
		}
		signature, err := c.sign(ctx, public, payload)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		return signature, nil
	}
	return key, nil
}

// ask asks for the public key. It gives errNoPublicKey if the other side can sign but not tell it.
func ask(ctx context.Context, c *calls) (PublicKey, error) {
	asked, err := c.publicKey(ctx)
	switch {
	case errors.Is(err, errNoPublicKey):
		return PublicKey{}, err
	case err != nil:
		return PublicKey{}, fmt.Errorf("asking for the public key: %w", err)
	}
	return newPublicKey(asked)
}

// confirm finds out that the other side signs with the private key of public: by a trial signature, and before that, if public is
// pinned, by what the other side says its public key is.
func (s Source) confirm(ctx context.Context, c *calls, public PublicKey) error {
	if s.PublicKeyFile != "" {
		asked, err := ask(ctx, c)
		if err == nil {
			err = s.matches(asked, public)
		}
		if err != nil && !errors.Is(err, errNoPublicKey) { // if it cannot tell, the trial signature alone decides
			return err
		}
	}
	return prove(public, func(probe []byte) ([]byte, error) { return c.sign(ctx, public, probe) })
}
