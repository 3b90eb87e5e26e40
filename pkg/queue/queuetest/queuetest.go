// Package queuetest runs the real thing for tests: an embedded JetStream server on a folder of the test, and clients of
// it. It keeps nothing between tests and has no fake: the server starts within milliseconds.
package queuetest

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/queue"
)

// stopTimeout bounds the stop of a server at the end of a test.
const stopTimeout = 10 * time.Second

// NewServer starts a server that only this process can reach and stops it at the end of the test.
func NewServer(tb testing.TB) *queue.Server {
	tb.Helper()
	return StartServer(tb, queue.ServerConfig{StoreDir: tb.TempDir()})
}

// StartServer starts a server as configured and stops it at the end of the test. Stopping it earlier is allowed.
func StartServer(tb testing.TB, cfg queue.ServerConfig) *queue.Server {
	tb.Helper()
	server, err := queue.StartServer(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("starting the embedded server: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			tb.Errorf("stopping the embedded server: %v", err)
		}
	})
	return server
}

// NewClient connects to a server in this process, sets the streams up and closes the connection at the end of the test.
func NewClient(tb testing.TB, server *queue.Server) *queue.Client {
	tb.Helper()
	client := Connect(tb, queue.Config{Server: server})
	if err := client.Setup(tb.Context()); err != nil {
		tb.Fatalf("setting up the streams: %v", err)
	}
	return client
}

// Connect connects as configured and closes the connection at the end of the test. The zero Logger of cfg is silent.
func Connect(tb testing.TB, cfg queue.Config) *queue.Client {
	tb.Helper()
	client, err := queue.Connect(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("connecting: %v", err)
	}
	tb.Cleanup(client.Close)
	return client
}

// NewLogger writes to the test's log.
func NewLogger(tb testing.TB) zerolog.Logger {
	tb.Helper()
	return zerolog.New(zerolog.NewTestWriter(tb)).With().Timestamp().Logger()
}
