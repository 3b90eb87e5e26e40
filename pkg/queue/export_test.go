package queue

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Slots gives tests the semaphore of Consume.
type Slots = slots

// NewSlots makes a semaphore.
func NewSlots(total int) *Slots { return newSlots(total) }

// Acquire is acquire.
func (s *slots) Acquire(ctx context.Context, lane artifact.Lane) (release func(), err error) {
	return s.acquire(ctx, lane)
}

// Held is the number of slots that are held.
func (s *slots) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[artifact.Live] + s.held[artifact.Bulk]
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
