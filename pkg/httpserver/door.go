package httpserver

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// reserved is how many connections are taken beyond the limit for addresses that hold fewer than perAddress: one that takes
	// all the others must not shut out Harbor, which makes ten deliveries at once.
	reserved   = 256
	perAddress = 16
	// turnedAway is how many connections at once get the answer that there are too many. The ones after them wait in the
	// system's queue; each of them takes at most turnAwayTime.
	turnedAway   = 1024
	turnAwayTime = 3 * time.Second
	// idleAtLeast is how long a connection was idle before it gives way to another one: shorter, and a request may be on its
	// way.
	idleAtLeast = time.Second
)

// door is a listener that bounds how many connections are served. Each one takes memory, whatever comes over it.
//
// Beyond the limit, the connection that has been idle for the longest gives way, if it was for a second. If none was, the
// new connection is marked: its first request is answered with 503 and a Retry-After, and it is closed. It is not closed at
// once, because a client that is told nothing cannot tell a crowd from a broken network (Harbor repeats after either), and not kept
// waiting, because Harbor waits 3 s and then delivers the same once more.
type door struct {
	net.Listener
	max     int
	away    chan struct{} // a place for each connection that is turned away
	closing chan struct{} // closed by Close
	once    sync.Once
	metrics *metrics
	now     func() time.Time

	mu        sync.Mutex
	open      int                // guarded by mu, as is all below; connections that are served
	addresses map[netip.Addr]int // those of each address; without addresses that have none
	idle      *list.List         // of *guest: those that no request came over yet, or none is in hand of; the longest idle first
}

func newDoor(l net.Listener, limit int, m *metrics) *door {
	return &door{
		Listener: l, max: limit, away: make(chan struct{}, turnedAway), closing: make(chan struct{}), metrics: m, now: time.Now,
		addresses: map[netip.Addr]int{}, idle: list.New(),
	}
}

// guest is a connection that was let in. It knows which place it has to give back.
type guest struct {
	net.Conn
	door    *door
	address netip.Addr
	over    bool // it is turned away
	closed  sync.Once
	// deadline ends a guest that is turned away, whatever deadlines the server sets.
	deadline time.Time
	// Guarded by the door's mu.
	element *list.Element // in the door's idle list; nil if it is not idle
	since   time.Time     // from when on it is idle
}

// Accept implements net.Listener. It waits while too many connections are being turned away.
func (d *door) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, door: d, address: addressOf(conn)}
	if d.enter(g) {
		return g, nil
	}
	d.metrics.refused.Inc()
	select {
	case d.away <- struct{}{}:
	case <-d.closing:
		_ = conn.Close() // nobody is left who would be told
		return nil, net.ErrClosed
	}
	g.over, g.deadline = true, d.now().Add(turnAwayTime)
	if err := g.SetDeadline(g.deadline); err != nil {
		_ = g.Close() // as the server would, at its first look
	}
	return g, nil
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closing) })
	return d.Listener.Close()
}

// enter gives a place to a connection, if need be that of an idle one.
func (d *door) enter(g *guest) bool {
	d.mu.Lock()
	var gives *guest
	if d.full(g.address) {
		if first := d.idle.Front(); first != nil {
			if oldest, ok := first.Value.(*guest); ok && d.now().Sub(oldest.since) >= idleAtLeast {
				gives = oldest
				d.leaveIdle(gives)
			}
		}
	}
	d.mu.Unlock()
	if gives != nil {
		d.metrics.evicted.Inc()
		_ = gives.Close() // without a word: its client is told by the end of the connection, as after the idle timeout
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full(g.address) {
		return false
	}
	d.open++
	d.addresses[g.address]++
	d.beIdle(g)
	d.metrics.open.Set(float64(d.open))
	return true
}

// full says whether there is no place for one more of an address; it is called with mu held.
func (d *door) full(a netip.Addr) bool {
	return d.open >= d.max && (d.open >= d.max+reserved || d.addresses[a] >= perAddress)
}

// beIdle and leaveIdle are called with mu held.
func (d *door) beIdle(g *guest) {
	d.leaveIdle(g)
	g.since = d.now()
	g.element = d.idle.PushBack(g)
}

func (d *door) leaveIdle(g *guest) {
	if g.element != nil {
		d.idle.Remove(g.element)
		g.element = nil
	}
}

// Close implements net.Conn and gives the place back.
func (g *guest) Close() error {
	g.closed.Do(func() {
		d := g.door
		if g.over {
			<-d.away
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.leaveIdle(g)
		d.open--
		if d.addresses[g.address]--; d.addresses[g.address] == 0 {
			delete(d.addresses, g.address)
		}
		d.metrics.open.Set(float64(d.open))
	})
	return g.Conn.Close()
}

// SetDeadline implements net.Conn, as do the two below: the end of who is turned away cannot be put off.
func (g *guest) SetDeadline(t time.Time) error { return g.Conn.SetDeadline(g.earlier(t)) }

// SetReadDeadline implements net.Conn.
func (g *guest) SetReadDeadline(t time.Time) error { return g.Conn.SetReadDeadline(g.earlier(t)) }

// SetWriteDeadline implements net.Conn.
func (g *guest) SetWriteDeadline(t time.Time) error { return g.Conn.SetWriteDeadline(g.earlier(t)) }

func (g *guest) earlier(t time.Time) time.Time {
	if g.over && (t.IsZero() || t.After(g.deadline)) {
		return g.deadline
	}
	return t
}

// CloseWrite lets the server end an answer before the connection, so that the client gets all of it.
func (g *guest) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// guestKey is where a request's context has its guest.
type guestKey struct{}

// remember is an http.Server's ConnContext.
func remember(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, guestOf(c))
}

func isOver(r *http.Request) bool {
	g, ok := r.Context().Value(guestKey{}).(*guest)
	return ok && g != nil && g.over
}

// observe is an http.Server's ConnState. A connection of HTTP/2 is active for as long as it has streams.
func (d *door) observe(c net.Conn, state http.ConnState) {
	g := guestOf(c)
	if g == nil || g.over {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch state {
	case http.StateIdle:
		d.beIdle(g)
	case http.StateActive, http.StateHijacked, http.StateClosed:
		d.leaveIdle(g)
	default: // new: it has been idle since it was let in
	}
}

func guestOf(c net.Conn) *guest {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	g, _ := c.(*guest)
	return g
}

// addressOf is without the port. A network of IPv6 counts as one address, because one host has all of it.
func addressOf(c net.Conn) netip.Addr {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	a := from.Addr().Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	network, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return network.Addr()
}
