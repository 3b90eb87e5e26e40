package registry_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/harborseal/harborseal/pkg/registry"
)

// pipeListener gives connections without a network, so that a test can run on fake time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// onFakeTime runs a test with a client whose registry and clock are in a bubble.
func onFakeTime(t *testing.T, f *fake, run func(t *testing.T, c *registry.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		listener := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: f}} //nolint:gosec // no network
		server.Start()
		transport := &http.Transport{DialContext: listener.dial}
		run(t, newClient(t, "http://127.0.0.1", func(cfg *registry.Config) { cfg.Transport = transport }))
		transport.CloseIdleConnections()
		server.Close()
	})
}
