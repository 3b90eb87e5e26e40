package access

// Sizes gives how many answers and how many guessers are remembered, for tests of their bounds.
func (a *Access) Sizes() (answers, guessers int) {
	a.tokenRights.mu.Lock()
	defer a.tokenRights.mu.Unlock()
	a.throttle.mu.Lock()
	defer a.throttle.mu.Unlock()
	return len(a.tokenRights.known), max(len(a.throttle.accounts), len(a.throttle.addresses))
}

// Waiting gives how many callers ask or wait.
func (a *Access) Waiting() int {
	a.callers.mu.Lock()
	defer a.callers.mu.Unlock()
	return len(a.callers.own)
}
