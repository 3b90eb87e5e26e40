package queue

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// Slots gives tests the semaphore of Consume.
type Slots = slots

// Claim is one that waits for a slot.
type Claim = claim

// NewSlots makes a semaphore.
func NewSlots(total int, capOf func(project string) int) *Slots { return newSlots(total, 1, capOf) }

// NewSlotsAside makes a semaphore with places aside.
func NewSlotsAside(total, places int, capOf func(project string) int) *Slots {
	return newSlots(total, places, capOf)
}

// Enter is enter; the channel is closed when the slot is given.
func (s *slots) Enter(lane artifact.Lane, project string) (c *Claim, granted <-chan struct{}) {
	return s.EnterAs(lane, project, false)
}

// EnterAs is Enter of a retry or a first try.
func (s *slots) EnterAs(lane artifact.Lane, project string, retry bool) (c *Claim, granted <-chan struct{}) {
	c = s.enter(lane, project, retry)
	return c, c.granted
}

// Leave is leave.
func (s *slots) Leave(c *Claim) { s.leave(c) }

// Release is release.
func (s *slots) Release(c *Claim) { s.release(c) }

// AskForPlace is askForPlace.
func (s *slots) AskForPlace(c *Claim) <-chan struct{} { return s.askForPlace(c) }

// AskForSlot is askForSlot.
func (s *slots) AskForSlot(c *Claim) <-chan struct{} { return s.askForSlot(c) }

// Withdraw is withdraw.
func (s *slots) Withdraw(c *Claim) bool { return s.withdraw(c) }

// StepAside is stepAside.
func (s *slots) StepAside(ctx context.Context, c *Claim) error { return s.stepAside(ctx, c) }

// Aside is the number of places that are taken.
func (s *slots) Aside() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aside
}

// BulkLimit is how many slots bulk may hold.
func (s *slots) BulkLimit() int { return s.bulkLimit }

// Pace spreads what comes too fast.
type Pace = pace

// NewPace makes one.
func NewPace(perSecond float64) *Pace { return newPace(perSecond) }

// Next is next.
func (p *pace) Next(now time.Time) time.Duration { return p.next(now) }

// Acquire is acquire.
func (s *slots) Acquire(ctx context.Context, lane artifact.Lane, project string) (release func(), err error) {
	c := s.enter(lane, project, false)
	select {
	case <-c.granted:
		return func() { s.release(c) }, nil
	case <-ctx.Done():
		s.leave(c)
		return nil, ctx.Err()
	}
}

// Held is the number of slots that are held.
func (s *slots) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken()
}

// OnVolume lets the store of a server lie on a volume of a size.
func OnVolume(cfg ServerConfig, size int64, err error) ServerConfig {
	cfg.volumeSize = func(string) (int64, error) { return size, err }
	return cfg
}

// ServerCertificate is the certificate that the server showed.
func (c *Client) ServerCertificate() *x509.Certificate {
	state, err := c.nats.TLSConnectionState()
	if err != nil {
		return nil
	}
	return state.PeerCertificates[0]
}

// ForgetRefusals makes a client forget which publishes were refused, as it does by itself after some seconds.
func ForgetRefusals(c *Client) {
	c.writes.mu.Lock()
	defer c.writes.mu.Unlock()
	clear(c.writes.refused)
}

// RawConnection connects to a server in this process without this package's client.
func RawConnection(t *testing.T, server *Server) *nats.Conn {
	t.Helper()
	connection, err := nats.Connect("", nats.InProcessServer(inProcess{server}), nats.UserInfo(server.user, server.password))
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	t.Cleanup(connection.Close)
	return connection
}

// DecodeKept reads what is kept in the place of s.
func DecodeKept(data []byte, ref artifact.Ref, s artifact.Signature) (artifact.Signature, error) {
	return decodeKept(data, ref, s)
}

// Roster counts members.
type Roster = roster

// NewRoster makes one for a member.
func NewRoster(self string) *Roster { return newRoster(self) }

// Hear is hear.
func (r *roster) Hear(member string, hasLeft bool, at time.Time) {
	what := here
	if hasLeft {
		what = left
	}
	r.hear(member, what, at)
}

// Count is count.
func (r *roster) Count() int { return r.count() }

// CrossOver gives what an error is on the other side of a question.
func CrossOver(err error) error { return decodeFault(encodeFault("reply", err)) }

// DecodeFault gives what an answer with such headers is.
func DecodeFault(kind, reason, delay string, body []byte) error {
	return decodeFault(&nats.Msg{Header: nats.Header{kindHeader: {kind}, reasonHeader: {reason}, delayHeader: {delay}}, Data: body})
}

// StateSubject is where a state is kept.
func StateSubject(harbor, kind, key string) string { return stateSubject(harbor, kind, key) }

// ParsePolicySubject is parsePolicySubject.
func ParsePolicySubject(subject string) (kind book.Kind, project string, err error) {
	return parsePolicySubject(subject)
}

// DecodeLetter reads what is stored as dead letter 1.
func DecodeLetter(data []byte) artifact.DeadLetter {
	return decodeLetter(&jetstream.RawStreamMsg{Sequence: 1, Data: data, Time: time.Unix(1_700_000_000, 0)})
}

// Looking lets a server look at its volume at other times than each second.
func Looking(cfg ServerConfig, every time.Duration) ServerConfig {
	cfg.lookEvery = every
	return cfg
}

// LookAt lets the server look at its volume and its health, as if it was so late.
func (s *Server) LookAt(now time.Time) { s.room.look(now) }

// SlowConsumers is how many connections were cut off because they did not read.
func (s *Server) SlowConsumers() int64 { return s.nats.NumSlowConsumers() }

// Matches compares a filter with a subject.
func Matches(filter, subject string) bool {
	return matches(strings.Split(filter, "."), strings.Split(subject, "."))
}

// LookAtLimits gives a function that warns of limits.
func LookAtLimits(log zerolog.Logger) func(Usage) {
	w := warnings{}
	return func(u Usage) { w.look(log, u) }
}

// ReserveOf is reserveOf.
func ReserveOf(asked, size int64) int64 { return reserveOf(asked, size) }

// NotReady is notReady.
func NotReady(err error) bool { return notReady(err) }

// Subscriptions is how many the connection of a client has.
func Subscriptions(c *Client) int { return c.nats.NumSubscriptions() }

// LookingAtRetention has WatchRetention look so often.
func LookingAtRetention(cfg Config, every time.Duration) Config {
	cfg.retentionEvery = every
	return cfg
}

// ExpectRetention checks that nothing shortens the ledger's retention.
func ExpectRetention(t *testing.T, c *Client, wanted time.Duration) {
	t.Helper()
	cfg, err := c.ledgerConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What the oldest are dropped by is repaired as well.
	if found := shortenings(cfg, wanted); len(found) > 0 {
		t.Errorf("after the repair: %v", found)
	}
}
