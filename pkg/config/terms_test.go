package config_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
)

// twoKeys is a signer with two active keys.
const twoKeys = `
harbor: {url: https://h, username: u, secret_file: s}
queue: {urls: ['nats://q']}
keys:
  - {name: images, file: k}
  - {name: payments, kms: 'hashivault://payments', vault: {address: 'https://vault:8200/', token_file: t}, max_calls: 4, timeout: 3s, public_key_file: p}
sign:
  key: images
  format: legacy
  annotations: {com.example/team.name: "a=b, c", empty: ""}
`

func TestTermsOfTheSigner(t *testing.T) {
	want := policy.Terms{
		Format: policy.FormatLegacy, Key: "images", Annotations: map[string]string{"com.example/team.name": "a=b, c", "empty": ""},
		Transparency: policy.TransparencyOff, Timestamp: policy.TimestampOff,
	}
	if got := loadSigner(t, twoKeys).Terms(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// declared has a policy for each thing that one may say.
const declared = minimalReceiver + `
keys: [{name: images, public_key_file: k}, {name: old, public_key_file: o, state: verify-only}]
policies:
  - {projects: [pci-1], backfill: "since:2026-01-31T00:00:00Z", mode: observe}
  - projects: [pci-*]
    backfill: all
    repositories: {include: ["team/**"], exclude: ["team/scratch/*"]}
    tags: {include: ["v*"], exclude: ["*-dev"]}
    untagged: exclude
    format: both
    key: images
    annotations: {scope: pci}
    transparency: deferred
    log: rekor
    timestamp: required
    canary: true
    rate: {per_second: 0.5, burst: 3}
    max_in_flight: 4
    resign_on_rotation: true
    restore: alert
    exemptions:
      - {repository: team/old, approver: jane, reason: goes away, expires: 2026-12-31T00:00:00Z}
      - {digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", approver: j, reason: r, expires: "2027-01-01T00:00:00+01:00"}
  - {projects: [lab], backfill: all, annotations: {}, blocks: [{digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", reason: CVE-1}]}
`

func TestDeclaredPolicies(t *testing.T) {
	set, err := loadReceiver(t, declared).Declared()
	if err != nil {
		t.Fatal(err)
	}
	got, found := set.Lookup("pci-2")
	want := policy.Policy{
		Project: "pci-2", Mode: policy.ModeSign, Manager: policy.ByConfig, Revision: set.Revision(),
		Terms: policy.Terms{
			Format: policy.FormatBoth, Key: "images", Annotations: map[string]string{"scope": "pci"}, ActiveKeyOnly: true,
			Transparency: policy.TransparencyDeferred, Log: "rekor", Timestamp: policy.TimestampRequired,
		},
		Canary:       true,
		Repositories: policy.Globs{Include: []string{"team/**"}, Exclude: []string{"team/scratch/*"}},
		Tags:         policy.Globs{Include: []string{"v*"}, Exclude: []string{"*-dev"}},
		Untagged:     policy.UntaggedExclude, Restore: policy.RestoreAlert, Rate: policy.Rate{PerSecond: 0.5, Burst: 3}, MaxInFlight: 4,
		Exemptions: []policy.Exemption{
			{Repository: "team/old", Approver: "jane", Reason: "goes away", Expires: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)},
			{
				Digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Approver: "j", Reason: "r",
				Expires: time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC),
			},
		},
	}
	if !found || !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if first, _ := set.Lookup("pci-1"); first.Mode != policy.ModeObserve || !first.From.Equal(time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("the first entry that names a project counts: got %+v", first)
	}
	if lab, _ := set.Lookup("lab"); len(lab.Blocks) != 1 || lab.Blocks[0].Reason != "CVE-1" || lab.Blocks[0].By != "config" {
		t.Errorf("the block: got %+v", lab.Blocks)
	}
	if lab, _ := set.Lookup("lab"); lab.Terms.Annotations == nil || len(lab.Terms.Annotations) != 0 {
		t.Errorf("no annotations, which is not the same as leaving them open: got %v", lab.Terms.Annotations)
	}
	if _, found := set.Lookup("other"); found {
		t.Error("other: got a policy, want only what the file names")
	}
}

