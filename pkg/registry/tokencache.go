package registry

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// tokenCache keeps one token for each repository until shortly before it expires, at most maxTokens in all. However many
// ask for one at the same time, one request is sent.
type tokenCache struct {
	// fetch gets a token and its lifetime.
	fetch func(ctx context.Context, repository string) (string, time.Duration, error)

	mu      sync.Mutex
	entries map[string]*tokenEntry // guarded by mu
}

// tokenEntry is written by the goroutine that fetches, before it closes ready, and only read after that.
type tokenEntry struct {
	ready   chan struct{}
	token   string
	renewAt time.Time
	err     error
	// abandoned says that the fetching goroutine's own context ended: that is no answer for those who waited with it.
	abandoned bool
}

func newTokenCache(fetch func(context.Context, string) (string, time.Duration, error)) *tokenCache {
	return &tokenCache{fetch: fetch, entries: make(map[string]*tokenEntry)}
}

// get gives a token that is good for some time still. The fetch runs in the caller's context and goroutine; nothing of it
// outlives the call.
func (t *tokenCache) get(ctx context.Context, repository string) (string, error) {
	for {
		t.mu.Lock()
		e, ok := t.entries[repository]
		if !ok || e.stale(time.Now()) {
			e = &tokenEntry{ready: make(chan struct{})}
			t.makeRoom()
			t.entries[repository] = e
			t.mu.Unlock()
			t.fill(ctx, repository, e)
			return e.token, e.err
		}
		t.mu.Unlock()
		select {
		case <-e.ready:
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for a token: %w", ctx.Err())
		}
		if !e.abandoned {
			return e.token, e.err
		}
	}
}

func (t *tokenCache) fill(ctx context.Context, repository string, e *tokenEntry) {
	defer close(e.ready)
	start := time.Now()
	var lifetime time.Duration
	e.token, lifetime, e.err = t.fetch(ctx, repository)
	e.renewAt = start.Add(lifetime - min(lifetime/10, maxRenewalSlack))
	e.abandoned = e.err != nil && ctx.Err() != nil
	if e.err != nil {
		t.remove(repository, e)
	}
}

// drop forgets a token that was refused, unless it was replaced already.
func (t *tokenCache) drop(repository, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.entries[repository]; ok && e.done() && e.token == token {
		delete(t.entries, repository)
	}
}

// forget makes the next get ask the token service, unless somebody is asking it just now.
func (t *tokenCache) forget(repository string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.entries[repository]; ok && e.done() {
		delete(t.entries, repository)
	}
}

func (t *tokenCache) remove(repository string, e *tokenEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[repository] == e {
		delete(t.entries, repository)
	}
}

// makeRoom is called with mu held. It removes what is stale, and any one entry if that was not enough.
func (t *tokenCache) makeRoom() {
	if len(t.entries) < maxTokens {
		return
	}
	now := time.Now()
	for repository, e := range t.entries {
		if e.stale(now) {
			delete(t.entries, repository)
		}
	}
	for repository, e := range t.entries {
		if len(t.entries) < maxTokens {
			return
		}
		if e.done() {
			delete(t.entries, repository)
		}
	}
}

func (e *tokenEntry) done() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

func (e *tokenEntry) stale(now time.Time) bool { return e.done() && !now.Before(e.renewAt) }
