package stage

// NewWatch is connected to nothing.
func NewWatch() *Watch { return newWatch() }

// See takes an event.
func (w *Watch) See(data []byte) { w.see(data) }
