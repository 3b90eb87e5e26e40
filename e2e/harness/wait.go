package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

const pollInterval = 25 * time.Millisecond

// errHopeless marks what waiting does not change.
var errHopeless = errors.New("waiting is of no use")

// Until calls condition until it holds. Each call says what is still missing; nil means that it holds. The error after
// the limit, or when ctx ends, is the last thing that was missing.
func Until(ctx context.Context, limit time.Duration, condition func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var missing error
	for {
		err := condition(ctx)
		if err == nil || errors.Is(err, errHopeless) {
			return err
		}
		// What a call says that the deadline itself cut short tells nothing.
		if missing == nil || ctx.Err() == nil {
			missing = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("after %s: %w", limit, missing)
			}
			return fmt.Errorf("%w: %w", ctx.Err(), missing)
		}
	}
}

// Ports are taken below the range from which systems give ports to outgoing connections, so that nobody takes one between
// its choice and its use, and a restarted program finds its port free.
const (
	firstPort = 20000
	lastPort  = 31999
)

// FreePorts gives the addresses of n different loopback ports on which nobody listens.
func FreePorts(ctx context.Context, n int) (addresses []string, err error) {
	var lc net.ListenConfig
	// All are held until the last one is found: none is given twice.
	var held []net.Listener
	defer func() {
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
	}()
	var refused []error
	for len(held) < n {
		port, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort+1))
		if err != nil {
			return nil, fmt.Errorf("choosing a port: %w", err)
		}
		l, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+port.Int64()))
		if err != nil {
			if refused = append(refused, err); len(refused) > 100 {
				return nil, fmt.Errorf("choosing a port: %w", errors.Join(refused...))
			}
			continue
		}
		held = append(held, l)
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// Random gives a random name of lower-case letters and digits after a prefix.
func Random(prefix string) string { return prefix + strings.ToLower(rand.Text()[:8]) }
