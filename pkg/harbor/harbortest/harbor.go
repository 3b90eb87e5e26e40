package harbortest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Defaults of Config.
const (
	DefaultVersion       = "v2.15.2"
	DefaultAdminPassword = "Harbor12345" // The password that a fresh Harbor ships with.
	defaultListen        = "127.0.0.1:0"
	defaultHookTimeout   = 3 * time.Second
	readHeaderTimeout    = 10 * time.Second
)

// Config configures an emulated Harbor. The zero value is a Harbor v2.15.2 on a free loopback port, at the recorded
// speeds.
type Config struct {
	// Listen is the TCP address to listen on; empty is 127.0.0.1:0.
	Listen string
	// Version is the Harbor that is emulated, as v2.11.2; empty is DefaultVersion, and what names no release of Harbor 2
	// (a development build) has everything. What differs between versions is listed in the documentation of the package.
	Version string
	// AdminPassword is the password of the user admin; empty is DefaultAdminPassword.
	AdminPassword string
	// Logger gets one line for each request (debug) and each webhook attempt (info). The zero value is silent.
	Logger zerolog.Logger
	// RetryScale multiplies the gaps between the attempts of a webhook delivery: 0.01 makes them a hundred times
	// shorter. 0 is 1: Harbor's own 16 to 74 s, then 31 to 118 s.
	RetryScale float64
	// DeliveryDelayScale multiplies the times that idle webhook workers sleep between two looks at their queue, which
	// is what delays a delivery. 0 is 1: as recorded. Small values (0.001) deliver at once.
	DeliveryDelayScale float64
	// WebhookTimeout is how long a receiver may take for one attempt; 0 is Harbor's 3 s.
	WebhookTimeout time.Duration
	// Seed makes delays, gaps and fault rates repeatable. 0 takes a random seed.
	Seed uint64
}

// Harbor is a running emulator. Its methods are safe for concurrent use.
type Harbor struct {
	cfg      Config
	log      zerolog.Logger
	listener net.Listener
	server   *http.Server
	api      *http.ServeMux
	tokens   *tokenService
	hooks    *deliverer
	faults   faultState
	counters counters

	// ctx ends when Close is called: it wakes everything that waits. It is the life of this server, not of a call.
	ctx    context.Context //nolint:containedctx // the lifetime of the server's own goroutines, cancelled by Close
	cancel context.CancelFunc
	serve  sync.WaitGroup // The accept loop.

	gate     sync.Mutex
	closed   bool           // Guarded by gate.
	inFlight sync.WaitGroup // Requests being served; grows only while closed is false.

	randMu sync.Mutex
	rand   *rand.Rand // Guarded by randMu.

	mu    sync.RWMutex
	state *state // Guarded by mu.

	closeOnce sync.Once
	closeErr  error
}

// Start runs an emulator; it is listening when Start returns. Stop it with Close.
func Start(cfg Config) (*Harbor, error) {
	cfg.Listen = cmp.Or(cfg.Listen, defaultListen)
	cfg.AdminPassword = cmp.Or(cfg.AdminPassword, DefaultAdminPassword)
	cfg.RetryScale = cmp.Or(cfg.RetryScale, 1)
	cfg.DeliveryDelayScale = cmp.Or(cfg.DeliveryDelayScale, 1)
	cfg.WebhookTimeout = cmp.Or(cfg.WebhookTimeout, defaultHookTimeout)
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64() //nolint:gosec // delays and fault rates, nothing secret
	}
	st, err := newState(cfg.AdminPassword, cfg.Version)
	if err != nil {
		return nil, fmt.Errorf("seeding the emulator: %w", err)
	}
	tokens, err := newTokenService()
	if err != nil {
		return nil, fmt.Errorf("making the token service: %w", err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", cfg.Listen, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Harbor{
		cfg: cfg, log: cfg.Logger, listener: listener, tokens: tokens, state: st, ctx: ctx, cancel: cancel,
		rand: rand.New(rand.NewPCG(cfg.Seed, 1)), //nolint:gosec // delays and fault rates, nothing secret
	}
	h.counters.requests = make(map[string]int64)
	h.hooks = newDeliverer(h)
	h.api = h.apiRoutes()
	h.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	h.hooks.start()
	h.serve.Go(func() {
		if err := h.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error().Err(err).Msg("emulator stopped serving")
		}
	})
	return h, nil
}

// TB is what New needs of a test; *testing.T and *testing.B have it. (The package does not import testing, so that
// programs can link it.)
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// New starts an emulator for a test and closes it when the test ends.
func New(t TB, cfg Config) *Harbor {
	t.Helper()
	h, err := Start(cfg)
	if err != nil {
		t.Fatalf("starting the Harbor emulator: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Fatalf("closing the Harbor emulator: %v", err)
		}
	})
	return h
}

// URL is the base address, as "http://127.0.0.1:port".
func (h *Harbor) URL() string { return "http://" + h.Host() }

// Host is the address without the scheme, as image references and webhooks name it.
func (h *Harbor) Host() string { return h.listener.Addr().String() }

// Close stops serving, abandons webhooks that were not delivered, and waits for all goroutines. It can be called more
// than once.
func (h *Harbor) Close() error {
	h.closeOnce.Do(func() {
		h.cancel()
		if err := h.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			h.closeErr = fmt.Errorf("closing the listener: %w", err)
		}
		h.serve.Wait()
		h.gate.Lock()
		h.closed = true
		h.gate.Unlock()
		h.inFlight.Wait()
		h.hooks.wait()
	})
	return h.closeErr
}

// enter counts a request in, unless the server is closed. The caller calls inFlight.Done.
func (h *Harbor) enter() bool {
	h.gate.Lock()
	defer h.gate.Unlock()
	if !h.closed {
		h.inFlight.Add(1)
	}
	return !h.closed
}

// random returns a number in [0,1).
func (h *Harbor) random() float64 {
	h.randMu.Lock()
	defer h.randMu.Unlock()
	return h.rand.Float64()
}

// pause waits for d, and reports whether the server and ctx are still alive afterwards.
func (h *Harbor) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-h.ctx.Done():
		return false
	}
}
