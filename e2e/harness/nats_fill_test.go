//go:build e2e

package harness_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/e2e/harness"
)

// A store that is filled refuses what its owner publishes, and takes it again once it is emptied.
func TestFill(t *testing.T) {
	t.Parallel()
	program, err := harness.BuildNATS(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := harness.StartNATS(t.Context(), harness.NATSOptions{Program: program, Dir: t.TempDir(), Filler: true, MaxStore: "4MB"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	conn, err := n.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SIGN", Subjects: []string{"sign.v1.>"}}); err != nil {
		t.Fatal(err)
	}
	if err := n.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused := (*jetstream.APIError)(nil)
	if _, err := js.Publish(t.Context(), "sign.v1.x", nil); !errors.As(err, &refused) || refused.ErrorCode != 10023 {
		t.Errorf("full: got %v, want a refusal with the code 10023", err)
	}
	for range 2 { // the second time there is nothing to take away
		if err := n.Empty(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.Publish(t.Context(), "sign.v1.x", nil); err != nil {
		t.Errorf("emptied: got %v, want no error", err)
	}
}

func TestVolume(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "volume")
	v, err := harness.MountVolume(t.Context(), dir, 1<<20)
	if err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	write := func() error {
		path := filepath.Join(dir, "file")
		return errors.Join(os.WriteFile(path, make([]byte, 64<<10), 0o600), os.Remove(path))
	}
	for range 2 {
		if err := v.Fill(); err != nil {
			t.Fatal(err)
		}
		if err := write(); err == nil {
			t.Error("full: a file could be written")
		}
		if err := v.Empty(); err != nil {
			t.Fatal(err)
		}
		if err := write(); err != nil {
			t.Errorf("emptied: %v", err)
		}
	}
	if err := v.Empty(); err != nil {
		t.Errorf("emptying an empty one: %v", err)
	}
}
