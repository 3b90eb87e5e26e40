package config_test

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
)

// withoutKeys is a signer but for its keys.
const withoutKeys = "harbor: {url: 'https://h', username: u, secret_file: s}\nqueue: {urls: ['nats://q']}\n"

const (
	rekor1    = "{name: r1, type: rekor-v1, url: 'https://r1', public_key_file: /r1.pub}"
	rekor2    = "{name: r2, type: rekor-v2, url: 'https://r2', public_key_file: /r2.pub, origin: r2}"
	authority = "{name: tsa, url: 'https://t/api/v1/timestamp', certificate_chain_file: /t.pem}"
	file      = "{name: k, file: /k}"
	identity  = "{name: id, fulcio: {url: 'https://f', roots_file: /f.pem, token_file: /token, issuer: 'https://i', subject: s}}"
)

func TestLogsAndAuthorities(t *testing.T) {
	got := loadSigner(t, withoutKeys+`
keys: [`+file+`]
logs:
  - {name: r1, type: rekor-v1, url: 'http://127.0.0.1:3000', ca_file: ca.pem, public_key_file: r1.pub, timeout: 7s, state: verify-only}
  - `+rekor2+`
timestamp_authorities: [{name: old, url: 'https://o', certificate_chain_file: o.pem, state: verify-only}, `+authority+`]
sign: {transparency: deferred, log_concurrency: 9}
canary: {username: c, secret_file: /c}
probe: {interval: 5s}
egress: {resolver: '10.0.0.53:53'}
`, "HARBORSEAL_LOGS_1_TIMEOUT=1m", "HARBORSEAL_LOGS_1_TILES_URL=https://tiles/below", "HARBORSEAL_TIMESTAMP_AUTHORITIES_1_TIMEOUT=2s", "HARBORSEAL_CANARY_INTERVAL=5m")
	dir := filepath.Dir(got.Logs[0].CAFile)
	wantLogs := []config.TransparencyLog{
		{
			Name: "r1", Type: policy.RekorV1, URL: "http://127.0.0.1:3000", CAFile: filepath.Join(dir, "ca.pem"),
			PublicKeyFile: filepath.Join(dir, "r1.pub"), Timeout: 7 * time.Second, State: config.VerifyOnly,
		},
		{
			Name: "r2", Type: policy.RekorV2, URL: "https://r2", PublicKeyFile: "/r2.pub", Origin: "r2",
			TilesURL: "https://tiles/below", Timeout: time.Minute, State: config.Active,
		},
	}
	if !reflect.DeepEqual(got.Logs, wantLogs) || dir == "." {
		t.Errorf("logs: got\n%+v\nwant\n%+v", got.Logs, wantLogs)
	}
	active, found := got.ActiveAuthority()
	wantActive := config.TimestampAuthority{
		Name: "tsa", URL: "https://t/api/v1/timestamp", CertificateChainFile: "/t.pem", Timeout: 2 * time.Second, State: config.Active,
	}
	if !found || active != wantActive {
		t.Errorf("active authority: got %+v, want %+v", active, wantActive)
	}
	wantTerms := policy.Terms{
		Format: policy.FormatAuto, Key: "k", Transparency: policy.TransparencyDeferred, Log: "r2", Timestamp: policy.TimestampOptional,
	}
	if terms := got.Terms(); !reflect.DeepEqual(terms, wantTerms) {
		t.Errorf("terms: got %+v, want %+v", terms, wantTerms)
	}
	if got.Sign.LogConcurrency != 9 || !got.Canary.Enabled() || got.Canary.Interval != 5*time.Minute || got.Probe.Interval != 5*time.Second ||
		got.Egress.Resolver != "10.0.0.53:53" {
		t.Errorf("got %+v, %+v, %+v, %+v; want the values of the file", got.Sign, got.Canary, got.Probe, got.Egress)
	}
}