func TestWrongPolicies(t *testing.T) {
	_, err := config.LoadReceiver(write(t, minimalReceiver+`
keys: [{name: images, public_key_file: k}, {name: old, public_key_file: o, state: verify-only}]
policies:
  - {format: best, key: nobody, backfill: none}
  - {projects: [pci-*, Shop, '['], backfill: all, annotations: {a: 1}, rate: {per_second: .nan}}
  - {projects: [a], backfill: "since:yesterday", key: old, formt: bundle, tags: {include: ['[']}, mode: maybe, transparency: on, log: "a\u0007", timestamp: always}
  - {projects: [a], backfill: all, exemptions: [{expires: tomorrow, approver: a}, {repository: a, reason: r, expires: 2026-12-31T00:00:00Z}], blocks: [{digest: a}]}
`), nil)
	want := []string{
		"policies[1].annotations: want a mapping of texts; put numbers and the like into quotes",
		"policies[2].formt: unknown key",
		"policies[3].exemptions[0].expires: want a time such as 2026-12-31T00:00:00Z",
		"policies[0].projects: want at least one entry",
		"policies[0].format: want one of auto, legacy, bundle, both",
		"policies[0].key: want the name of a key whose state is active",
		"policies[0].backfill: is required: want all, or since: and a time such as since:2026-01-31T00:00:00Z: which of the images that are there already are signed",
		"policies[1].projects[1]: want the name of a Harbor project, or a glob such as team-*",
		"policies[1].projects[2]: want the name of a Harbor project, or a glob such as team-*",
		"policies[1].rate.per_second: want 0 to 10000",
		"policies[2].log: want the name of a configured log, of at most 64 bytes",
		"policies[2].mode: want one of off, observe, sign",
		"policies[2].tags.include[0]: want a glob such as team/**, of at most 256 bytes",
		"policies[2].timestamp: want one of off, optional, required",
		"policies[2].transparency: want one of off, required, deferred",
		"policies[2].key: want the name of a key whose state is active",
		"policies[2].backfill: is required: want all, or since: and a time such as since:2026-01-31T00:00:00Z: which of the images that are there already are signed",
		"policies[3].exemptions[0].reason: want why, in at most 500 bytes",
		"policies[3].exemptions[0]: want a repository, a digest or both: set the mode to off to exempt everything",
		"policies[3].exemptions[1].approver: want who approved it, in at most 500 bytes",
		"policies[3].blocks[0].digest: want sha256: and 64 lower-case hexadecimal digits",
		"policies[3].blocks[0].reason: want why, in at most 500 bytes",
	}
	if got := problemsOf(err); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// Whoever upgrades is told where the keys have gone.
func TestKeysThatHaveMoved(t *testing.T) {
	_, err := config.LoadReceiver(write(t, minimalReceiver+"projects: [a]\n"), nil)
	want := []string{"projects: unknown key: write policies: [{projects: [...], backfill: all}]"}
	if got := problemsOf(err); !slices.Equal(got, want) {
		t.Errorf("receiver: got %q, want %q", got, want)
	}
	_, err = config.LoadSigner(write(t, minimalSigner+"projects: [a]\npolicies: [{projects: [a]}]\nsweep: {interval: 5m}\n"), nil)
	want = []string{
		"sweep.interval: unknown key: it is sweep.full now, and sweep.incremental for the newest pushes",
		"policies: unknown key: policies stand in the receiver's configuration, or are set through its API",
		"projects: unknown key: policies stand in the receiver's configuration, or are set through its API",
	}
	if got := problemsOf(err); !slices.Equal(got, want) {
		t.Errorf("signer: got %q, want %q", got, want)
	}
}

func TestHarborOfTheReceiver(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"by hand", "harbor: {public_host: h}\nwebhook: {secret_files: [s]}\n", ""},
		{"managed", "harbor: {url: 'https://h', username: u, secret_file: s}\nwebhook: {url: 'https://r', master_secret_files: [m]}\n", ""},
		{"no url", "harbor: {public_host: h, username: u}\nwebhook: {secret_files: [s]}\n", "harbor.url: is required beside username"},
		{
			"nothing of the rest", "harbor: {url: 'https://h'}\n",
			"harbor.username: is required\nharbor.secret_file: is required\nwebhook.master_secret_files: want at least one entry\nwebhook.url: is required",
		},
		{
			"secrets without Harbor", "harbor: {public_host: h}\nwebhook: {master_secret_files: [m], secret_files: [s]}\n",
			"harbor.url: is required beside webhook.master_secret_files and webhook.url",
		},
		{"no secret at all", "harbor: {public_host: h}\n", "webhook.secret_files: want at least one entry"},
		{
			"no budget", "harbor: {public_host: h}\nwebhook: {secret_files: [s], rate: {per_second: 0, burst: 0}}\n",
			"webhook.rate.per_second: want more than 0 and at most 10000\nwebhook.rate.burst: want 1 to 100000",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			const rest = "http: {allow_plain_http: true}\nqueue: {embedded: {users: [{name: s, password_file: p}]}}\n"
			_, err := config.LoadReceiver(write(t, rest+c.yaml), nil)
			if got := strings.Join(problemsOf(err), "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
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
