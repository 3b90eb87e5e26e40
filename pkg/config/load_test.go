package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
)

const minimalReceiver = `
harbor: {public_host: harbor.example.com}
http: {allow_plain_http: true}
webhook: {secret_files: [webhook]}
queue:
  embedded:
    users: [{name: signer, password_file: nats}]
`

const minimalSigner = `
harbor:
  url: https://Harbor.example.com:8443
  username: robot$harborseal
  secret_file: robot
keys: [{name: k1, file: k1.key, password_file: /etc/k1.password}]
queue: {urls: ["nats://127.0.0.1:4222"]}
`

// write makes a configuration file and gives its path.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadReceiver(t *testing.T, content string, environ ...string) *config.Receiver {
	t.Helper()
	c, err := config.LoadReceiver(write(t, content), environ)
	if err != nil {
		t.Fatalf("LoadReceiver: %v", err)
	}
	return c
}

func loadSigner(t *testing.T, content string, environ ...string) *config.Signer {
	t.Helper()
	c, err := config.LoadSigner(write(t, content), environ)
	if err != nil {
		t.Fatalf("LoadSigner: %v", err)
	}
	return c
}

func TestReceiverDefaults(t *testing.T) {
	path := write(t, minimalReceiver)
	got, err := config.LoadReceiver(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := &config.Receiver{
		Log:    config.Log{Level: "info", Format: "auto"},
		Ops:    config.Ops{Listen: "127.0.0.1:9090"},
		Harbor: config.ReceiverHarbor{Name: "default", PublicHost: "harbor.example.com", Timeout: 15 * time.Second},
		Drift:  config.Drift{Interval: 5 * time.Minute},
		HTTP:   config.HTTP{Listen: "127.0.0.1:8443", AllowPlainHTTP: true, MaxConnections: 2048},
		Webhook: config.Webhook{
			SecretFiles: []string{filepath.Join(dir, "webhook")}, OwnOperators: []string{"robot$harborseal"},
			Rate: config.Rate{PerSecond: 5, Burst: 50},
		},
		Queue: config.ReceiverQueue{
			Queue:   config.Queue{Replicas: 1, AckWait: time.Minute},
			Account: config.Owner,
			Embedded: config.Embedded{
				Enabled: true, StoreDir: "/var/lib/harborseal/nats", Listen: "127.0.0.1:4222", MaxStore: 8 << 30,
				Users: []config.QueueUser{{Name: "signer", PasswordFile: filepath.Join(dir, "nats")}},
			},
		},
		API: config.API{MaxWaiting: 10_000},
		Ledger: config.Ledger{
			Database: config.DatabaseSQLite, SQLite: config.SQLite{Path: "/var/lib/harborseal/ledger.db"},
			Postgres: config.Postgres{Name: "harborseal", Username: "harborseal", Schema: "harborseal", MaxConnections: 8},
			MaxAge:   400 * 24 * time.Hour, Checkpoint: config.Checkpoint{Interval: time.Minute, VerifyInterval: 24 * time.Hour},
		},
		Probe:    config.Probe{Interval: 15 * time.Second},
		Shutdown: config.Shutdown{Drain: 20 * time.Second},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSignerDefaults(t *testing.T) {
	path := write(t, minimalSigner)
	got, err := config.LoadSigner(path, []string{"PATH=/bin", "HOME"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := &config.Signer{
		Log: config.Log{Level: "info", Format: "auto"},
		Ops: config.Ops{Listen: "127.0.0.1:9090"},
		Harbor: config.Harbor{
			Name: "default", URL: "https://Harbor.example.com:8443", PublicHost: "harbor.example.com:8443",
			Username: "robot$harborseal", SecretFile: filepath.Join(dir, "robot"), Timeout: 30 * time.Second,
		},
		Keys: []config.Key{{
			Name: "k1", File: filepath.Join(dir, "k1.key"), PasswordFile: "/etc/k1.password", State: config.Active,
			Timeout: 10 * time.Second,
		}},
		Sign: config.Sign{
			Format: policy.FormatAuto, Key: "k1", Transparency: policy.TransparencyOff, Timestamp: policy.TimestampOff,
			Concurrency: 32, MaxInFlight: 8, LogConcurrency: 256, MaxAge: 24 * time.Hour,
		},
		Sweep:    config.Sweep{Incremental: time.Minute, Full: 24 * time.Hour, PageSize: 100, RequestsPerSecond: 20},
		Canary:   config.Canary{Interval: time.Minute},
		Probe:    config.Probe{Interval: 15 * time.Second},
		Queue:    config.Queue{URLs: []string{"nats://127.0.0.1:4222"}, Replicas: 1, AckWait: time.Minute},
		Shutdown: config.Shutdown{Drain: 20 * time.Second},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEmptyValuesHaveDefaults(t *testing.T) {
	got := loadSigner(t, minimalSigner+"sign:\nsweep: {full: null, page_size: }\n")
	if got.Sign.Concurrency != 32 || got.Sweep.Full != 24*time.Hour || got.Sweep.PageSize != 100 {
		t.Errorf("got sign %+v, sweep %+v; want the defaults", got.Sign, got.Sweep)
	}
}

func TestEmbeddedServerGivesWayToURLs(t *testing.T) {
	content := strings.Replace(minimalReceiver, "queue:\n", "queue:\n  urls: [\"tls://nats.example.com\"]\n  replicas: 3\n", 1)
	if got := loadReceiver(t, content); got.Queue.Embedded.Enabled {
		t.Error("queue.embedded.enabled: got true beside queue.urls, want false")
	}
	if got := loadReceiver(t, minimalReceiver, "HARBORSEAL_QUEUE_URLS=nats://a,nats://b"); got.Queue.Embedded.Enabled {
		t.Error("queue.embedded.enabled: got true beside HARBORSEAL_QUEUE_URLS, want false")
	}
}

func TestWithoutFile(t *testing.T) {
	got, err := config.LoadSigner("", []string{
		"HARBORSEAL_HARBOR_URL=http://harbor.example.com",
		"HARBORSEAL_HARBOR_USERNAME=robot",
		"HARBORSEAL_HARBOR_SECRET_FILE=secret",
		"HARBORSEAL_KEYS_0_NAME=k1",
		"HARBORSEAL_KEYS_0_FILE=/k1.key",
		"HARBORSEAL_KEYS_0_PASSWORD_FILE=/k1.password",
		"HARBORSEAL_QUEUE_URLS=nats://127.0.0.1:4222",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Harbor.SecretFile != "secret" || got.Keys[0].State != config.Active {
		t.Errorf("got secret_file %q and state %q, want %q and %q", got.Harbor.SecretFile, got.Keys[0].State, "secret", config.Active)
	}
}

// A module of PKCS #11 is refused unless its path is absolute, however the configuration's own path was written.
func TestPathsAreAbsolute(t *testing.T) {
	path := write(t, minimalSigner)
	t.Chdir(filepath.Dir(path))
	want := filepath.Join(filepath.Dir(path), "hsm.so")
	for _, name := range []string{"config.yaml", "./config.yaml", path} {
		got, err := config.LoadSigner(name, []string{
			"HARBORSEAL_KEYS_0_FILE=", "HARBORSEAL_KEYS_0_PASSWORD_FILE=",
			"HARBORSEAL_KEYS_0_PKCS11_MODULE=hsm.so", "HARBORSEAL_KEYS_0_PKCS11_TOKEN=t", "HARBORSEAL_KEYS_0_PKCS11_KEY=k",
			"HARBORSEAL_KEYS_0_PKCS11_PIN_FILE=pin",
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := got.Keys[0].PKCS11.Module; got != want {
			t.Errorf("%s: got the module %s, want %s", name, got, want)
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	if _, err := config.LoadSigner(filepath.Join(t.TempDir(), "none.yaml"), nil); !os.IsNotExist(unwrap(err)) {
		t.Errorf("no file: got %v, want one that says so", err)
	}
	big := write(t, "#"+strings.Repeat("x", 1<<20))
	if _, err := config.LoadSigner(big, nil); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("large file: got %v, want its limit", err)
	}
}

func unwrap(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || os.IsNotExist(err) {
			return err
		}
		err = inner.Unwrap()
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text  string
		bytes config.Size
		out   string
	}{
		{"0", 0, "0"},
		{"1", 1, "1"},
		{"1023KiB", 1023 << 10, "1023KiB"},
		{"64MiB", 64 << 20, "64MiB"},
		{"2048GiB", 2 << 40, "2TiB"},
		{"3 TiB", 3 << 40, "3TiB"},
		{"1536", 1536, "1536"},
	} {
		// max_store has a least value, so the ledger's limit is used, with a store that holds it.
		got := loadReceiver(t, minimalReceiver+"ledger: {max_bytes: "+c.text+"}\n", "HARBORSEAL_QUEUE_EMBEDDED_MAX_STORE=9TiB")
		if got.Ledger.MaxBytes != c.bytes || got.Ledger.MaxBytes.String() != c.out {
			t.Errorf("%s: got %d, written %s; want %d, written %s", c.text, got.Ledger.MaxBytes, got.Ledger.MaxBytes, c.bytes, c.out)
		}
	}
}

func TestCheckFiles(t *testing.T) {
	path := write(t, minimalReceiver)
	c, err := config.LoadReceiver(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "webhook"), []byte("s3cr3t"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "nats"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = config.CheckFiles(c)
	if want := "queue.embedded.users[0].password_file: " + filepath.Join(dir, "nats") + " is a folder"; err == nil || err.Error() != want {
		t.Errorf("a folder: got %v, want %s", err, want)
	}
	if err := os.Remove(filepath.Join(dir, "webhook")); err != nil {
		t.Fatal(err)
	}
	if err := config.CheckFiles(c); err == nil || !strings.HasPrefix(err.Error(), "webhook.secret_files[0]: ") {
		t.Errorf("a missing file: got %v, want webhook.secret_files[0]", err)
	}
	for _, name := range []string{"webhook", "nats"} {
		c.Queue.Embedded.Users[0].PasswordFile, c.Webhook.SecretFiles[0] = path, path
		if err := config.CheckFiles(c); err != nil {
			t.Errorf("%s is there: got %v, want none", name, err)
		}
	}
}
