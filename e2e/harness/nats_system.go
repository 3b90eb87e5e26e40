package harness

import (
	"context"
	"sync"
)

// addresses are what a program dials that goes through a door; none without one.
func (d *Door) addresses() []string {
	if d == nil {
		return nil
	}
	all := make([]string, len(d.Proxies))
	for i, p := range d.Proxies {
		all[i] = p.Addr()
	}
	return all
}

// queueElsewhere is what the configuration of a program says of servers of their own.
func (s *System) queueElsewhere(p *Program, user string) Config {
	n := s.options.NATS
	c := Config{
		"urls": p.Door.URLs(), "username": user, "password_file": n.PasswordFile(user),
		"replicas": n.Replicas(), "ack_wait": s.options.AckWait.String(),
	}
	if n.authority != nil {
		Set(c, n.authority.File, "tls", "ca_file")
	}
	if user == natsReceiver && !n.options.OneAccount {
		Set(c, "imported", "account")
	}
	return c
}

// LedgerOf is the database of a receiver's report.
func (s *System) LedgerOf(receiver *Program) string {
	if receiver == s.Receiver {
		return s.LedgerPath()
	}
	return s.path(receiver.Name + "-ledger.db")
}

// balancer is what spreads webhooks over several receivers, as a balancer of connections before them does: each connection goes
// to the next one, and on to another if that refuses. Its zero value does not run. It is safe for concurrent use.
type balancer struct {
	mu    sync.Mutex
	proxy *TCPProxy // guarded by mu; nil while it does not run
}

// startBalancer starts it where there are several receivers, unless it runs.
func (s *System) startBalancer(ctx context.Context) error {
	if s.front == "" {
		return nil
	}
	b := &s.balance
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proxy != nil {
		return nil
	}
	var targets []string
	for _, p := range s.Receivers {
		targets = append(targets, p.Listen)
	}
	var err error
	b.proxy, err = StartTCPProxy(ctx, s.front, targets...)
	return err
}

// ResetWebhooks breaks all connections between Harbor and the receivers, where there are several. They are made again at once.
func (s *System) ResetWebhooks() {
	s.balance.mu.Lock()
	defer s.balance.mu.Unlock()
	if s.balance.proxy != nil {
		s.balance.proxy.Reset()
	}
}

func (b *balancer) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proxy == nil {
		return nil
	}
	err := b.proxy.Close()
	b.proxy = nil
	return err
}
