package signing

import "sync"

// maxPushed bounds what is remembered: some megabytes.
const maxPushed = 20_000

// pushed remembers which blobs this process has uploaded. Registries delete blobs, so it is a guess. The zero value is
// empty.
type pushed struct {
	mu    sync.Mutex
	blobs map[string]struct{} // guarded by mu; repository and digest
}

func (p *pushed) has(repository, digest string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, found := p.blobs[repository+"@"+digest]
	return found
}

func (p *pushed) add(repository, digest string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blobs == nil || len(p.blobs) >= maxPushed {
		p.blobs = make(map[string]struct{}) // forgetting costs two requests
	}
	p.blobs[repository+"@"+digest] = struct{}{}
}
