package harbortest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// receiver takes webhooks and keeps them as they came over the wire.
type receiver struct {
	listener net.Listener
	answer   func(n int, r *http.Request) string // The raw response to the n-th request; empty is silence.

	mu   sync.Mutex
	raw  [][]byte      // Guarded by mu.
	news chan struct{} // Has room for one: something came.

	conns   map[net.Conn]bool // Guarded by mu.
	serving sync.WaitGroup
}

func ok200(int, *http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }

func newReceiver(t *testing.T, answer func(int, *http.Request) string) *receiver {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listening: %v", err)
	}
	r := &receiver{
		listener: listener, answer: answer, news: make(chan struct{}, 1), conns: make(map[net.Conn]bool),
	}
	r.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[conn] = true
			r.mu.Unlock()
			r.serving.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		r.mu.Lock()
		for conn := range r.conns {
			_ = conn.Close()
		}
		r.mu.Unlock()
		r.serving.Wait()
	})
	return r
}

func (r *receiver) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		var raw bytes.Buffer
		req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &raw)))
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		r.mu.Lock()
		r.raw = append(r.raw, raw.Bytes())
		n := len(r.raw)
		r.mu.Unlock()
		select {
		case r.news <- struct{}{}:
		default:
		}
		answer := r.answer(n, req)
		if answer == "" {
			_, _ = io.Copy(io.Discard, conn) // Until the sender gives up.
			return
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

func (r *receiver) address() string { return r.listener.Addr().String() }
func (r *receiver) url() string     { return "http://" + r.address() }

// wait returns when n requests have come, or fails the test.
func (r *receiver) wait(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for {
		r.mu.Lock()
		come := len(r.raw)
		r.mu.Unlock()
		if come >= n {
			return
		}
		select {
		case <-r.news:
		case <-ctx.Done():
			t.Fatalf("webhooks: got %d, want %d", come, n)
		}
	}
}

// all returns what has come by now.
func (r *receiver) all() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.raw
}

// settled waits until the emulator has nothing left to deliver, and returns what came.
func settled(t *testing.T, c *client, r *receiver) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if err := c.h.WaitWebhooks(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("webhooks did not settle: %+v", c.h.Stats().Webhooks)
		}
		t.Fatal(err)
	}
	return r.all()
}
