package status

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// hub knows who waits for which digests, and of which of them something has happened. It is safe for concurrent use.
type hub struct {
	mu      sync.Mutex
	watched map[artifact.Ref][]*watch // guarded by mu, as is due
	due     map[artifact.Ref]struct{} // of those that are watched: not read again yet
	// wake has a value if something is due.
	wake chan struct{}
}

// watch is one who waits. It belongs to one goroutine, but for what the hub guards.
type watch struct {
	refs []artifact.Ref // of the goroutine; added to by hub.follow
	// changed has a value if there is news.
	changed chan struct{}
	news    map[artifact.Ref]artifact.Known // guarded by hub.mu; nil if there are none
}

func newHub() *hub {
	return &hub{watched: map[artifact.Ref][]*watch{}, due: map[artifact.Ref]struct{}{}, wake: make(chan struct{}, 1)}
}

func newWatch() *watch { return &watch{changed: make(chan struct{}, 1)} }

// follow adds digests to those that somebody waits for. What happens from now on is news: their rows are read after it.
func (h *hub) follow(w *watch, refs ...artifact.Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ref := range refs {
		if !slices.Contains(h.watched[ref], w) {
			h.watched[ref] = append(h.watched[ref], w)
			w.refs = append(w.refs, ref)
		}
	}
}

// leave ends a watch.
func (h *hub) leave(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ref := range w.refs {
		left := slices.DeleteFunc(h.watched[ref], func(other *watch) bool { return other == w })
		if len(left) == 0 {
			delete(h.watched, ref)
			delete(h.due, ref)
			continue
		}
		h.watched[ref] = left
	}
}

// wanted gives those events that somebody waits for.
func (h *hub) wanted(entries []artifact.Entry) (wanted []artifact.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watched) == 0 {
		return nil
	}
	for i := range entries {
		if event := &entries[i].Event; h.watched[event.Ref] != nil {
			wanted = append(wanted, *event)
		}
	}
	return wanted
}

// happened notes that something has happened to those digests of the events that somebody still waits for. It never blocks.
func (h *hub) happened(events []artifact.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range events {
		if ref := events[i].Ref; h.watched[ref] != nil {
			h.due[ref] = struct{}{}
		}
	}
	if len(h.due) > 0 {
		h.ring()
	}
}

// missed notes that something may have happened to all digests that somebody waits for. It never blocks.
func (h *hub) missed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ref := range h.watched {
		h.due[ref] = struct{}{}
	}
	if len(h.due) > 0 {
		h.ring()
	}
}

// ring tells who reads that something is due.
func (h *hub) ring() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take gives up to limit digests that are to be read again.
func (h *hub) take(limit int) []artifact.Ref {
	h.mu.Lock()
	defer h.mu.Unlock()
	refs := make([]artifact.Ref, 0, min(limit, len(h.due)))
	for ref := range h.due {
		if len(refs) == limit {
			break
		}
		refs = append(refs, ref)
		delete(h.due, ref)
	}
	return refs
}

// again puts back what could not be read. Who waits for it no longer does not matter.
func (h *hub) again(refs []artifact.Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ref := range refs {
		if _, found := h.watched[ref]; found {
			h.due[ref] = struct{}{}
		}
	}
}

// tell wakes those who wait for what was read.
func (h *hub) tell(all []artifact.Known) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, known := range all {
		for _, w := range h.watched[known.Ref] {
			if w.news == nil {
				w.news = make(map[artifact.Ref]artifact.Known, 1)
			}
			w.news[known.Ref] = known
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// hear moves the news of a watch into what its goroutine knows.
func (h *hub) hear(w *watch, known map[artifact.Ref]artifact.Known) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.Copy(known, w.news)
	w.news = nil
}

// isIndex says whether a media type is that of a manifest with children; known is false for one that says nothing.
func isIndex(mediaType string) (index, known bool) {
	index = strings.HasSuffix(mediaType, "image.index.v1+json") || strings.HasSuffix(mediaType, "manifest.list.v2+json")
	return index, mediaType != ""
}
