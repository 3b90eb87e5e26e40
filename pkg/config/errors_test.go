package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/config"
)

func problemsOf(err error) []string {
	if err == nil {
		return nil
	}
	_, list, _ := strings.Cut(err.Error(), "\n")
	return strings.Split(list, "\n")
}

func TestSignerProblems(t *testing.T) {
	const key = "keys: [{name: k1, file: k, password_file: p}]\n"
	const rest = "harbor: {url: 'http://h', username: u, secret_file: s}\nqueue: {urls: ['nats://q']}\n"
	for _, c := range []struct {
		name, content string
		want          []string
	}{
		{"nothing at all", "", []string{
			"harbor.url: is required", "harbor.username: is required", "harbor.secret_file: is required",
			"keys: want at least one key whose state is active", "queue.urls: is required",
		}},
		{
			"everything at once", `
harbor: {url: ftp://h, usernam: x, timeout: 5, username: 7, secret_file: [a]}
log: {level: loud, format: xml}
ops: {listen: localhost}
sign: {concurrency: "32", max_age: 1 day}
sweep: {incremental: 1ms, full: 1ms, page_size: 101, requests_per_second: -1}
keys: text
queue: [nats://q]
bogus: {deep: er}
shutdown: {drain: -5s}
`,
			[]string{
				"harbor.username: want text; put numbers and the like into quotes",
				"harbor.secret_file: want text; put numbers and the like into quotes",
				"harbor.timeout: want a duration such as 90s, 5m or 24h",
				"harbor.usernam: unknown key",
				"keys: want a list of mappings",
				"sign.concurrency: want a whole number",
				"sign.max_age: want a duration such as 90s, 5m or 24h",
				"queue: want a mapping of keys",
				"bogus: unknown key",
				"log.level: want one of trace, debug, info, warn, error",
				"log.format: want one of auto, json, console",
				"ops.listen: want host:port, such as 127.0.0.1:8443 or :8443",
				"harbor.url: want an address such as https://harbor.example.com",
				"sweep.incremental: want 1s to 1h0m0s",
				"sweep.full: want 1s to 744h0m0s",
				"sweep.page_size: want 1 to 100",
				"sweep.requests_per_second: want 0 to 10000",
				"shutdown.drain: want 1s to 10m0s",
			},
		},
		{"two active keys", rest + "keys: [{name: a, file: k}, {name: a, file: k}]\n", []string{
			"keys[1].name: is the name of an earlier entry as well",
			"sign.key: is required where several keys are active",
		}},
		{"keys of all sorts", rest + `keys:
  - {name: a, file: k, public_key_file: x}
  - {name: b, file: k, state: verify-only}
  - {state: revoked}
  - {name: d, state: retired, public_key_file: x}
  -
  - 5
  - {name: f, stat: x, state: revoked, public_key_file: x, max_calls: 1025, timeout: 1ms}
  - {name: g, kms: 'awskms:///k', pkcs11: {token: t}, state: revoked, public_key_file: x, vault: {token_file: t}, aws: {region: r}, ca_file: c}
`, []string{
			"keys[4]: want a mapping of keys",
			"keys[5]: want a mapping of keys",
			"keys[6].stat: unknown key",
			"keys[0].public_key_file: belongs to keys that do not sign, and to those of a KMS or HSM; a file brings its own public key",
			"keys[1].file: belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity",
			"keys[2].name: is required",
			"keys[2].public_key_file: is required",
			"keys[3].state: want one of active, verify-only, revoked",
			"keys[6].max_calls: belongs to active keys in a KMS or HSM",
			"keys[6].timeout: belongs to active keys in a KMS or HSM, or of Fulcio",
			"keys[7].kms: belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity",
			"keys[7].vault: belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity",
			"keys[7].aws: belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity",
			"keys[7].pkcs11: belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity",
			"keys[7].ca_file: belongs to active keys alone; this one needs its public_key_file, or fulcio if it is an identity",
		}},
		{"places of keys", rest + `
sign: {key: a}
keys:
  - {name: a}
  - {name: b, file: k, kms: 'hashivault://k'}
  - {name: c, kms: 'hashivault://k'}
  - {name: d, kms: 'hashivault://k', vault: {address: 'https://u:hunter2@v', token_file: t}}
  - {name: e, kms: 'awskms://k', vault: {address: 'https://v'}}
  - {name: f, kms: 'https://u:hunter2@v'}
  - {name: g, kms: 'gcpkms://'}
  - {name: h, kms: 'azurekms://hunter2@v/k', password_file: p}
  - {name: i, pkcs11: {pin_file: p}}
  - {name: j, kms: 'hashivault://k', vault: {address: 'v:8200', token_file: t}}
  - {name: k, kms: 'hashivault://k', vault: {address: 'http://v:8200/v1', token_file: t}}
  - {name: l, kms: 'hashivault://k', vault: {address: 'http://v:8200', token_file: t, key_version: 3}}
  - {name: m, kms: 'hashivault://k', vault: {address: 'http://[::1]:8200', token_file: t, key_version: -1}, public_key_file: p, aws: {profile: p}}
  - {name: n, file: k, ca_file: c}
  - {name: o, pkcs11: {module: m, token: t, id: xy, pin_file: p}}
  - {name: p, kms: 'awskms:///k?region=x', aws: {region: r}}
  - {name: q, kms: 'gcpkms://projects/p', ca_file: c, max_calls: 1025, timeout: 1ms}
  - {name: r, kms: 'azurekms://v/k', ca_file: c, max_calls: 1024, timeout: 100ms}
  - {name: s, kms: 'awskms:///k', ca_file: c}
  - {name: t, file: k, max_calls: 0, timeout: 10s}
  - {name: u, file: k, max_calls: , timeout: }
  - {name: v, pkcs11: {module: m, token: t, key: k, pin_file: p}, max_calls: -1, timeout: 6m}
`, []string{
			"keys[0]: want exactly one of file, kms, pkcs11 and fulcio for an active key",
			"keys[1]: want exactly one of file, kms, pkcs11 and fulcio for an active key",
			"keys[2].vault.address: is required",
			"keys[2].vault.token_file: is required",
			"keys[3].vault.address: must not carry credentials",
			"keys[4].vault: belongs to keys whose kms begins with hashivault://",
			"keys[5].kms: want hashivault://, awskms://, gcpkms:// or azurekms:// and the key",
			"keys[6].kms: want hashivault://, awskms://, gcpkms:// or azurekms:// and the key",
			"keys[7].password_file: belongs to file",
			"keys[7].kms: must not carry credentials",
			"keys[8].pkcs11.module: is required",
			"keys[8].pkcs11.token: is required",
			"keys[8].pkcs11.key: is required, or id",
			"keys[9].vault.address: want an address such as https://vault.example.com:8200",
			"keys[10].vault.address: want scheme, host and port alone",
			"keys[11].vault.address: want https, or http on a loopback address, where an agent may listen",
			"keys[11].public_key_file: is required",
			"keys[12].vault.key_version: want 0 to 1073741824",
			"keys[12].aws: belongs to keys whose kms begins with awskms://",
			"keys[13].ca_file: belongs to keys whose kms begins with hashivault:// or awskms://",
			"keys[14].pkcs11.id: want hexadecimal digits",
			"keys[15].kms: want hashivault://, awskms://, gcpkms:// or azurekms:// and the key",
			"keys[16].ca_file: belongs to keys whose kms begins with hashivault:// or awskms://",
			"keys[16].max_calls: want 0 to 1024",
			"keys[16].timeout: want 100ms to 5m0s",
			"keys[17].ca_file: belongs to keys whose kms begins with hashivault:// or awskms://",
			"keys[19].max_calls: belongs to active keys in a KMS or HSM",
			"keys[19].timeout: belongs to active keys in a KMS or HSM, or of Fulcio",
			"keys[21].max_calls: want 0 to 1024",
			"keys[21].timeout: want 100ms to 5m0s",
		}},
		{"terms", rest + `
keys:
  - {name: a, file: k}
  - {name: b, file: k}
  - {name: old, public_key_file: k, state: verify-only}
sign: {format: cosign, key: old, annotations: {'': x}}
`, []string{
			"sign.format: want one of auto, legacy, bundle, both",
			"sign.key: want the name of a key whose state is active",
			"sign.annotations: want keys of 1 to 256 bytes in UTF-8 without control characters",
		}},
		{"addresses", key + `
harbor: {url: 'https://u:hunter2@h/', username: u, secret_file: s, public_host: 'https://h', user_agent: curl}
queue: {urls: ['nats://u:hunter2@q', 'q:4222', 'nats://q/x', 'nats://q:port', '', 'nats://q:']}
`, []string{
			"harbor.url: must not carry credentials: username and secret_file are keys of their own",
			"harbor.public_host: want a host as image names have it, such as harbor.example.com or harbor.example.com:8443",
			`harbor.user_agent: want the word "cosign" in it: Harbor's pull policy lets nobody else read what is not signed yet`,
			"queue.urls[0]: must not carry credentials: username, password_file and credentials_file are keys of their own",
			"queue.urls[1]: want an address such as nats://nats.example.com:4222 or tls://nats.example.com:4222",
			"queue.urls[2]: want scheme, host and port alone",
			"queue.urls[3]: want an address such as nats://nats.example.com:4222 or tls://nats.example.com:4222",
			"queue.urls[4]: want an address such as nats://nats.example.com:4222 or tls://nats.example.com:4222",
			"queue.urls[5]: want an address such as nats://nats.example.com:4222 or tls://nats.example.com:4222",
		}},
		{"Harbor below a path", key + "harbor: {url: 'https://h/harbor', username: u, secret_file: s}\nqueue: {urls: ['nats://q']}\n", []string{
			"harbor.url: want scheme and host alone: Harbor is not served below a path",
		}},
		{"halves of pairs", key + `
harbor: {url: 'http://h', username: u, secret_file: s, name: Ä}
queue: {urls: ['nats://q'], username: u, credentials_file: c, replicas: 2, ack_wait: 2h, tls: {key_file: k}}
`, []string{
			"harbor.name: want 1 to 32 of a-z, 0-9 and -",
			"queue.credentials_file: exclude queue.username: set one of them",
			"queue.password_file: is required beside username",
			"queue.tls.cert_file: is required beside key_file",
			"queue.replicas: want 1, 3 or 5",
			"queue.ack_wait: want 1s to 1h0m0s",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.LoadSigner(write(t, c.content), nil)
			if got := problemsOf(err); !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

func TestReceiverProblems(t *testing.T) {
	const plain = "http: {allow_plain_http: true}\nharbor: {public_host: h}\n"
	const hook = "webhook: {secret_files: [s]}\n"
	for _, c := range []struct {
		name, content string
		want          []string
	}{
		{"nothing at all", "---\n", []string{
			"harbor.public_host: is required",
			"http.tls: cert_file and key_file are required, unless http.allow_plain_http is true",
			"webhook.secret_files: want at least one entry",
			"queue.embedded.users: want at least one, for the signers",
		}},
		{"half a certificate", hook + "http: {tls: {cert_file: c}, max_connections: 8, trusted_proxies: [10.0.0.0/8, '::1', proxy]}\nharbor: {public_host: h:x}\n" +
			"queue: {urls: ['nats://q']}\n", []string{
			"harbor.public_host: want a host as image names have it, such as harbor.example.com or harbor.example.com:8443",
			"http.tls.key_file: is required beside cert_file",
			"http.max_connections: want 64 to 100000",
			"http.trusted_proxies[2]: want an address or a network, such as 10.1.2.3 or 10.0.0.0/8",
		}},
		{"embedded and others", hook + plain + "queue: {urls: ['nats://q'], replicas: 3, embedded: {enabled: true, max_store: 1MiB, store_dir: ' '," +
			" users: [{name: a}, {name: a, password_file: p}], tls: {client_ca_file: c}}}\nledger: {max_bytes: 2MiB, max_age: 1m, sqlite: {path: ''}}\n", []string{
			"queue.urls: exclude queue.embedded.enabled: the receiver runs its own server, or uses others",
			"queue.replicas: want 1: the embedded server is alone",
			"queue.embedded.store_dir: is required",
			"queue.embedded.max_store: want at least 64MiB",
			"queue.embedded.tls.client_ca_file: needs cert_file and key_file",
			"queue.embedded.users[0].password_file: is required",
			"queue.embedded.users[1].name: is the name of an earlier entry as well",
			"ledger.sqlite.path: is required",
			"ledger.max_age: want 1h0m0s to 876000h0m0s",
			"ledger.max_bytes: want no more than queue.embedded.max_store",
		}},
		{"a ledger for a month", hook + plain + "queue: {urls: ['nats://q']}\nledger: {max_age: 744h}\n", []string{
			"ledger.max_age: want at least 8760h (365 days), for which audit logs are to be kept (PCI DSS 10.5.1), " +
				"or ledger.allow_short_retention: true beside less",
		}},
		{"a ledger for a month that is meant", hook + plain + "queue: {urls: ['nats://q']}\nledger: {max_age: 744h, allow_short_retention: true}\n", nil},
		{"a database that is none", hook + plain + "queue: {urls: ['nats://q']}\nledger: {database: mysql}\n", []string{
			"ledger.database: want one of sqlite, postgres",
		}},
		{"PostgreSQL", hook + plain + "queue: {urls: ['nats://q']}\nledger: {database: postgres, postgres: " +
			"{schema: 'a; b', max_connections: 1, allow_plaintext: true, tls: {cert_file: c}}}\n", []string{
			"ledger.postgres.address: is required",
			"ledger.postgres.schema: want 1 to 40 of a-z, 0-9 and _, and no digit first",
			"ledger.postgres.max_connections: want 2 to 1000",
			"ledger.postgres.tls.key_file: is required beside cert_file",
			"ledger.postgres.allow_plaintext: exclude ledger.postgres.tls: set one of them",
		}},
		{"checkpoints without a key", hook + plain + "queue: {urls: ['nats://q']}\nledger: {checkpoint: " +
			"{file: f, interval: 1ms, verify_interval: 1s, webhook: {url: 'ftp://h'}}}\n", []string{
			"ledger.checkpoint.interval: want 1s to 1h0m0s",
			"ledger.checkpoint.verify_interval: want 1m0s to 744h0m0s",
			"ledger.checkpoint.key_file: is required beside file and webhook: `receiver ledger new-key` makes one",
			"ledger.checkpoint.webhook.url: want the address of a web page without credentials, such as https://vault.example.com/checkpoints",
			"ledger.checkpoint.webhook.secret_file: is required",
		}},
		{"a second place without its address", hook + plain + "queue: {urls: ['nats://q']}\nledger: {checkpoint: " +
			"{key_file: k, webhook: {secret_file: s}}}\n", []string{
			"ledger.checkpoint.webhook.url: is required beside secret_file and ca_file",
		}},
		{"no queue", hook + plain + "queue: {embedded: {enabled: false}}\n", []string{
			"queue.urls: is required where queue.embedded.enabled is false",
		}},
		{"an account without servers", hook + plain + "queue: {account: imported, embedded: {users: [{name: s, password_file: p}]}}\n", []string{
			"queue.account: want owner: the embedded server has one account",
		}},
		{"an account that is none", hook + plain + "queue: {account: mine, urls: ['nats://q']}\n", []string{
			"queue.account: want owner or imported",
		}},
		{"sizes", hook + plain + "queue: {urls: ['nats://q'], embedded: {max_store: 8GB}}\nledger: {max_bytes: 1.5GiB}\n", []string{
			"queue.embedded.max_store: want a size such as 8GiB, 512MiB or a number of bytes",
			"ledger.max_bytes: want a size such as 8GiB, 512MiB or a number of bytes",
		}},
		{"negative size", hook + plain + "queue: {urls: ['nats://q']}\nledger: {max_bytes: -1}\n", []string{
			"ledger.max_bytes: want a size such as 8GiB, 512MiB or a number of bytes",
		}},
		{"size beyond int64", hook + plain + "queue: {urls: ['nats://q']}\nledger: {max_bytes: 9000000TiB}\n", []string{
			"ledger.max_bytes: want a size such as 8GiB, 512MiB or a number of bytes",
		}},
		{"keys", hook + plain + "queue: {urls: ['nats://q']}\nkeys: [{}, {name: a, public_key_file: p, file: k}]\n", []string{
			"keys[1].file: unknown key",
			"keys[0].name: is required",
			"keys[0].public_key_file: is required",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.LoadReceiver(write(t, c.content), nil)
			if got := problemsOf(err); !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

func TestEntriesFromVariables(t *testing.T) {
	for _, c := range []struct {
		name, content, variable, want string
	}{
		{"a gap", minimalSigner, "HARBORSEAL_KEYS_2_FILE", "keys[2]: a variable names this entry, but the list ends before it"},
		{"over what is no list", strings.Replace(minimalSigner, "keys: [", "keys: 5 #[", 1), "HARBORSEAL_KEYS_0_FILE", "keys: want a list of mappings"},
		{"over what is no mapping", strings.Replace(minimalSigner, "keys: [", "keys: [5, ", 1), "HARBORSEAL_KEYS_0_FILE", "keys[0]: want a mapping of keys"},
		{"a limit for a file", minimalSigner, "HARBORSEAL_KEYS_0_MAX_CALLS", "keys[0].max_calls: belongs to active keys in a KMS or HSM"},
		{"below what is no mapping", minimalSigner + "sign: 5\n", "HARBORSEAL_SIGN_CONCURRENCY", "sign: want a mapping of keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.LoadSigner(write(t, c.content), []string{c.variable + "=1"})
			if got := problemsOf(err); !slices.Contains(got, c.want) {
				t.Errorf("got\n  %s\nwant among them\n  %s", strings.Join(got, "\n  "), c.want)
			}
		})
	}
}

func TestBrokenYAML(t *testing.T) {
	for _, c := range []struct {
		name, content, want string
	}{
		{"text at the top", "hunter2\n", "want a mapping of keys at the top"},
		{"list at the top", "[hunter2]\n", "want a mapping of keys at the top"},
		{"two documents", minimalSigner + "---\nlog: {}\n", "want one YAML document; there is something after it"},
		{"a key twice", "log: {}\nlog: {}\n", `line 2: mapping key "log" already defined at line 1`},
		{"a secret as a key, twice", "Hunter2: 1\nHunter2: 1\n", "line 2: cannot be read"},
		{"an unknown anchor", "log: *hunter2\n", "cannot be read"},
		{"bad indentation", "log:\n\tlevel: hunter2\n", "line 2: found character that cannot start any token"},
		{"a tag that does not fit", "log: {level: !!int hunter2}\n", "cannot be read"},
		{"an unfinished list", "projects: [hunter2\n", "line 1: did not find expected ',' or ']'"},
		{"a list as a key", "log: {? [4711] : x}\n", "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.content)
			_, err := config.LoadSigner(path, nil)
			if want := "reading the configuration " + path + ": " + c.want; err == nil || err.Error() != want {
				t.Errorf("got\n  %v\nwant\n  %s", err, want)
			}
		})
	}
}
