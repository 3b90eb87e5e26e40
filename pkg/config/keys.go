package config

import (
	"encoding/hex"
	"net/url"
	"strings"
	"time"
)

// KeyState is what a key may be used for.
type KeyState string

const (
	// Active keys sign, and their signatures are valid.
	Active KeyState = "active"
	// VerifyOnly keys sign no more; the signatures that they made stay valid.
	VerifyOnly KeyState = "verify-only"
	// Revoked keys make no signature valid.
	Revoked KeyState = "revoked"
)

// PublicKey is a key that the receiver tells others about.
type PublicKey struct {
	Name          string   `key:"name"`
	PublicKeyFile string   `key:"public_key_file,file"`
	State         KeyState `key:"state" default:"active"`
}

// Key is a key of the signer. An active one has exactly one of File, KMS, PKCS11 and Fulcio; every other one has
// PublicKeyFile alone, or what of Fulcio says whose certificates count.
type Key struct {
	Name  string   `key:"name"`
	State KeyState `key:"state" default:"active"`
	// File is a cosign key, encrypted with the password in PasswordFile; without PasswordFile it is PKCS #8 in PEM, not
	// encrypted.
	File         string `key:"file,file"`
	PasswordFile string `key:"password_file,file"`
	// KMS names a key as sigstore's providers do: one of hashivault, awskms, gcpkms and azurekms, "://" and the rest.
	KMS string `key:"kms"`
	// Vault is set where KMS begins with "hashivault://", and nowhere else.
	Vault Vault `key:"vault"`
	// AWS may be set where KMS begins with "awskms://", and nowhere else.
	AWS    AWS    `key:"aws"`
	PKCS11 PKCS11 `key:"pkcs11"`
	Fulcio Fulcio `key:"fulcio"`
	// CAFile holds further authorities of the KMS in PEM; empty for those of the system alone. It may be set where KMS begins
	// with "hashivault://" or "awskms://": the clients of the others dial by themselves.
	CAFile string `key:"ca_file,file"`
	// PublicKeyFile is required for a key that is not active. For an active one in a KMS or an HSM it is what the public
	// key has to be.
	PublicKeyFile string `key:"public_key_file,file"`
	// MaxCalls is how many calls to the KMS or HSM run at once; 0 is 8 for a KMS and 4 for an HSM. It may be set for active
	// keys in a KMS or HSM alone.
	MaxCalls int `key:"max_calls" default:"0"`
	// Timeout bounds one call to the KMS, HSM or Fulcio. It may be set for active keys there alone.
	Timeout time.Duration `key:"timeout" default:"10s"`
}

// Vault is how HashiCorp Vault or OpenBao is reached.
type Vault struct {
	// Address is an origin: scheme, host and port.
	Address   string `key:"address"`
	TokenFile string `key:"token_file,file"`
	// TransitPath is where the transit engine is mounted; "transit" if the file has none.
	TransitPath string `key:"transit_path"`
	// Namespace is that of Vault Enterprise; empty for none.
	Namespace string `key:"namespace"`
	// KeyVersion is the version that signs; 0 for the newest. It needs Key.PublicKeyFile.
	KeyVersion int `key:"key_version" default:"0"`
}

// AWS is what the reference of a key does not say; the machine's role and variables settle what is left open.
type AWS struct {
	Region string `key:"region"`
	// CredentialsFile is in the format of ~/.aws/credentials.
	CredentialsFile string `key:"credentials_file,file"`
	Profile         string `key:"profile"`
}

// PKCS11 names a key in an HSM.
type PKCS11 struct {
	// Module is the path of the vendor's library.
	Module string `key:"module,file"`
	// Token and Key are labels. ID is the key's in hexadecimal, beside its label or in place of it.
	Token   string `key:"token"`
	Key     string `key:"key"`
	ID      string `key:"id"`
	PINFile string `key:"pin_file,file"`
}

func checkPublicKeys(keys []PublicKey, p *problems) {
	seen := make(names)
	for i, key := range keys {
		at := entry("keys", i)
		seen.take(p, at+".name", "keys", key.Name)
		p.required(at+".public_key_file", key.PublicKeyFile)
		p.keyState(at+".state", key.State)
	}
}

// completeKeys gives the names of the active keys.
func (c *Signer) completeKeys(seen names, given map[string]any, p *problems) []string {
	var active []string
	for i := range c.Keys {
		key, at := &c.Keys[i], entry("keys", i)
		seen.take(p, at+".name", "keys", key.Name)
		p.keyState(at+".state", key.State)
		if key.State == Active {
			active = append(active, key.Name)
			key.completeSource(at, p)
		} else {
			key.checkPublic(at, p)
		}
		key.checkCalls(at, givenEntry(given, "keys", i), p)
	}
	if len(active) == 0 {
		p.add("keys", "want at least one key whose state is active")
	}
	return active
}

