package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Flow is what a TCPProxy does with connections.
type Flow int

const (
	// Pass lets everything through.
	Pass Flow = iota
	// Refuse resets all connections, and new ones as soon as they are made: both ends know at once.
	Refuse
	// Swallow keeps connections, takes new ones and lets nothing through: neither end is told. What was sent meanwhile comes
	// through when it passes again, as with a network that repeats what it lost.
	Swallow
)

// TCPProxy passes connections on, or does not. It is safe for concurrent use.
type TCPProxy struct {
	listener *net.TCPListener
	targets  []string
	work     sync.WaitGroup

	mu       sync.Mutex
	closed   bool                  // guarded by mu
	flow     Flow                  // guarded by mu
	changed  chan struct{}         // closed when flow changes, or at the end; guarded by mu
	open     map[*net.TCPConn]bool // guarded by mu
	accepted int                   // guarded by mu
}

// StartTCPProxy listens on an address (host:port) and connects whoever comes to the targets in turn; one that refuses is passed
// over. An empty address means a free one of the loopback interface.
func StartTCPProxy(ctx context.Context, address string, targets ...string) (*TCPProxy, error) {
	if address == "" {
		address = "127.0.0.1:0" // Nobody else gets it: it is never given up before the end.
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	listener, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("starting a proxy: %q is no address of TCP", address)
	}
	p := &TCPProxy{listener: listener, targets: targets, changed: make(chan struct{}), open: make(map[*net.TCPConn]bool)}
	p.work.Go(p.accept)
	return p, nil
}

// Addr is the address (host:port) on which it listens.
func (p *TCPProxy) Addr() string { return p.listener.Addr().String() }

// Accepted is how many connections were made to it, those that were refused included.
func (p *TCPProxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Set changes what happens from now on, also to connections that are there.
func (p *TCPProxy) Set(flow Flow) {
	p.mu.Lock()
	if p.flow != flow && !p.closed {
		p.flow = flow
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.mu.Unlock()
	if flow == Refuse {
		p.Reset()
	}
}

// Flow is what happens now.
func (p *TCPProxy) Flow() Flow {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flow
}

// Reset breaks all connections that are there; new ones are as before.
func (p *TCPProxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		abort(c)
	}
}

// Close breaks all connections, listens no longer, and waits. It may be called again.
func (p *TCPProxy) Close() error {
	p.mu.Lock()
	var err error
	if !p.closed {
		p.closed = true
		close(p.changed)
		err = p.listener.Close()
	}
	p.mu.Unlock()
	p.Reset()
	p.work.Wait()
	return err
}

func (p *TCPProxy) accept() {
	for {
		c, err := p.listener.AcceptTCP()
		if err != nil {
			return // It was closed.
		}
		p.mu.Lock()
		p.accepted++
		refused := p.flow == Refuse
		p.mu.Unlock()
		if refused {
			// The listener stays: a port that is given up may be somebody else's when it is needed again.
			abort(c)
			continue
		}
		if p.keep(c) {
			p.work.Go(func() { p.serve(c) })
		}
	}
}

// keep remembers a connection until it is forgotten; false means that the proxy has ended, and the connection with it.
func (p *TCPProxy) keep(c *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		abort(c)
		return false
	}
	p.open[c] = true
	return true
}

func (p *TCPProxy) forget(c *net.TCPConn) {
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	_ = c.Close()
}

// serve connects a client to a target and copies until both have said their last.
func (p *TCPProxy) serve(client *net.TCPConn) {
	defer p.forget(client)
	gone := make(chan struct{})
	if !p.passing(gone) {
		return
	}
	server := p.dial()
	if server == nil || !p.keep(server) {
		abort(client)
		return
	}
	defer p.forget(server)
	var once sync.Once
	broken := func() {
		once.Do(func() { close(gone) })
		abort(client)
		abort(server)
	}
	var back sync.WaitGroup
	back.Go(func() { p.copy(client, server, gone, broken) })
	p.copy(server, client, gone, broken)
	back.Wait()
}

// dial asks the targets, each time another one first; nil means that nobody is there.
func (p *TCPProxy) dial() *net.TCPConn {
	p.mu.Lock()
	first := p.accepted
	p.mu.Unlock()
	for i := range p.targets {
		var d net.Dialer
		// The loopback interface refuses at once.
		c, err := d.DialContext(context.Background(), "tcp", p.targets[(first+i)%len(p.targets)])
		if server, ok := c.(*net.TCPConn); ok && err == nil {
			return server
		}
	}
	return nil
}

// copy passes on what one end sends, while the proxy passes, until that end has no more to say or something breaks.
func (p *TCPProxy) copy(to, from *net.TCPConn, gone <-chan struct{}, broken func()) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !p.passing(gone) {
			broken()
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				broken()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF) && to.CloseWrite() == nil:
			return
		case err != nil:
			broken()
			return
		}
	}
}

// passing waits while the proxy swallows; false means that there is nothing to wait for.
func (p *TCPProxy) passing(gone <-chan struct{}) bool {
	for {
		p.mu.Lock()
		flow, changed, closed := p.flow, p.changed, p.closed
		p.mu.Unlock()
		if closed || flow == Refuse {
			return false
		}
		if flow == Pass {
			return true
		}
		select {
		case <-changed:
		case <-gone:
			return false
		}
	}
}

// abort ends a connection with a reset: nothing that waits to be sent is sent.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
