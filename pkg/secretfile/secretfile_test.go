package secretfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/secretfile"
)

func TestReadLine(t *testing.T) {
	const secret = "s3cr3t-value"
	tests := []struct {
		name    string
		content string
		mode    os.FileMode
		want    string
		wantErr string
	}{
		{"plain", secret, 0o600, secret, ""},
		{"newline", secret + "\n", 0o400, secret, ""},
		{"carriage return", secret + "\r\n", 0o600, secret, ""},
		{"spaces belong to it", " " + secret + " ", 0o600, " " + secret + " ", ""},
		{"empty", "\n", 0o600, "", "is empty"},
		{"two lines", secret + "\nmore\n", 0o600, "", "more than one line"},
		{"group may read", secret, 0o640, "", "chmod 600"},
		{"others may read", secret, 0o604, "", "chmod 600"},
		{"too large", strings.Repeat(secret, 10_000), 0o600, "", "more than 65536 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(tt.content), tt.mode); err != nil {
				t.Fatal(err)
			}
			got, err := secretfile.ReadLine(path)
			if got != tt.want {
				t.Errorf("ReadLine() = %q, want %q", got, tt.want)
			}
			switch {
			case tt.wantErr == "" && err != nil:
				t.Errorf("ReadLine() error = %v, want none", err)
			case tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)):
				t.Errorf("ReadLine() error = %v, want one with %q", err, tt.wantErr)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("ReadLine() error %q holds the secret", err)
			}
		})
	}
}

func TestReadMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := secretfile.Read(path); !os.IsNotExist(err) {
		t.Errorf("Read(%s) error = %v, want one that says that it does not exist", path, err)
	}
}
