package signing

// Recent lets the tests see a memory's bounds.
type Recent[K comparable, V any] = recent[K, V]

// NewRecent gives a memory of this size.
func NewRecent[K comparable, V any](size int) *Recent[K, V] { return &Recent[K, V]{size: size} }

// Len is how much it remembers.
func (r *recent[K, V]) Len() int { return len(r.new) + len(r.old) }

// Put is put.
func (r *recent[K, V]) Put(key K, value V) { r.put(key, value) }

// Get is get.
func (r *recent[K, V]) Get(key K) (V, bool) { return r.get(key) }
