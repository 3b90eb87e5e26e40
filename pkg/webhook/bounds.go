package webhook

import (
	"context"
	"slices"
	"sync"
	"time"
)

// bound names a limit that a delivery was refused for, from a closed set: it is a metric label.
type bound string

const (
	unbounded       bound = ""                // within all limits
	perCredential   bound = "credential"      // too many deliveries of one project wait
	inAll           bound = "total"           // too many deliveries wait in all
	tooLong         bound = "wait"            // no place became free in time
	unauthenticated bound = "unauthenticated" // too many secrets are being looked at
)

// limits are two numbers of deliveries.
type limits struct{ inAll, perProject int }

// inHand has the places of deliveries that were let in and are not answered, and the waiting room before them. A place is what
// costs memory: a body, and a publication under way. Who waits costs little more than the connection, and much less than
// two refusals and a repetition.
//
// As many of each project as Harbor ever sends at once get a place at once, whatever the others do. So the most that can be in
// hand is that number for each project with a secret, or a request for each connection of the listener, whichever is less.
// The others wait: those of one project in the order in which they came, and projects take turns, so that the crowd of one
// of them delays the others by one delivery each.
//
// Safe for concurrent use. It starts no goroutine: whoever leaves calls the next one.
type inHand struct {
	places, room limits
	patience     time.Duration // how long one waits at most

	mu       sync.Mutex
	total    int              // places that are taken; guarded by mu, as is all below
	waiting  int              // in all projects
	projects map[string]*line // without those that have no place and nobody who waits
	turns    []*line          // the projects in which somebody waits, the next one first
}

// line is what one project has in hand and in the waiting room. Its fields are guarded by the mu of its inHand.
type line struct {
	places  int
	waiting []chan struct{} // the longest waiting first; closing one calls who waits for it
}

func newInHand(places, room limits, patience time.Duration) *inHand {
	return &inHand{places: places, room: room, patience: patience, projects: map[string]*line{}}
}

// enter takes a delivery in hand, until leave, or names the limit that forbids it. It waits for a place, unless the room is
// full, for as long as patience and ctx allow.
func (h *inHand) enter(ctx context.Context, project string) bound {
	called, why := h.knock(project)
	if called == nil {
		return why
	}
	timer := time.NewTimer(h.patience)
	defer timer.Stop()
	select {
	case <-called:
		return unbounded
	case <-timer.C:
	case <-ctx.Done():
	}
	return h.giveUp(project, called)
}

// knock takes a place, or one in the waiting room, where it gives what to wait for.
func (h *inHand) knock(project string) (called chan struct{}, why bound) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.projects[project]
	if l == nil {
		l = &line{}
		h.projects[project] = l
	}
	switch {
	// Nobody who waits is passed over: for a place that this project may have, the last one who left would have called.
	case h.hasPlace(l):
		h.take(l)
		return nil, unbounded
	case len(l.waiting) >= h.room.perProject:
		return nil, perCredential
	case h.waiting >= h.room.inAll:
		return nil, inAll
	}
	if len(l.waiting) == 0 {
		h.turns = append(h.turns, l)
	}
	called = make(chan struct{})
	l.waiting = append(l.waiting, called)
	h.waiting++
	return called, unbounded
}

// giveUp leaves the waiting room, unless a place was given meanwhile.
func (h *inHand) giveUp(project string, called chan struct{}) bound {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.projects[project]
	at := slices.Index(l.waiting, called)
	if at < 0 {
		return unbounded
	}
	h.stopWaiting(l, at)
	return tooLong
}

// leave gives a place back, and calls who is next: of the same project if that was one of its first ten, or whose turn it is.
func (h *inHand) leave(project string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.projects[project]
	h.total--
	l.places--
	switch {
	case l.places == 0:
		delete(h.projects, project) // nobody waits where the first ten are not in hand
	case l.places < harborWorkers && len(l.waiting) > 0:
		h.call(l)
		return
	}
	// One place was given back, so there is one at most to give.
	if next := slices.IndexFunc(h.turns, h.hasPlace); next >= 0 {
		h.call(h.turns[next])
	}
}

// hasPlace and the three below are called with mu held.
func (h *inHand) hasPlace(l *line) bool {
	return l.places < harborWorkers || l.places < h.places.perProject && h.total < h.places.inAll
}

func (h *inHand) take(l *line) {
	h.total++
	l.places++
}

// call gives a place to who has waited for the longest in a project. After that it is the turn of all others.
func (h *inHand) call(l *line) {
	h.take(l)
	close(l.waiting[0])
	h.stopWaiting(l, 0)
	if at := slices.Index(h.turns, l); at >= 0 {
		h.turns = append(slices.Delete(h.turns, at, at+1), l)
	}
}

func (h *inHand) stopWaiting(l *line, at int) {
	h.waiting--
	if l.waiting = slices.Delete(l.waiting, at, at+1); len(l.waiting) == 0 {
		h.turns = slices.DeleteFunc(h.turns, func(other *line) bool { return other == l })
	}
}

// counts gives how many have a place, and how many wait.
func (h *inHand) counts() (places, waiting int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total, h.waiting
}

// strangers are the places of those whose secret is looked at. That takes microseconds, so a delivery waits for a place:
// whoever knocks without a secret must not have Harbor refused. Files that do not answer hold no more than the places.
type strangers chan struct{}

// enter waits for a place until ctx ends, and says whether there was one; leave gives it back.
func (s strangers) enter(ctx context.Context) bool {
	select {
	case s <- struct{}{}:
		return true
	default:
	}
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s strangers) leave() { <-s }