// checkPublic wants nothing but the public key: a key that signs no more has no business in a process that can be
// attacked.
func (k *Key) checkPublic(at string, p *problems) {
	private := false
	for _, given := range []struct {
		key string
		set bool
	}{
		{"file", k.File != ""},
		{"password_file", k.PasswordFile != ""},
		{"kms", k.KMS != ""},
		{"vault", k.Vault != Vault{}},
		{"aws", k.AWS != AWS{}},
		{"pkcs11", k.PKCS11 != PKCS11{}},
		{"ca_file", k.CAFile != ""},
	} {
		if given.set {
			private = true
			p.add(join(at, given.key), "belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity")
		}
	}
	switch {
	case k.Keyless():
		k.Fulcio.checkRetired(at+".fulcio", p)
		if k.PublicKeyFile != "" {
			p.add(at+".public_key_file", "excludes fulcio: an identity has another key in each certificate")
		}
	case !private:
		p.required(at+".public_key_file", k.PublicKeyFile)
	}
}

// checkCalls wants limits of calls where there are calls. The limits have defaults, so that only the given entry tells
// whether somebody set them.
func (k *Key) checkCalls(at string, given map[string]any, p *problems) {
	held := k.State == Active && (k.KMS != "" || k.PKCS11 != PKCS11{})
	if held {
		p.count(at+".max_calls", k.MaxCalls, 0, 1024)
	} else if isGiven(given, "max_calls") {
		p.add(at+".max_calls", "belongs to active keys in a KMS or HSM")
	}
	if held || k.State == Active && k.Keyless() {
		p.between(at+".timeout", k.Timeout, 100*time.Millisecond, 5*time.Minute)
	} else if isGiven(given, "timeout") {
		p.add(at+".timeout", "belongs to active keys in a KMS or HSM, or of Fulcio")
	}
}

// completeSource wants one place that the key is in, and all that the place needs.
func (k *Key) completeSource(at string, p *problems) {
	sources := 0
	for _, given := range []bool{k.File != "", k.KMS != "", k.PKCS11 != PKCS11{}, k.Keyless()} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		p.add(at, "want exactly one of file, kms, pkcs11 and fulcio for an active key")
		return
	}
	if k.PasswordFile != "" && k.File == "" {
		p.add(at+".password_file", "belongs to file")
	}
	if k.File != "" && k.PublicKeyFile != "" {
		p.add(at+".public_key_file", "belongs to keys that do not sign, and to those of a KMS or HSM; a file brings its own public key")
	}
	if k.Keyless() {
		k.Fulcio.check(at+".fulcio", p)
		if k.PublicKeyFile != "" {
			p.add(at+".public_key_file", "excludes fulcio: an identity has another key in each certificate")
		}
	}
	if k.KMS != "" {
		p.kms(at+".kms", k.KMS)
	}
	if k.CAFile != "" && !strings.HasPrefix(k.KMS, "hashivault://") && !strings.HasPrefix(k.KMS, "awskms://") {
		p.add(at+".ca_file", "belongs to keys whose kms begins with hashivault:// or awskms://")
	}
	k.Vault.complete(at+".vault", strings.HasPrefix(k.KMS, "hashivault://"), p)
	if k.Vault.KeyVersion != 0 {
		p.required(at+".public_key_file", k.PublicKeyFile)
	}
	if (k.AWS != AWS{}) && !strings.HasPrefix(k.KMS, "awskms://") {
		p.add(at+".aws", "belongs to keys whose kms begins with awskms://")
	}
	if k.PKCS11 != (PKCS11{}) {
		p.path(at+".pkcs11.module", k.PKCS11.Module)
		p.required(at+".pkcs11.token", k.PKCS11.Token)
		if k.PKCS11.Key == "" && k.PKCS11.ID == "" {
			p.add(at+".pkcs11.key", "is required, or id")
		}
		if _, err := hex.DecodeString(k.PKCS11.ID); err != nil {
			p.add(at+".pkcs11.id", "want hexadecimal digits")
		}
		p.required(at+".pkcs11.pin_file", k.PKCS11.PINFile)
	}
}

// complete wants an address and a token, although the provider would take them from variables and from the home folder:
// what the service talks to stands in its configuration.
func (v *Vault) complete(at string, used bool, p *problems) {
	if !used {
		if *v != (Vault{}) {
			p.add(at, "belongs to keys whose kms begins with hashivault://")
		}
		return
	}
	p.server(at+".address", v.Address, "https://vault.example.com:8200", false)
	p.required(at+".token_file", v.TokenFile)
	p.count(at+".key_version", v.KeyVersion, 0, 1<<30)
	if v.TransitPath == "" {
		v.TransitPath = "transit"
	}
}

// kms wants the scheme of a provider; what follows it is the provider's to judge. The sentence of url.Parse would repeat
// the reference.
func (p *problems) kms(path, reference string) {
	u, err := url.Parse(reference)
	known := false
	if err == nil && !strings.ContainsAny(reference, "?# ") {
		switch u.Scheme {
		case "hashivault", "awskms", "gcpkms", "azurekms":
			known = u.Host+u.Path != ""
		}
	}
	switch {
	case !known:
		p.add(path, "want hashivault://, awskms://, gcpkms:// or azurekms:// and the key")
	case strings.Contains(reference, "@"):
		p.add(path, "must not carry credentials")
	}
}
