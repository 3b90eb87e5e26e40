// Package plan says what happens in a chaos run, and when: what is pushed, deleted and asked for, and what is broken.
//
// A plan follows from its seed and its duration alone, and every kind of fault is in it at least once. It can be written and
// read again, so that a run can be repeated by a later version, too. It does nothing itself, and how long what it asks for
// takes is not its matter: the same plan meets the system at other moments in every run.
package plan

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Verb is what is done.
type Verb string

// The verbs. All but Fault belong to the lane of their project: one after the other, in the order of the plan.
const (
	Push    Verb = "push"    // an image or an index, under a tag or by its digest; again, if it was pushed before
	Attach  Verb = "attach"  // an accessory of an image
	Delete  Verb = "delete"  // an image, with what refers to it
	Foreign Verb = "foreign" // another party signs an image
	Policy  Verb = "policy"  // what is asked of a project changes
	Fault   Verb = "fault"   // something is broken for a while
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults. Each has to happen in every run.
const (
	KillReceiver Kind = "kill_receiver" // SIGKILL, and started again
	KillSigner   Kind = "kill_signer"
	KillNATS     Kind = "kill_nats"  // one node of the queue, or several at once
	Reset        Kind = "reset"      // connections break, between nodes, or between a program and them
	Partition    Kind = "partition"  // nothing gets through, between a node and the others, or between a program and them
	StoreFull    Kind = "store_full" // the limit of the queue's store is reached
	DiskFull     Kind = "disk_full"  // of one node of the queue, or of all
	Database     Kind = "database"   // of a receiver
	Clock        Kind = "clock"      // of a program
	Unauthorized Kind = "registry_401"
	Throttled    Kind = "registry_429"
	Unavailable  Kind = "registry_503"
	Slow         Kind = "registry_slow"
	Half         Kind = "registry_half" // done, and the answer breaks off
	Cut          Kind = "registry_cut"  // connections to Harbor break
	RekorAway    Kind = "rekor_away"
	Lost         Kind = "webhooks_lost"
	Doubled      Kind = "webhooks_doubled"
	Quota        Kind = "quota"
)

// Kinds are all kinds of faults.
func Kinds() []Kind {
	var all []Kind
	for _, t := range tracks() {
		all = append(all, t.kinds...)
	}
	return all
}

// Settings are what is asked of a project.
type Settings struct {
	// Mode is sign, observe or off.
	Mode string `json:"mode"`
	// Format is legacy, bundle or both.
	Format string `json:"format,omitempty"`
	// Logged wants an entry in the log for each signature that has a place for it, sooner or later, and a key of its own.
	Logged bool `json:"logged,omitempty"`
}

// Action is one thing that is done.
type Action struct {
	// At is when it begins, at the earliest, since the beginning of the run.
	At Duration `json:"at"`
	Do Verb     `json:"do"`

	// Of everything but faults; of faults that meet one project.
	Project string `json:"project,omitempty"`
	// Repository is the name below the project. Number says which content is meant: the same one has the same digest.
	Repository string `json:"repository,omitempty"`
	Number     int    `json:"number,omitempty"`
	// Index says that the content is an index with two images.
	Index bool `json:"index,omitempty"`
	// Tag is empty for a push by digest.
	Tag string `json:"tag,omitempty"`

	Settings *Settings `json:"settings,omitempty"`

	// Of faults: the kind, how long it lasts, and whom it meets: a number, to be taken modulo how many there are.
	Fault  Kind     `json:"fault,omitempty"`
	For    Duration `json:"for,omitempty"`
	Target int      `json:"target,omitempty"`
	// Route is a class of the registry's requests, Share the part of them that is met.
	Route string  `json:"route,omitempty"`
	Share float64 `json:"share,omitempty"`
	// Shift is how far a clock is set forward.
	Shift Duration `json:"shift,omitempty"`
}

// Duration is a time.Duration, written as "1m30s".
type Duration time.Duration

// MarshalText writes it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	*d = Duration(parsed)
	return nil
}

// Plan is a whole run.
type Plan struct {
	Seed     uint64   `json:"seed"`
	Duration Duration `json:"duration"`
	// Actions are in the order of their times.
	Actions []Action `json:"-"`
}

// Write writes a plan, one JSON object a line: seed and duration first, then the actions.
func (p *Plan) Write(out io.Writer) error {
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(p); err != nil {
		return fmt.Errorf("writing a plan: %w", err)
	}
	for _, a := range p.Actions {
		if err := encoder.Encode(a); err != nil {
			return fmt.Errorf("writing a plan: %w", err)
		}
	}
	return nil
}

// Read reads what Write wrote. An unknown key is an error: what is not understood must not look as if it were done.
func Read(in io.Reader) (*Plan, error) {
	decoder := json.NewDecoder(bufio.NewReader(in))
	decoder.DisallowUnknownFields()
	p := &Plan{}
	if err := decoder.Decode(p); err != nil {
		return nil, fmt.Errorf("reading a plan: %w", err)
	}
	for {
		var a Action
		err := decoder.Decode(&a)
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err == nil {
			err = a.validate()
		}
		if err != nil {
			return nil, fmt.Errorf("reading a plan: action %d: %w", len(p.Actions)+1, err)
		}
		p.Actions = append(p.Actions, a)
	}
}

func (a Action) validate() error {
	switch a.Do {
	case Push, Attach, Delete, Foreign:
		if a.Project == "" || a.Repository == "" {
			return errors.New("want a project and a repository")
		}
	case Policy:
		if a.Project == "" || a.Settings == nil {
			return errors.New("want a project and settings")
		}
	case Fault:
		if !slices.Contains(Kinds(), a.Fault) {
			return fmt.Errorf("the kind of fault %.40q is unknown", a.Fault)
		}
	default:
		return fmt.Errorf("the verb %.40q is unknown", a.Do)
	}
	return nil
}

// Lane gives the actions of a project, in order.
func (p *Plan) Lane(project string) []Action {
	return p.filter(func(a Action) bool { return a.Do != Fault && a.Project == project })
}

// Faults gives the faults, in order.
func (p *Plan) Faults() []Action { return p.filter(func(a Action) bool { return a.Do == Fault }) }

func (p *Plan) filter(want func(Action) bool) []Action {
	var all []Action
	for _, a := range p.Actions {
		if want(a) {
			all = append(all, a)
		}
	}
	return all
}
