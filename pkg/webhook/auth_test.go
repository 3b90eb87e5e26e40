package webhook_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/webhook"
)

// status sends a push with the given Authorization.
func (d *door) status(t *testing.T, value string) int {
	t.Helper()
	r := post(t, "demo", payload{}.encode(t, webhook.Default))
	r.Header.Set("Authorization", value)
	return d.do(r).Code
}

func (d *door) wantStatus(t *testing.T, when, value string, want int) {
	t.Helper()
	if got := d.status(t, value); got != want {
		t.Errorf("%s: status with %q = %d, want %d", when, value, got, want)
	}
}

func TestSecretsRotateWithoutAGap(t *testing.T) {
	const oldValue, newValue = "Bearer old-secret", "Bearer new-secret"
	first, second := secretFile(t, oldValue), secretFile(t, oldValue)
	d := newDoor(t, func(c *webhook.Config) { c.SecretFiles = []string{first, second} })
	d.wantStatus(t, "at first", oldValue, http.StatusAccepted)
	d.wantStatus(t, "at first", newValue, http.StatusUnauthorized)

	writeSecret(t, first, newValue)
	d.wantStatus(t, "while both count", oldValue, http.StatusAccepted)
	d.wantStatus(t, "while both count", newValue, http.StatusAccepted)

	writeSecret(t, second, newValue)
	d.wantStatus(t, "afterwards", oldValue, http.StatusUnauthorized)
	d.wantStatus(t, "afterwards", newValue, http.StatusAccepted)
}

func TestRotationUnderLoad(t *testing.T) {
	const steady = "Bearer steady-secret"
	turning := secretFile(t, "Bearer turning")
	d := newDoor(t, func(c *webhook.Config) { c.SecretFiles = []string{turning, secretFile(t, steady)} })
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := d.status(t, steady); got != http.StatusAccepted {
					t.Errorf("status with the secret that stays = %d while the other turns, want 202", got)
					return
				}
			}
		})
	}
	for i := range 50 {
		value := "Bearer turning-" + strings.Repeat("x", i)
		writeSecret(t, turning, value)
		d.wantStatus(t, "just written", value, http.StatusAccepted)
	}
	close(stop)
	senders.Wait()
}

func TestALostSecretFileKeepsTheLastGoodValue(t *testing.T) {
	const last = "Bearer last-good"
	tests := []struct {
		name  string
		spoil func(t *testing.T, path string)
	}{
		{"removed", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"emptied", func(t *testing.T, path string) { t.Helper(); writeSecret(t, path, "") }},
		{"blank", func(t *testing.T, path string) { t.Helper(); writeSecret(t, path, "   ") }},
		{"readable by others", func(t *testing.T, path string) {
			t.Helper()
			writeSecret(t, path, "Bearer leaked")
			if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // that is the point
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := secretFile(t, last)
			d := newDoor(t, func(c *webhook.Config) { c.SecretFiles = []string{path} })
			tt.spoil(t, path)
			for range 3 {
				d.wantStatus(t, "after it was lost", last, http.StatusAccepted)
				d.wantStatus(t, "after it was lost", "Bearer leaked", http.StatusUnauthorized)
				d.wantStatus(t, "after it was lost", "", http.StatusUnauthorized)
			}
			if got := strings.Count(d.log.String(), "cannot be read"); got != 1 {
				t.Errorf("%d lines say that the secret cannot be read, want 1", got)
			}
			writeSecret(t, path, "Bearer healed")
			d.wantStatus(t, "after it came back", "Bearer healed", http.StatusAccepted)
			d.wantStatus(t, "after it came back", last, http.StatusUnauthorized)
			for _, secret := range []string{"last-good", "leaked", "healed"} {
				if strings.Contains(d.log.String(), secret) {
					t.Errorf("the log holds a secret:\n%s", d.log)
				}
			}
		})
	}
}

func TestNewRefusesSecretsThatItCannotRead(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	leaked := secretFile(t, "Bearer leaked-secret")
	if err := os.Chmod(leaked, 0o644); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	_, err := webhook.New(webhook.Config{SecretFiles: []string{missing, leaked}, HarborName: "main", Policies: policies{}, Queue: &queue{}})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), leaked) {
		t.Errorf("New() error = %v, want both files named", err)
	}
	if err != nil && strings.Contains(err.Error(), "leaked-secret") {
		t.Errorf("New() error %q holds the secret", err)
	}
}

func TestWhiteSpaceAroundASecretDoesNotCount(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) { c.SecretFiles = []string{secretFile(t, "  Bearer spaced \r")} })
	d.wantStatus(t, "as HTTP delivers it", "Bearer spaced", http.StatusAccepted)
}
