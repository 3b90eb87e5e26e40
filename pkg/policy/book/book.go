// Package book keeps the policies of all projects as they are now: those that a configuration file declares, those that
// the API keeps, and whether signing is paused.
//
// It guarantees that nothing is answered before everything was read once: an unread policy is an error and never "not
// enabled". A document that this program cannot read, such as one of a newer version, is an error for its project alone.
// It reads nothing itself: whoever watches the bucket applies what it sees. It is safe for concurrent use.
package book

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
)

// Kind is what an entry of the bucket holds.
type Kind string

// The kinds of entries.
const (
	Policy   Kind = "policy"   // policy.Document of a project
	State    Kind = "state"    // policy.State of a project
	Declared Kind = "declared" // policy.Declared; of no project
	Pause    Kind = "pause"    // policy.Pause of a project, or of all where it names none
)

// Entry is one value of the bucket.
type Entry struct {
	Kind    Kind
	Project string // empty where the kind is about all
	// Value is empty if the entry was deleted.
	Value    []byte
	Revision uint64
	At       time.Time
}

// Book is the live view.
type Book struct {
	defaults policy.Terms

	mu       sync.RWMutex
	loaded   bool                           // guarded by mu
	declared read[*policy.Declared]         // guarded by mu
	policies map[string]read[policy.Policy] // guarded by mu
	states   map[string]read[policy.State]  // guarded by mu
	pauses   map[string]read[policy.Pause]  // guarded by mu; the empty name stands for all projects
}

// read is a value of the bucket, or why it could not be read.
type read[T any] struct {
	value    T
	revision uint64
	err      error
}

// New makes an empty book. The defaults are for what policies leave open; the zero value leaves it open.
func New(defaults policy.Terms) *Book {
	return &Book{
		defaults: defaults,
		policies: map[string]read[policy.Policy]{}, states: map[string]read[policy.State]{}, pauses: map[string]read[policy.Pause]{},
	}
}

// Apply takes an entry. An older revision than the one that is known is ignored, so that a repetition does no harm.
func (b *Book) Apply(e Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Kind {
	case Policy:
		put(b.policies, e, func(data []byte) (policy.Policy, error) {
			d, err := policy.DecodeDocument(data)
			return d.Policy(e.Revision), err
		})
	case State:
		put(b.states, e, policy.DecodeState)
	case Pause:
		put(b.pauses, e, policy.DecodePause)
	case Declared:
		one := map[string]read[*policy.Declared]{"": b.declared}
		put(one, e, policy.DecodeDeclared)
		b.declared = one[""]
	default: // of a newer program
	}
}

// put keeps deleted entries as zero values, so that their revision is remembered.
func put[T any](into map[string]read[T], e Entry, decode func([]byte) (T, error)) {
	if e.Revision <= into[e.Project].revision {
		return
	}
	r := read[T]{revision: e.Revision}
	if len(e.Value) > 0 {
		if r.value, r.err = decode(e.Value); r.err != nil {
			r.err = fmt.Errorf("%s of %q at revision %d: %w", e.Kind, e.Project, e.Revision, r.err)
		}
	}
	into[e.Project] = r
}

// Loaded says that everything that the bucket held was applied.
func (b *Book) Loaded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded = true
}

// Lost says that changes may be missed from now on: nothing is answered before everything was read again, and Loaded called.
func (b *Book) Lost() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded = false
}

// Bucket is where the entries are kept.
type Bucket interface {
	// GetPolicy gives an entry as it is now, with a zero Value if there is none.
	GetPolicy(ctx context.Context, kind Kind, project string) (Entry, error)
}

// Refresh gives the policy of a project after all that it is made of was read from the bucket itself. It is for conclusions
// that nobody comes back to: changes reach a book later than whoever has made them is answered.
func (b *Book) Refresh(ctx context.Context, bucket Bucket, project string) (policy.Policy, error) {
	for _, at := range []struct {
		kind    Kind
		project string
	}{{Declared, ""}, {Policy, project}, {State, project}, {Pause, ""}, {Pause, project}} {
		e, err := bucket.GetPolicy(ctx, at.kind, at.project)
		if err != nil {
			return policy.Policy{}, fmt.Errorf("reading the policy of %q from the bucket: %w", project, err)
		}
		b.Apply(e)
	}
	return b.Policy(ctx, project)
}

