package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// beat is how often a program says that it is there, and beatsMissed after how many silent ones it counts as gone.
	beat        = 5 * time.Second
	beatsMissed = 3
	// maxMember bounds the name of a member, in bytes.
	maxMember = 64
)

// Announce makes this program a member of a group of programs that share something, such as a budget of requests, until
// ctx ends; [Client.Peers] counts them. A client announces itself once per group at a time. A group is 1 to 32 of a-z, 0-9,
// - and _. Lost connections and restarts of the server do not end it.
func (c *Client) Announce(ctx context.Context, group string) error {
	if err := validateToken("group", group); err != nil {
		return fmt.Errorf("announcing this program: %w", err)
	}
	r := newRoster(c.id)
	if !c.rosters.add(group, r) {
		return fmt.Errorf("announcing this program: it is a member of %s already", group)
	}
	defer c.rosters.remove(group)
	subject := "presence.v1." + c.cfg.Harbor + "." + group
	heard := make(chan *nats.Msg, 256)
	subscription, err := c.nats.ChanSubscribe(subject, heard)
	if err != nil {
		return fmt.Errorf("announcing this program: %w", err)
	}
	defer func() {
		_ = subscription.Unsubscribe() // Closed with the connection otherwise.
		c.say(subject, left)
	}()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	c.say(subject, here)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			c.say(subject, here)
		case msg := <-heard:
			if r.hear(string(msg.Data), msg.Header.Get(presenceHeader), time.Now()) {
				c.say(subject, here) // Who is new need not wait for the next beat to know of this program.
			}
		}
	}
}

// Peers is how many programs are members of a group, this one included: at least 1, and 1 if this program did not announce
// itself. Who ends says so; who vanishes is counted for 15 seconds more. Without a connection the last count stays: who
// cannot hear the others must not take their share.
func (c *Client) Peers(group string) int { return c.rosters.count(group) }

// presenceHeader says whether a member is here or has left; the body is its name.
const (
	presenceHeader = "Harborseal-Presence"
	here           = "here"
	left           = "left"
)

// say tells the group. What is lost is said again with the next beat.
func (c *Client) say(subject, what string) {
	if !c.nats.IsConnected() {
		return // nats.go would keep the beats for the next connection.
	}
	msg := &nats.Msg{Subject: subject, Data: []byte(c.id), Header: nats.Header{}}
	msg.Header.Set(presenceHeader, what)
	if err := c.nats.PublishMsg(msg); err != nil {
		c.log.Debug().Err(err).Msg("cannot tell that this program is there")
	}
}

// rosters are those of the groups that a client is a member of. The zero value is ready.
type rosters struct {
	mu      sync.Mutex
	byGroup map[string]*roster // guarded by mu
}

func (s *rosters) add(group string, r *roster) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found := s.byGroup[group]; found {
		return false
	}
	if s.byGroup == nil {
		s.byGroup = map[string]*roster{}
	}
	s.byGroup[group] = r
	return true
}

func (s *rosters) remove(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byGroup, group)
}

func (s *rosters) count(group string) int {
	s.mu.Lock()
	r := s.byGroup[group]
	s.mu.Unlock()
	if r == nil {
		return 1
	}
	return r.count()
}

// roster knows when each member of a group was heard last. It is safe for concurrent use.
type roster struct {
	self string

	mu sync.Mutex
	// now is when this program heard itself last: while it does not, the time of the others stands still as well.
	now   time.Time            // guarded by mu
	heard map[string]time.Time // guarded by mu; without self
}

func newRoster(self string) *roster { return &roster{self: self, heard: map[string]time.Time{}} }

// hear notes a message of a member and says whether it is a new one.
func (r *roster) hear(member, what string, at time.Time) (isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case member == "" || len(member) > maxMember:
		return false
	case member == r.self:
		if deaf := at.Sub(r.now) - 2*beat; !r.now.IsZero() && deaf > 0 {
			for other, when := range r.heard {
				r.heard[other] = when.Add(deaf)
			}
		}
		r.now = at
		for other, when := range r.heard {
			if at.Sub(when) > beatsMissed*beat {
				delete(r.heard, other)
			}
		}
		return false
	case what == left:
		delete(r.heard, member)
		return false
	}
	_, found := r.heard[member]
	r.heard[member] = at
	return !found
}

func (r *roster) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return 1 + len(r.heard)
}
