package signing

import "sync"

// recent remembers the newest entries of a map: at most twice its size, at least its size. Forgetting must only cost
// time. The zero value remembers nothing.
type recent[K comparable, V any] struct {
	size int

	mu       sync.Mutex
	new, old map[K]V // guarded by mu; when new is full it becomes old
}

func (r *recent[K, V]) get(key K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if value, found := r.new[key]; found {
		return value, true
	}
	value, found := r.old[key]
	return value, found
}

func (r *recent[K, V]) put(key K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.new == nil || len(r.new) >= r.size {
		r.new, r.old = make(map[K]V), r.new
	}
	r.new[key] = value
}
