package harness

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// forwarder takes connections at a port and hands on what comes to a socket in a folder.
type forwarder struct {
	listener net.Listener
	socket   string
	// running is what close waits for.
	running sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{} // guarded by mu
	closed bool                  // guarded by mu
}

func startForwarder(ctx context.Context, address, socket string) (*forwarder, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("forwarding to %s: %w", socket, err)
	}
	f := &forwarder{listener: listener, socket: socket, open: make(map[net.Conn]struct{})}
	f.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // It ends with close.
			}
			f.running.Go(func() { f.serve(context.WithoutCancel(ctx), conn) })
		}
	})
	return f, nil
}

// serve copies both ways until one side ends. A connection that the server does not take is closed.
func (f *forwarder) serve(ctx context.Context, client net.Conn) {
	defer f.forget(client)
	if !f.remember(client) {
		return
	}
	var d net.Dialer
	server, err := d.DialContext(ctx, "unix", f.socket)
	if err != nil {
		return
	}
	defer f.forget(server)
	if !f.remember(server) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server) // Whoever closed which side sees it.
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
}

// remember keeps a connection for close; false if that is over.
func (f *forwarder) remember(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.open[conn] = struct{}{}
	}
	return !f.closed
}

func (f *forwarder) forget(conn net.Conn) {
	_ = conn.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, conn)
}

// close ends all connections, and waits.
func (f *forwarder) close() error {
	err := f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for conn := range f.open {
		_ = conn.Close() // It may have been faster.
	}
	f.mu.Unlock()
	f.running.Wait()
	return wrap("stopping a forwarder", err)
}
