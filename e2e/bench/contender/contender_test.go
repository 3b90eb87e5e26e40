package contender_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/e2e/bench/contender"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setup() contender.Setup {
	return contender.Setup{
		URL: "http://127.0.0.1:1", Host: "127.0.0.1:1", Username: "robot", SecretFile: "s", KeyFile: "k", PasswordFile: "p", Format: "both",
	}
}

// orders writes them as the driver does.
func orders(t *testing.T, all ...contender.Order) io.Reader {
	t.Helper()
	var in bytes.Buffer
	for _, o := range all {
		if err := json.NewEncoder(&in).Encode(o); err != nil {
			t.Fatal(err)
		}
	}
	return &in
}

// serve runs a contender whose signatures are made by sign.
func serve(t *testing.T, s contender.Setup, in io.Reader, sign contender.Sign) ([]contender.Result, error) {
	t.Helper()
	var out, stderr bytes.Buffer
	err := contender.Run(t.Context(), s.Args(), in, &out, &stderr, func(_ context.Context, got contender.Setup) (contender.Sign, error) {
		if got != s {
			t.Errorf("setup %+v, want %+v", got, s)
		}
		return sign, nil
	})
	var results []contender.Result
	for decoder := json.NewDecoder(&out); ; {
		var r contender.Result
		if decodeErr := decoder.Decode(&r); errors.Is(decodeErr, io.EOF) {
			return results, err
		} else if decodeErr != nil {
			t.Fatal(decodeErr)
		}
		results = append(results, r)
	}
}

// TestOrders lets each signature wait until as many are in flight as were ordered.
func TestOrders(t *testing.T) {
	const inFlight = 8
	var mu sync.Mutex
	waiting, signed := 0, make(map[string]int)
	full := make(chan struct{})
	results, err := serve(t, setup(), orders(t,
		contender.Order{Repository: "p/a", Digests: strings.Fields("0 1 2 3 4 5 6 7 8 9"), InFlight: inFlight},
		contender.Order{Repository: "p/b", Digests: []string{"0"}, InFlight: 1},
	), func(_ context.Context, repository, digest string) error {
		mu.Lock()
		signed[repository+"@"+digest]++
		if waiting++; waiting == inFlight {
			close(full)
		}
		mu.Unlock()
		select {
		case <-full:
			return nil
		case <-time.After(30 * time.Second):
			return errors.New("too few are in flight")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 || results[0].Signatures != 10 || results[1].Signatures != 1 {
		t.Fatalf("results %+v, want 10 signatures and 1", results)
	}
	if r := results[0]; r.Took <= 0 || r.CPU < 0 || r.PeakRSS < 1<<20 || r.Allocations == 0 {
		t.Errorf("result %+v, want a time, a peak of at least 1 MiB and allocations", r)
	}
	if len(signed) != 11 {
		t.Errorf("signed %v, want 11 digests", signed)
	}
	for what, n := range signed {
		if n != 1 {
			t.Errorf("%s was signed %d times", what, n)
		}
	}
}

func TestAFailureEndsIt(t *testing.T) {
	broken := errors.New("it is broken")
	results, err := serve(t, setup(), orders(t, contender.Order{Repository: "p/a", Digests: strings.Fields("0 1 2 3"), InFlight: 2}),
		func(_ context.Context, _, digest string) error {
			if digest == "1" {
				return broken
			}
			return nil
		})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "p/a@1") || len(results) != 0 {
		t.Errorf("results %v, error %v, want none and one that names p/a@1", results, err)
	}
}

func TestInputThatIsNoOrder(t *testing.T) {
	if _, err := serve(t, setup(), strings.NewReader("no order"), nil); err == nil {
		t.Error("no error")
	}
}

func TestProfile(t *testing.T) {
	s := setup()
	s.CPUProfile = filepath.Join(t.TempDir(), "profile")
	if _, err := serve(t, s, orders(t), nil); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.CPUProfile, s.CPUProfile + ".allocs"} {
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("profile: %v, %v, want one with content", info, err)
		}
	}
}

func TestFlags(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag": append(setup().Args(), "-unknown"),
		"no key":       {"-url", "http://127.0.0.1:1", "-host", "127.0.0.1:1"},
		"no registry":  {"-key-file", "k"},
	} {
		t.Run(name, func(t *testing.T) {
			err := contender.Run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard,
				func(context.Context, contender.Setup) (contender.Sign, error) {
					t.Error("it was started")
					return nil, errors.New("it was started")
				})
			if err == nil {
				t.Error("no error")
			}
		})
	}
}
