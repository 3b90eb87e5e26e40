package queue

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// handles keeps the handles of streams, because making one asks the server for the state of its stream. A handle knows the
// name of its stream and the settings that the stream had. The zero value is ready; it is safe for concurrent use.
type handles struct {
	mu     sync.Mutex
	byName map[string]jetstream.Stream // guarded by mu
}

// handle gives the handle of a stream. Whoever meets an error with it calls forget, because the stream may be another one
// by now. What the handle has cached is old: who wants the state of a stream asks for it. Messages are read from the leader.
func (c *Client) handle(ctx context.Context, name string) (jetstream.Stream, error) {
	c.handles.mu.Lock()
	kept, found := c.handles.byName[name]
	c.handles.mu.Unlock()
	if found {
		return kept, nil
	}
	// Two at once both ask, which costs a request and nothing else.
	made, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	// nats.go asks any replica where the stream allows that. Whoever asks for a message has to see what was confirmed before.
	made.CachedInfo().Config.AllowDirect = false
	c.handles.mu.Lock()
	defer c.handles.mu.Unlock()
	if c.handles.byName == nil {
		c.handles.byName = map[string]jetstream.Stream{}
	}
	c.handles.byName[name] = made
	return made, nil
}

func (h *handles) forget(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byName, name)
}
