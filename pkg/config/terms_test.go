package config_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
)

// twoKeys is a signer with two active keys and a policy for each way to leave something open.
const twoKeys = `
harbor: {url: https://h, username: u, secret_file: s}
queue: {urls: ['nats://q']}
projects: [pci-*, shop, lab]
keys:
  - {name: images, file: k}
  - {name: payments, kms: 'hashivault://payments', vault: {address: 'https://vault:8200/', token_file: t}, max_calls: 4, timeout: 3s, public_key_file: p}
sign:
  key: images
  format: legacy
  annotations: {com.example/team.name: "a=b, c", empty: ""}
policies:
  - {projects: [pci-1], format: bundle}
  - {projects: [pci-*], key: payments, annotations: {scope: pci}}
  - {projects: [lab], annotations: {}}
`

func TestPolicies(t *testing.T) {
	set, err := policy.NewSet(loadSigner(t, twoKeys).Policies())
	if err != nil {
		t.Fatal(err)
	}
	general := map[string]string{"com.example/team.name": "a=b, c", "empty": ""}
	for project, want := range map[string]policy.Terms{
		"shop":  {Format: policy.FormatLegacy, Key: "images", Annotations: general},
		"pci-1": {Format: policy.FormatBundle, Key: "images", Annotations: general},
		"pci-2": {Format: policy.FormatLegacy, Key: "payments", Annotations: map[string]string{"scope": "pci"}},
		"lab":   {Format: policy.FormatLegacy, Key: "images", Annotations: map[string]string{}},
	} {
		got := set.Lookup(project)
		if !got.Enabled || !reflect.DeepEqual(got.Terms, want) {
			t.Errorf("%s: got %+v, want it enabled with %+v", project, got, want)
		}
	}
	if set.Lookup("other").Enabled {
		t.Error("other: got it enabled, want only what projects names")
	}
}

func TestKeysOfAKMS(t *testing.T) {
	key := loadSigner(t, twoKeys).Keys[1]
	if key.Vault.TransitPath != "transit" || key.MaxCalls != 4 || key.Timeout.String() != "3s" || key.State != config.Active {
		t.Errorf("got %+v, want the values of the file, and the defaults", key)
	}
	for _, reference := range []string{
		"awskms:///arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"awskms://localhost:4566/alias/images",
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
		"azurekms://vault.vault.azure.net/images",
	} {
		got := loadSigner(t, strings.Replace(minimalSigner, "file: k1.key, password_file: /etc/k1.password", "kms: '"+reference+"'", 1))
		if got.Keys[0].KMS != reference {
			t.Errorf("got %q, want %q", got.Keys[0].KMS, reference)
		}
	}
	got := loadSigner(t, strings.Replace(minimalSigner, "file: k1.key, password_file: /etc/k1.password",
		"pkcs11: {module: /usr/lib/m.so, token: t, key: k, pin_file: /pin}, public_key_file: /pub", 1))
	if want := (config.PKCS11{Module: "/usr/lib/m.so", Token: "t", Key: "k", PINFile: "/pin"}); got.Keys[0].PKCS11 != want {
		t.Errorf("got %+v, want %+v", got.Keys[0].PKCS11, want)
	}
}

func TestAnnotations(t *testing.T) {
	mapping := func(n, size int) string {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprintf("k%d: %s", i, strings.Repeat("x", size)))
		}
		return "{" + strings.Join(pairs, ", ") + "}"
	}
	for _, c := range []struct{ name, yaml, want string }{
		{"as many and as long as they may be", mapping(32, 256), ""},
		{"too many", mapping(33, 1), "sign.annotations: want at most 32 keys"},
		{"too long", mapping(1, 257), "sign.annotations: want values of at most 256 bytes in UTF-8"},
		{"a long key", "{" + strings.Repeat("x", 257) + ": a}", "sign.annotations: want keys of 1 to 256 bytes in UTF-8 without control characters"},
		{"without quotes", "{a: 1.10}", "sign.annotations: want a mapping of texts; put numbers and the like into quotes"},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.LoadSigner(write(t, minimalSigner+"sign: {annotations: "+c.yaml+"}\n"), nil)
			if got := strings.Join(problemsOf(err), "\n"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAnnotationsFromVariables(t *testing.T) {
	const file = minimalSigner + "sign: {annotations: {from: file}}\n"
	for _, c := range []struct {
		name, value string
		want        map[string]string
	}{
		{"pairs", " a.b = c=d , e = ", map[string]string{"a.b": "c=d", "e": ""}},
		{"none", "", map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := loadSigner(t, file, "HARBORSEAL_SIGN_ANNOTATIONS="+c.value).Sign.Annotations
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	if got := loadSigner(t, file).Sign.Annotations; got["from"] != "file" {
		t.Errorf("without a variable: got %v, want the file's", got)
	}
	for name, c := range map[string]struct{ value, want string }{
		"no pair":     {"hunter2", "sign.annotations: want key=value, and commas between several, each key once"},
		"a key twice": {"hunter2=1,hunter2=2", "sign.annotations: want key=value, and commas between several, each key once"},
		"an end":      {"a=hunter2,", "sign.annotations: want key=value, and commas between several, each key once"},
		"no key":      {"=hunter2", "sign.annotations: want keys of 1 to 256 bytes in UTF-8 without control characters"},
		"no UTF-8":    {"a=\xff", "sign.annotations: want values of at most 256 bytes in UTF-8"},
	} {
		_, err := config.LoadSigner(write(t, file), []string{"HARBORSEAL_SIGN_ANNOTATIONS=" + c.value})
		if got := problemsOf(err); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}