// Policy gives the policy of a project as it is now. A project that nobody enabled has one that is not enabled; an error
// means that it is not known.
func (b *Book) Policy(_ context.Context, project string) (policy.Policy, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.lookup(project)
}

func (b *Book) lookup(project string) (policy.Policy, error) {
	if !b.loaded {
		return policy.Policy{}, policy.ErrNotLoaded
	}
	if b.declared.err != nil {
		return policy.Policy{}, b.declared.err
	}
	var p policy.Policy
	found := false
	if b.declared.value != nil {
		p, found = b.declared.value.Lookup(project)
	}
	kept := b.policies[project]
	if kept.err != nil {
		return policy.Policy{}, kept.err // it may forbid something, whatever the file says
	}
	if found {
		p.Blocks = slices.Concat(p.Blocks, kept.value.Blocks)
	} else {
		p = kept.value
	}
	p.Project = project
	p.Terms = p.Terms.Or(b.defaults).Or(policy.Terms{Format: policy.FormatAuto})
	if p.ProjectID != 0 {
		p.SuspendedFor = b.states[project].value.SuspendedFor
	}
	for _, name := range []string{"", project} {
		pause := b.pauses[name]
		if pause.err != nil {
			return policy.Policy{}, pause.err // it may say that nothing is to be signed
		}
		if pause.value.Paused && p.Pause == nil {
			p.Pause = &pause.value
		} else if pause.value.At.After(p.ResumedAt) {
			p.ResumedAt = pause.value.At
		}
	}
	return p, nil
}

// State gives what the service keeps about a project; the zero value if that is nothing.
func (b *Book) State(project string) (state policy.State, revision uint64, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if !b.loaded {
		return policy.State{}, 0, policy.ErrNotLoaded
	}
	s := b.states[project]
	return s.value, s.revision, s.err
}

// Declared gives what the configuration file declares; nil if that is nothing.
func (b *Book) Declared() (*policy.Declared, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if !b.loaded {
		return nil, policy.ErrNotLoaded
	}
	return b.declared.value, b.declared.err
}

// Projects gives the names of the projects that have a policy of their own or are named in the configuration file, sorted,
// whatever their mode. Globs says whether the file means others as well.
func (b *Book) Projects() (names []string, globs bool, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if !b.loaded {
		return nil, false, policy.ErrNotLoaded
	}
	if b.declared.err != nil {
		return nil, false, b.declared.err
	}
	for name, kept := range b.policies {
		if kept.value.Manager != "" || kept.err != nil {
			names = append(names, name)
		}
	}
	if d := b.declared.value; d != nil {
		names, globs = append(names, d.Names()...), d.HasGlobs()
	}
	slices.Sort(names)
	return slices.Compact(names), globs, nil
}

// Enabled gives the names of the projects for which something is done, sorted, also beside an error, which names those whose
// policies cannot be read. listed are those that exist, which globs may mean; who has none leaves them out.
func (b *Book) Enabled(listed []string) ([]string, error) {
	names, _, err := b.Projects()
	if err != nil {
		return nil, err
	}
	names = append(names, listed...)
	slices.Sort(names)
	b.mu.RLock()
	defer b.mu.RUnlock()
	var enabled []string
	var errs []error
	for _, name := range slices.Compact(names) {
		p, err := b.lookup(name)
		errs = append(errs, err)
		if err == nil && p.Enabled() {
			enabled = append(enabled, name)
		}
	}
	return enabled, errors.Join(errs...)
}

// Canaries gives the names of the projects whose policy says that they are canaries, and that signs, sorted. Those that only a
// glob means are none: a canary is named.
func (b *Book) Canaries() ([]string, error) {
	names, _, err := b.Projects()
	if err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	var canaries []string
	var errs []error
	for _, name := range names {
		p, err := b.lookup(name)
		errs = append(errs, err)
		if err == nil && p.Canary && p.Mode == policy.ModeSign {
			canaries = append(canaries, name)
		}
	}
	return canaries, errors.Join(errs...)
}
