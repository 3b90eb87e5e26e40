package keys_test

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// scratch is a folder for what all tests share.
var scratch string

func TestMain(m *testing.M) {
	// What whoever runs the tests has set for Vault and AWS must not decide them.
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		for _, prefix := range []string{"AWS_", "VAULT_", "BAO_"} {
			if strings.HasPrefix(name, prefix) {
				_ = os.Unsetenv(name)
			}
		}
	}
	var err error
	if scratch, err = os.MkdirTemp("", "keys-test-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(scratch)
		os.Exit(code)
	}))
}
