package config_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/config"
)

// leaf is a key that holds a value, found by reflection and not by the code under test.
type leaf struct {
	// path has "[]" for every entry of a list of mappings: "keys[].file".
	path       string
	typ        reflect.Type
	fallback   string
	hasDefault bool
}

// variable is the name that overrides the key; entries are numbered 0.
func (l leaf) variable() string {
	name := strings.ReplaceAll(strings.ReplaceAll(l.path, "[]", "_0"), ".", "_")
	return "HARBORSEAL_" + strings.ToUpper(name)
}

func leaves(t *testing.T, typ reflect.Type, path string) []leaf {
	t.Helper()
	var all []leaf
	for f := range typ.Fields() {
		if f.Anonymous {
			all = append(all, leaves(t, f.Type, path)...)
			continue
		}
		tag, tagged := f.Tag.Lookup("key")
		if !tagged {
			t.Errorf("%s.%s has no key", typ, f.Name)
			continue
		}
		key, _, _ := strings.Cut(tag, ",")
		at := strings.TrimPrefix(path+"."+key, ".")
		switch {
		case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[time.Time]():
			all = append(all, leaves(t, f.Type, at)...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			all = append(all, leaves(t, f.Type.Elem(), at+"[]")...)
		default:
			fallback, hasDefault := f.Tag.Lookup("default")
			all = append(all, leaf{path: at, typ: f.Type, fallback: fallback, hasDefault: hasDefault})
		}
	}
	return all
}

func allLeaves(t *testing.T) map[string][]leaf {
	t.Helper()
	return map[string][]leaf{
		"receiver.yaml": leaves(t, reflect.TypeFor[config.Receiver](), ""),
		"signer.yaml":   leaves(t, reflect.TypeFor[config.Signer](), ""),
	}
}

// load loads what an example is for, and gives the error alone.
func load(file, path string, environ []string) error {
	if filepath.Base(file) == "receiver.yaml" {
		_, err := config.LoadReceiver(path, environ)
		return err
	}
	_, err := config.LoadSigner(path, environ)
	return err
}

func TestEveryKeyHasItsVariable(t *testing.T) {
	for file, keys := range allLeaves(t) {
		names := make(map[string]string)
		for _, l := range keys {
			if earlier, taken := names[l.variable()]; taken {
				t.Errorf("%s: %s stands for %s and for %s", file, l.variable(), earlier, l.path)
			}
			names[l.variable()] = l.path
			// A value of the wrong type, or that no check accepts, tells that the variable reached its key.
			value := "\x00"
			if l.typ == reflect.TypeFor[[]string]() {
				value = ","
			}
			err := load(file, "", []string{l.variable() + "=" + value})
			if err == nil || strings.Contains(err.Error(), l.variable()) {
				t.Errorf("%s: %s: got %v, want no complaint about the name", file, l.variable(), err)
			}
		}
		if len(names) < 30 {
			t.Errorf("%s: found %d keys, want at least 30: is the walk broken?", file, len(names))
		}
	}
}

func TestVariablesOverride(t *testing.T) {
	path := write(t, minimalSigner+"sign: {concurrency: 3}\nharbor: {}\n")
	if _, err := config.LoadSigner(path, nil); err == nil {
		t.Fatal("a key that stands twice: got no error")
	}
	path = write(t, minimalSigner+"sign: {concurrency: 3}\n")
	got, err := config.LoadSigner(path, []string{
		"HARBORSEAL_SIGN_CONCURRENCY=7",
		"HARBORSEAL_SIGN_MAX_AGE=90m",
		"HARBORSEAL_QUEUE_URLS= nats://a , nats://b",
		"HARBORSEAL_HARBOR_URL=https://other.example.com",
		"HARBORSEAL_HARBOR_CA_FILE=ca.pem",
		"HARBORSEAL_KEYS_0_PASSWORD_FILE=p",
		"HARBORSEAL_KEYS_1_NAME=old",
		"HARBORSEAL_KEYS_1_STATE=revoked",
		"HARBORSEAL_KEYS_1_PUBLIC_KEY_FILE=/old.pub",
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for what, pair := range map[string][2]any{
		"sign.concurrency":      {got.Sign.Concurrency, 7},
		"sign.max_age":          {got.Sign.MaxAge, 90 * time.Minute},
		"queue.urls":            {fmt.Sprint(got.Queue.URLs), "[nats://a nats://b]"},
		"harbor.public_host":    {got.Harbor.PublicHost, "other.example.com"},
		"harbor.ca_file":        {got.Harbor.CAFile, filepath.Join(dir, "ca.pem")},
		"harbor.username":       {got.Harbor.Username, "robot$harborseal"},
		"keys[0].file":          {got.Keys[0].File, filepath.Join(dir, "k1.key")},
		"keys[0].password_file": {got.Keys[0].PasswordFile, filepath.Join(dir, "p")},
		"keys[1]":               {got.Keys[1], config.Key{Name: "old", PublicKeyFile: "/old.pub", State: config.Revoked, Timeout: 10 * time.Second}},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
		}
	}
	emptied := loadReceiver(t, minimalReceiver+"api: {auditors: [a]}\n", "HARBORSEAL_API_AUDITORS=")
	if len(emptied.API.Auditors) != 0 {
		t.Errorf("auditors, emptied by a variable: got %v, want none", emptied.API.Auditors)
	}
}

func TestBooleansFromVariables(t *testing.T) {
	got := loadReceiver(t, strings.Replace(minimalReceiver, "allow_plain_http: true", "", 1), "HARBORSEAL_HTTP_ALLOW_PLAIN_HTTP=true")
	if !got.HTTP.AllowPlainHTTP {
		t.Error("HARBORSEAL_HTTP_ALLOW_PLAIN_HTTP=true: got false, want true")
	}
	_, err := config.LoadReceiver(write(t, minimalReceiver), []string{"HARBORSEAL_HTTP_ALLOW_PLAIN_HTTP=1"})
	if err == nil || !strings.Contains(err.Error(), "http.allow_plain_http: want true or false") {
		t.Errorf("HARBORSEAL_HTTP_ALLOW_PLAIN_HTTP=1: got %v, want an error", err)
	}
}

func TestUnknownVariables(t *testing.T) {
	wrong := []string{
		"HARBORSEAL_", "HARBORSEAL_HARBOR", "HARBORSEAL_HARBOR_", "HARBORSEAL_HARBOR_UR", "HARBORSEAL_HARBOR_URL_",
		"HARBORSEAL_KEYS", "HARBORSEAL_KEYS_0", "HARBORSEAL_KEYS_FILE", "HARBORSEAL_KEYS_00_FILE", "HARBORSEAL_KEYS_-1_FILE",
		"HARBORSEAL_KEYS_100_FILE", "HARBORSEAL_KEYS_0_FIL", "HARBORSEAL_WEBHOOK_SECRET_FILES", "HARBORSEAL_harbor_url",
		"HARBORSEAL_FAILPOINTS", "HARBORSEAL_PORT_x_TCP", "HARBORSEAL_PORT_80_HTTP",
	}
	var environ []string
	for _, name := range wrong {
		environ = append(environ, name+"=v4lue")
	}
	_, err := config.LoadSigner(write(t, minimalSigner), environ)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, name := range wrong {
		if !slices.Contains(strings.Split(err.Error(), "\n"), name+": unknown variable: no key is called so") {
			t.Errorf("%s: not reported in\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), "v4lue") {
		t.Errorf("the error repeats a value:\n%v", err)
	}
}

func TestForeignVariablesAreLeftAlone(t *testing.T) {
	loadSigner(t, minimalSigner,
		"HARBORSEAL_FAILPOINT=signing/received=kill", "HARBORSEAL_FAILPOINT_ONCE=/tmp/x", "HARBORSEAL_CLOCK_FILE=/tmp/clock",
		"HARBORSEAL_PORT=tcp://10.0.0.1:8443", "HARBORSEAL_PORT_8443_TCP=tcp://10.0.0.1:8443",
		"HARBORSEAL_PORT_8443_TCP_ADDR=10.0.0.1", "HARBORSEAL_PORT_8443_TCP_PORT=8443", "HARBORSEAL_PORT_8443_TCP_PROTO=tcp",
		"HARBORSEAL_SERVICE_HOST=10.0.0.1", "HARBORSEAL_SERVICE_PORT=8443", "HARBORSEAL_SERVICE_PORT_HTTPS=8443",
		"HARBORSEAL_RECEIVER_SERVICE_HOST=10.0.0.1", "HARBORSEAL_RECEIVER_PORT_4222_TCP=tcp://10.0.0.1:4222",
	)
}

func TestNoKeyLooksForeign(t *testing.T) {
	for file, keys := range allLeaves(t) {
		for _, l := range keys {
			for _, end := range []string{"_PORT", "_SERVICE_HOST", "_SERVICE_PORT"} {
				if strings.HasSuffix(l.variable(), end) {
					t.Errorf("%s: %s has a name that Kubernetes makes for services", file, l.path)
				}
			}
		}
	}
}
