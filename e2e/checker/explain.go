package checker

// Explanations says which reasons of dead letters a kind of fault explains. Most kinds explain none: what passes by itself
// must be waited for, however long it lasts, and who loses a signature because a registry was slow has lost it.
func Explanations() map[string][]string {
	return map[string][]string{
		// Harbor says that the project is full, and nobody knows whether that will change.
		"quota": {"quota_exceeded"},
		// By a clock that was set forward, what waits is older than a request may get.
		"clock": {"too_old"},
	}
}
