package harness

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// dnsTTL is how long an answer may be remembered, in seconds: the programs remember none.
	dnsTTL = 1
	// dnsSilence bounds a connection over TCP.
	dnsSilence = 30 * time.Second
)

// DNS is a name server on the loopback interface whose names come and go as a test wants. It answers for addresses over UDP and
// TCP, knows no name that it was not told, and asks nobody. It is safe for concurrent use.
//
// SPEC: RFC 1035, sections 4.1 and 4.2.
type DNS struct {
	packets  net.PacketConn
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	names  map[string][]netip.Addr // guarded by mu; in lower case, with the dot at the end
	mute   bool                    // guarded by mu
	asked  map[string]int          // guarded by mu
	opened map[net.Conn]struct{}   // guarded by mu; nil after Close
}

// StartDNS starts a name server that knows no name.
func StartDNS(ctx context.Context) (*DNS, error) {
	d := &DNS{names: make(map[string][]netip.Addr), asked: make(map[string]int), opened: make(map[net.Conn]struct{})}
	var lc net.ListenConfig
	var err error
	for range 10 { // a port that is free for UDP may be taken for TCP
		if d.packets, err = lc.ListenPacket(ctx, "udp", "127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("starting the name server: %w", err)
		}
		if d.listener, err = lc.Listen(ctx, "tcp", d.packets.LocalAddr().String()); err == nil {
			break
		}
		_ = d.packets.Close() // the next port is tried
	}
	if err != nil {
		return nil, fmt.Errorf("starting the name server: %w", err)
	}
	d.running.Go(d.servePackets)
	d.running.Go(d.serveConnections)
	return d, nil
}

// Addr is where it answers, as host:port.
func (d *DNS) Addr() string { return d.packets.LocalAddr().String() }

// Set lets a name resolve to addresses; to none, it is there and has no address.
func (d *DNS) Set(name string, addresses ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[canonical(name)] = slices.Clone(addresses)
}

// Remove lets a name not be there.
func (d *DNS) Remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, canonical(name))
}

// Mute lets the server answer nothing at all, or answer again.
func (d *DNS) Mute(mute bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = mute
}

// Asked says how many questions there were for a name.
func (d *DNS) Asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[canonical(name)]
}

// Close stops the server.
func (d *DNS) Close() error {
	d.mu.Lock()
	for conn := range d.opened {
		_ = conn.Close() // nobody waits for its answer any more
	}
	d.opened = nil
	d.mu.Unlock()
	err := d.packets.Close()
	if other := d.listener.Close(); err == nil {
		err = other
	}
	d.running.Wait()
	return err
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

func (d *DNS) servePackets() {
	question := make([]byte, 64<<10)
	for {
		n, from, err := d.packets.ReadFrom(question)
		if err != nil {
			return // closed
		}
		if answer := d.answer(question[:n]); answer != nil {
			_, _ = d.packets.WriteTo(answer, from) // who does not get it asks again
		}
	}
}

func (d *DNS) serveConnections() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return // closed
		}
		d.mu.Lock()
		if d.opened == nil {
			d.mu.Unlock()
			_ = conn.Close() // it came too late
			return
		}
		d.opened[conn] = struct{}{}
		d.mu.Unlock()
		d.running.Go(func() { d.serveConnection(conn) })
	}
}

func (d *DNS) serveConnection(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.opened, conn)
	}()
	if conn.SetDeadline(time.Now().Add(dnsSilence)) != nil {
		return
	}
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		answer := d.answer(question)
		if answer == nil {
			continue
		}
		binary.BigEndian.PutUint16(length[:], uint16(len(answer))) //nolint:gosec // a few addresses
		if _, err := conn.Write(append(length[:], answer...)); err != nil {
			return
		}
	}
}

// answer gives nil where there is none.
func (d *DNS) answer(packet []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(packet)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	name := canonical(question.Name.String())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[name]++
	if d.mute {
		return nil
	}
	addresses, known := d.names[name]
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{question},
	}
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addresses {
		head := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: dnsmessage.ClassINET, TTL: dnsTTL}
		switch {
		case question.Type == dnsmessage.TypeA && a.Is4():
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		case question.Type == dnsmessage.TypeAAAA && a.Is6():
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}
