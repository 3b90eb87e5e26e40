// Package egress is the one way out: every connection that a program opens is opened by its [Dialer].
//
// It guarantees that a destination stands in the record, where one is kept, before it is dialled for the first time: the
// network, and the host and port as the caller asked for them, so a name and not what it resolves to. Behind a proxy the
// destination is the proxy, and where a name server is configured, that one too. Requests, paths and credentials are never
// recorded. It does not decide what may be dialled; that is the business of the adapters, which know what is configured. Nor does
// it remember what a name resolved to: every connection, and every [Dialer.Lookup], asks anew.
package egress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// dialTimeout bounds name resolution and connecting, over all addresses of a host.
	dialTimeout = 10 * time.Second
	// keepAlive finds dead peers within about a minute.
	keepAlive = 15 * time.Second
)

// DefaultUserAgent is what this program calls itself towards Harbor. Harbor's pull policy lets nobody read what is not
// signed yet whose User-Agent does not contain "cosign".
const DefaultUserAgent = "harborseal (cosign-compatible)"

// Config says what is kept of the destinations. The zero value keeps nothing.
type Config struct {
	// RecordFile is appended to, and made with mode 0600 if need be; empty for none.
	RecordFile string
	// Record gets what RecordFile gets; nil for none. It is written to by one goroutine at a time.
	Record io.Writer
	// Resolver is the host:port of a name server that is asked instead of the system's; empty for the system's. Names that the
	// system's file of hosts has are not asked for.
	Resolver string
}

// Dialer opens connections. It is safe for concurrent use; the zero value records nothing, and resolves as the system does.
type Dialer struct {
	resolver *net.Resolver // nil for the system's; never changed

	mu      sync.Mutex
	file    *os.File                 // guarded by mu; nil without a file
	record  io.Writer                // guarded by mu; nil if nothing is recorded
	seen    map[destination]struct{} // guarded by mu
	failure error                    // guarded by mu: the first record that could not be written
}

// destination is one line of the record, without its time.
type destination struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

// NewDialer opens the record. Close the dialer when nothing dials any more.
func NewDialer(c Config) (*Dialer, error) {
	d := &Dialer{record: c.Record}
	if c.Resolver != "" {
		if host, port, err := net.SplitHostPort(c.Resolver); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("name server %.100q: want host:port", c.Resolver)
		}
		d.resolver = &net.Resolver{PreferGo: true, Dial: d.toNameServer(c.Resolver)}
	}
	if c.RecordFile == "" {
		return d, nil
	}
	f, err := os.OpenFile(c.RecordFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the record of destinations: %w", err)
	}
	d.file, d.record = f, f
	if c.Record != nil {
		d.record = io.MultiWriter(f, c.Record)
	}
	return d, nil
}

// DialContext is [net.Dialer.DialContext], recorded. A record that cannot be written does not stop the connection: it is
// tried again with the next one to the same destination, and Close tells of it.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.note(destination{Network: network, Address: address})
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive, Resolver: d.resolver}
	return dialer.DialContext(ctx, network, address)
}

// Lookup resolves a host as DialContext does, now. The error is a [*net.DNSError], or that of ctx.
func (d *Dialer) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	resolver := d.resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	return resolver.LookupNetIP(ctx, "ip", host)
}

// toNameServer dials one name server, whichever the system names.
func (d *Dialer) toNameServer(address string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		d.note(destination{Network: network, Address: address})
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// A lookup that nobody waits for any more would read until its own limit: its context ends with each question.
		context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		return conn, nil
	}
}

// Close closes the record's file and says what could not be written. Connections stay open.
func (d *Dialer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.failure
	if d.file != nil {
		err = errors.Join(err, d.file.Close())
	}
	d.file, d.record, d.failure = nil, nil, nil
	return err
}

// note records a destination that is new to this process. The line is written with one call, so that several processes
// may append to one file.
func (d *Dialer) note(to destination) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.record == nil {
		return
	}
	if _, known := d.seen[to]; known {
		return
	}
	line, err := json.Marshal(struct {
		Time time.Time `json:"time"`
		destination
	}{time.Now().UTC(), to})
	if err == nil {
		_, err = d.record.Write(append(line, '\n'))
	}
	if err != nil {
		if d.failure == nil {
			d.failure = fmt.Errorf("recording a destination: %w", err)
		}
		return
	}
	if d.seen == nil {
		d.seen = make(map[destination]struct{})
	}
	d.seen[to] = struct{}{}
}