// Nothing is sent to anybody who was not named.
func TestNothingPublicByDefault(t *testing.T) {
	got := loadSigner(t, withoutKeys+"keys: ["+file+"]\n")
	if len(got.Logs) != 0 || len(got.TimestampAuthorities) != 0 || got.Sign.Log != "" || got.Keys[0].Keyless() {
		t.Errorf("got %+v, %+v, %+v; want no log, no authority and no identity", got.Logs, got.TimestampAuthorities, got.Sign)
	}
	for file, keys := range allLeaves(t) {
		for _, l := range keys {
			if strings.Contains(l.fallback, "sigstore") || strings.Contains(l.fallback, "://") {
				t.Errorf("%s: %s: got the default %q, want no address", file, l.path, l.fallback)
			}
		}
	}
}

func TestMeans(t *testing.T) {
	c := loadSigner(t, withoutKeys+"keys: ["+file+", "+identity+", {name: gone, state: revoked, fulcio: {roots_file: /f, issuer: i, subject: s}}]\nsign: {key: k, log: r1}\nlogs: ["+
		rekor1+", "+rekor2+", {name: old, type: rekor-v1, url: 'https://o', public_key_file: /o, state: verify-only}]\n")
	for _, tt := range []struct {
		name  string
		terms policy.Terms
		want  policy.Means
	}{
		{"nothing", policy.Terms{}, policy.Means{}},
		{"a log of Rekor v1", policy.Terms{Log: "r1", Key: "k"}, policy.Means{Log: policy.RekorV1}},
		{"a log of Rekor v2, an identity", policy.Terms{Log: "r2", Key: "id"}, policy.Means{Log: policy.RekorV2, Keyless: true}},
		{"a log that takes no entries, an identity that signs no more", policy.Terms{Log: "old", Key: "gone"}, policy.Means{}},
		{"nobody's names", policy.Terms{Log: "R1", Key: "K"}, policy.Means{}},
	} {
		if got := c.Means(tt.terms); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	c = loadSigner(t, withoutKeys+"keys: ["+file+"]\ntimestamp_authorities: ["+authority+"]\n")
	if got := c.Means(policy.Terms{}); !got.Timestamps {
		t.Errorf("with an active authority: got %+v, want timestamps", got)
	}
	c.TimestampAuthorities[0].State = config.VerifyOnly
	if got := c.Means(policy.Terms{}); got.Timestamps {
		t.Errorf("without an active authority: got %+v, want no timestamps", got)
	}
}

func TestTransparencyProblems(t *testing.T) {
	const keys = "keys: [" + file + "]\n"
	for _, c := range []struct {
		name, content string
		want          []string
	}{
		{"nothing but entries", keys + "logs: [{}, {type: rekor-v2}]\ntimestamp_authorities: [{}]\n", []string{
			"logs[0].name: is required",
			"logs[0].type: want one of rekor-v1, rekor-v2",
			"logs[0].url: is required",
			"logs[0].public_key_file: is required",
			"logs[1].name: is required",
			"logs[1].url: is required",
			"logs[1].public_key_file: is required",
			"logs[1].origin: is required",
			"timestamp_authorities[0].name: is required",
			"timestamp_authorities[0].url: is required",
			"timestamp_authorities[0].certificate_chain_file: is required",
			"sign.log: is required where several logs are active",
		}},
		{"wrong values", keys + `
logs:
  - {name: "a b", type: rekor-v3, url: 'http://r:3000', public_key_file: p, origin: o, tiles_url: 'https://t', timeout: 1ms, state: revoked}
  - {name: r, type: rekor-v2, url: 'https://u:hunter2@r', public_key_file: p, origin: "a\n", tiles_url: 'ftp://t', timeout: 1h, state: verify-only}
  - {name: s, type: rekor-v2, url: 'https://r/below', public_key_file: p, origin: o, tiles_url: 'http://tiles', state: verify-only}
timestamp_authorities:
  - {name: t, url: 'https://t?a=b', certificate_chain_file: p, timeout: 1ms, state: revoked}
  - {name: u, url: 'http://t', certificate_chain_file: p}
sign: {transparency: maybe, timestamp: never, log_concurrency: 0, max_in_flight: 0, log: s}
canary: {secret_file: p, interval: 1s}
probe: {interval: 1ms}
egress: {resolver: 'dns.example.com:53'}
`, []string{
			"logs[0].name: want 1 to 64 of a-z, A-Z, 0-9, dot, _ and -",
			"logs[0].type: want one of rekor-v1, rekor-v2",
			"logs[0].url: want https, or http on a loopback address, where an agent may listen",
			"logs[0].timeout: want 1s to 10m0s",
			"logs[0].state: want one of active, verify-only",
			"logs[0].origin: belongs to logs of the type rekor-v2",
			"logs[0].tiles_url: belongs to logs of the type rekor-v2",
			"logs[1].url: must not carry credentials",
			"logs[1].timeout: want 1s to 10m0s",
			"logs[1].origin: want a host without a port, as the log signs its checkpoints, such as rekor.example.com",
			"logs[1].tiles_url: want an address such as https://tiles.example.com",
			"logs[2].url: want scheme, host and port alone",
			"logs[2].tiles_url: want https, or http on a loopback address, where an agent may listen",
			"timestamp_authorities[0].url: want no query and no fragment",
			"timestamp_authorities[0].timeout: want 100ms to 5m0s",
			"timestamp_authorities[0].state: want one of active, verify-only",
			"timestamp_authorities[1].url: want https, or http on a loopback address, where an agent may listen",
			"sign.transparency: want one of off, required, deferred",
			"sign.log: want the name of a log whose state is active",
			"sign.timestamp: want one of off, optional, required",
			"sign.max_in_flight: want 1 to 1024",
			"sign.log_concurrency: want 1 to 10000",
			"canary.username: is required beside secret_file",
			"canary.interval: want 10s to 24h0m0s",
			"probe.interval: want 1s to 5m0s",
			"egress.resolver: want the address and the port of a DNS server, such as 10.0.0.53:53 or [fd00::53]:53",
		}},
		{"names that are taken", "keys: [{name: a, file: k}]\nlogs: [" + strings.ReplaceAll(rekor1, "r1", "a") + ", " + rekor2 + ", " + rekor2 + "]\n" +
			"timestamp_authorities: [" + strings.Replace(authority, "tsa", "r2", 1) + "]\nsign: {log: r2}\ncanary: {username: u, secret_file: p}\n", []string{
			"logs[0].name: is the name of an entry of keys as well",
			"logs[2].name: is the name of an earlier entry as well",
			"timestamp_authorities[0].name: is the name of an entry of logs as well",
			"canary.username: want another account than harbor.username, whose own pushes sweeps look past",
		}},
		{"two authorities", keys + "timestamp_authorities: [" + authority + ", " + strings.Replace(authority, "tsa", "other", 1) + "]\n", []string{
			"timestamp_authorities: want at most one whose state is active; timestamps of one that is verify-only still count",
		}},
		{"identities", `
keys:
  - {name: a, fulcio: {url: 'http://f', ca_file: c}, file: k}
  - {name: b, fulcio: {issuer: i}}
  - {name: c, fulcio: {url: 'http://f/below', roots_file: r, token_file: t, issuer: 'ö', subject: s}, public_key_file: p, password_file: p, ca_file: c, max_calls: 3, timeout: 3s}
  - {name: d, fulcio: {url: 'https://f', ca_file: c, token_file: t, issuer: i}, state: verify-only, public_key_file: p, timeout: 1s}
  - {name: e, state: verify-only}
  - {name: f, file: k}
sign: {key: f}
`, []string{
			"keys[0]: want exactly one of file, kms, pkcs11 and fulcio for an active key",
			"keys[1].fulcio.url: is required",
			"keys[1].fulcio.token_file: is required",
			"keys[1].fulcio.roots_file: is required",
			"keys[1].fulcio.subject: is required",
			"keys[2].password_file: belongs to file",
			"keys[2].fulcio.url: want scheme, host and port alone",
			"keys[2].fulcio.issuer: want what stands in the certificates, in printable ASCII",
			"keys[2].public_key_file: excludes fulcio: an identity has another key in each certificate",
			"keys[2].ca_file: belongs to keys whose kms begins with hashivault:// or awskms://",
			"keys[2].max_calls: belongs to active keys in a KMS or HSM",
			"keys[3].fulcio.url: belongs to active keys alone",
			"keys[3].fulcio.ca_file: belongs to active keys alone",
			"keys[3].fulcio.token_file: belongs to active keys alone",
			"keys[3].fulcio.roots_file: is required",
			"keys[3].fulcio.subject: is required",
			"keys[3].public_key_file: excludes fulcio: an identity has another key in each certificate",
			"keys[3].timeout: belongs to active keys in a KMS or HSM, or of Fulcio",
			"keys[4].public_key_file: is required",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.LoadSigner(write(t, withoutKeys+c.content), nil)
			if got := problemsOf(err); !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

// What nobody could verify is refused here already, unless it depends on Harbor.
func TestUnverifiableTerms(t *testing.T) {
	for _, c := range []struct{ name, keys, logs, authorities, sign, want string }{
		{"no log", file, "", "", "transparency: required", "sign.log: transparency is required, and no signer has an active log by this name: configure it, or set transparency to off"},
		{"deferred without a log", file, "", "", "transparency: deferred", "sign.log: transparency is deferred, and no signer has an active log by this name: configure it, or set transparency to off"},
		{
			"legacy with Rekor v2", file, rekor2, "", "transparency: deferred, format: legacy",
			"sign.transparency: a legacy signature has no place for an entry of Rekor v2: choose the format bundle or both, a log of Rekor v1, or off",
		},
		{"both with Rekor v2", file, rekor2, "", "transparency: required, format: both", ""},
		{"auto with Rekor v2, which depends on Harbor", file, rekor2, "", "transparency: required", ""},
		{"legacy with Rekor v1", file, rekor1, "", "transparency: required, format: legacy", ""},
		{"no authority", file, "", "", "timestamp: required", "sign.timestamp: required, and no signer has an active timestamp authority: configure one, or choose optional or off"},
		{"an authority", file, "", authority, "timestamp: required", ""},
		{"optional without one", file, "", "", "timestamp: optional", ""},
		{
			"an identity alone", identity, "", "", "",
			"sign.timestamp: a keyless signature cannot be verified without a time from Rekor v1 or a timestamp authority: " +
				"choose timestamp required, or transparency required with a log of Rekor v1",
		},
		{
			"an identity, and timestamps that may be missing", identity, "", authority, "",
			"sign.timestamp: a keyless signature cannot be verified without a time from Rekor v1 or a timestamp authority: " +
				"choose timestamp required, or transparency required with a log of Rekor v1",
		},
		{
			"an identity, and entries that are owed", identity, rekor1, "", "transparency: deferred",
			"sign.timestamp: a keyless signature cannot be verified until its entry is in the log: choose timestamp required, or transparency required",
		},
		{"an identity with timestamps", identity, "", authority, "timestamp: required", ""},
		{"an identity with Rekor v1", identity, rekor1, "", "transparency: required", ""},
		{"an identity that is not the default", file + ", " + identity, "", "", "key: k", ""},
		{"off, which YAML may take for false", file, rekor1, authority, "transparency: off, timestamp: off", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.LoadSigner(write(t, withoutKeys+"keys: ["+c.keys+"]\nlogs: ["+c.logs+"]\ntimestamp_authorities: ["+c.authorities+"]\nsign: {"+c.sign+"}\n"), nil)
			if got := strings.Join(problemsOf(err), "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// A file that is missing is told at the start, with the path of its key.
func TestFilesOfLogsAndIdentities(t *testing.T) {
	c := loadSigner(t, withoutKeys+"keys: ["+identity+"]\nlogs: ["+rekor2+"]\ntimestamp_authorities: ["+authority+"]\nsign: {timestamp: required}\n")
	err := config.CheckFiles(c)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"keys[0].fulcio.roots_file: ", "keys[0].fulcio.token_file: ", "logs[0].public_key_file: ", "timestamp_authorities[0].certificate_chain_file: ",
	} {
		if !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("got\n%v\nwant a line for %s", err, want)
		}
	}
}
