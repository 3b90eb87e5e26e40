package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/config"
)

// sentinel is a secret in the wrong place. It is no valid value of any key.
const sentinel = "Hunter2:/?#\x7f"

func TestSecretsArePathsOfFiles(t *testing.T) {
	secret := regexp.MustCompile(`(password|passphrase|secret|token|credential|private|seed|^pin)s?`)
	file := regexp.MustCompile(`_files?$`)
	found := 0
	for program, keys := range allLeaves(t) {
		for _, l := range keys {
			name := l.path[strings.LastIndex(l.path, ".")+1:]
			// A token of PKCS #11 is a part of an HSM, and this is its label.
			if !secret.MatchString(name) || l.path == "keys[].pkcs11.token" {
				continue
			}
			found++
			if !file.MatchString(name) {
				t.Errorf("%s: %s takes a secret, want it to take the path of a file", program, l.path)
			}
		}
	}
	if found < 8 {
		t.Errorf("found %d keys of secrets, want at least 8: is the walk broken?", found)
	}
}

func TestErrorsNeverRepeatValues(t *testing.T) {
	for file, keys := range allLeaves(t) {
		for _, l := range keys {
			err := load(file, "", []string{l.variable() + "=" + sentinel})
			if err == nil {
				t.Errorf("%s: nothing but %s: got no error", file, l.variable())
			} else if strings.Contains(err.Error(), "Hunter2") {
				t.Errorf("%s: %s: the error repeats the value:\n%v", file, l.variable(), err)
			}
		}
	}
	for name, content := range map[string]string{
		"unknown key":              "password: Hunter2",
		"unknown key in a mapping": "harbor: {password: Hunter2}",
		"unknown key in an entry":  "keys: [{password: Hunter2}]",
		"mapping for text":         "harbor: {secret_file: {value: Hunter2}}",
		"text for a mapping":       "harbor: Hunter2",
		"text for a list":          "keys: Hunter2",
		"list for a list of texts": "queue: {urls: [[Hunter2]]}",
		"variable for an entry":    "keys: [Hunter2]",
		"text for annotations":     "sign: {annotations: Hunter2}",
		"list of annotations":      "sign: {annotations: [Hunter2]}",
		"annotation of a list":     "sign: {annotations: {a: [Hunter2]}}",
		"key of an annotation":     `sign: {annotations: {"Hunter2\u0007": a}}`,
		"reference to a KMS":       "keys: [{name: a, kms: 'awskms://Hunter2@h/k'}]",
		"another scheme":           "keys: [{name: a, kms: 'Hunter2://k'}]",
		"address of a Vault":       "keys: [{name: a, kms: 'hashivault://k', vault: {address: 'https://h/Hunter2'}}]",
		"name of a key":            "keys: [{name: a, file: k}]\nsign: {key: Hunter2}",
		"format":                   "policies: [{projects: [a], format: Hunter2}]",
		"not YAML":                 "Hunter2: [",
		"anchor":                   "log: *Hunter2",
		"binary":                   "log: !!binary Hunter2*",
		"time":                     "log: !!timestamp Hunter2",
		"merge":                    "log: {<<: Hunter2}",
	} {
		_, err := config.LoadSigner(write(t, content), nil)
		if err == nil {
			t.Errorf("%s: got no error", name)
		} else if strings.Contains(err.Error(), "Hunter2") {
			t.Errorf("%s: the error repeats the value:\n%v", name, err)
		}
	}
}

func TestErrorsNeverRepeatFiles(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("Hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The secret's file in the place of the configuration.
	_, err := config.LoadReceiver(secret, nil)
	if err == nil || strings.Contains(err.Error(), "Hunter2") {
		t.Errorf("a secret as configuration: got %v, want an error that does not repeat it", err)
	}
	// Every key of a file names the secret; whatever is said of the configuration, the secret is not in it.
	for file, keys := range allLeaves(t) {
		environ := []string{"HARBORSEAL_SHUTDOWN_DRAIN=never"}
		for _, l := range keys {
			if strings.HasSuffix(l.path, "_file") || strings.HasSuffix(l.path, "_files") || strings.HasSuffix(l.path, ".path") {
				environ = append(environ, l.variable()+"="+secret)
			}
		}
		err := load(file, "", environ)
		if err == nil || strings.Contains(err.Error(), "Hunter2") {
			t.Errorf("%s: got %v, want an error that does not repeat the secret", file, err)
		}
	}
}
