package checker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// StepKind is what a step in a journal tells of.
type StepKind string

// The kinds of steps.
const (
	StepPush    StepKind = "push"    // a manifest was pushed
	StepDelete  StepKind = "delete"  // a manifest was deleted, with what refers to it
	StepPolicy  StepKind = "policy"  // what is to be signed in a project was changed
	StepForeign StepKind = "foreign" // another party signed
	StepWebhook StepKind = "webhook" // the registry told of a push; Accepted says that it was answered with success
	StepFault   StepKind = "fault"   // something was broken for a while
	StepSweep   StepKind = "sweep"   // everything had come to rest, and sweeps of everything were asked for
	StepCalm    StepKind = "calm"    // nothing is broken any more; Ended is when everything had come to rest
)

// Step is one thing that was done to the system from outside, and when, by the clock of who did it, which no fault shifts.
// Which fields are set beyond the head depends on the kind.
type Step struct {
	Kind StepKind `json:"kind"`
	// Began is just before it was asked for, Ended when the answer was there: zero if there was none.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Accepted says that the answer was that it is done. Without it, it may be done or not, now or later.
	Accepted bool `json:"accepted,omitempty"`

	// Of pushes, deletes, foreign signatures and webhooks: the manifest that is pushed, deleted, signed or told of.
	Repository string `json:"repository,omitempty"`
	Digest     string `json:"digest,omitempty"`
	// Of pushes. Tag is empty for a push by digest. Parent is an index whose push this one belongs to, for people. Subject
	// is what the manifest refers to: with one it is an accessory, which nobody may sign.
	Tag     string `json:"tag,omitempty"`
	Parent  string `json:"parent,omitempty"`
	Subject string `json:"subject,omitempty"`

	// Of policies, and of faults that meet one project alone.
	Project string `json:"project,omitempty"`
	// Of policies: what holds from now on. Keys are names; none stands for all. Exempt are repositories, or single manifests
	// as repository@digest. Backfill asks for what was pushed before, too.
	Enabled  bool     `json:"enabled,omitempty"`
	Formats  []Format `json:"formats,omitempty"`
	Keys     []string `json:"keys,omitempty"`
	Exempt   []string `json:"exempt,omitempty"`
	Backfill bool     `json:"backfill,omitempty"`

	// Of foreign signatures: the format, and the other party's public key in PEM.
	Format Format `json:"format,omitempty"`
	Key    string `json:"key,omitempty"`

	// Of faults: the kind of the fault.
	Fault string `json:"fault,omitempty"`
	// Detail is for people.
	Detail string `json:"detail,omitempty"`
}

const maxLine = 4 << 20

// ReadJournal reads steps, one JSON object a line. An unknown key, and a step without what its kind needs, are errors: a
// rule that is not understood must not look as if it were kept.
func ReadJournal(r io.Reader) ([]Step, error) {
	var all []Step
	err := lines(r, func(line []byte) error {
		var e Step
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil {
			return err
		}
		all = append(all, e)
		return e.validate()
	})
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return all, nil
}

// lines gives every line that is not empty.
func lines(r io.Reader, each func([]byte) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	for n := 1; scanner.Scan(); n++ {
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		if err := each(scanner.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return scanner.Err()
}

func (e Step) validate() error {
	if e.Began.IsZero() {
		return errors.New("began is missing")
	}
	if !e.Ended.IsZero() && e.Ended.Before(e.Began) {
		return errors.New("ended is before began")
	}
	if e.Accepted && e.Ended.IsZero() {
		return errors.New("accepted, and ended is missing")
	}
	switch e.Kind {
	case StepPush, StepDelete, StepForeign, StepWebhook:
		if err := e.unit().validate(); err != nil {
			return err
		}
		if e.Kind == StepForeign && (e.Key == "" || e.Format != Legacy && e.Format != Bundle) {
			return errors.New("key or format of a foreign signature is missing")
		}
	case StepPolicy:
		if e.Project == "" || e.Enabled == (len(e.Formats) == 0) {
			return errors.New("want a project, and formats if it is enabled")
		}
	case StepFault:
		if e.Fault == "" {
			return errors.New("fault is missing")
		}
	case StepCalm, StepSweep:
	default:
		return fmt.Errorf("the kind %.40q is unknown", e.Kind)
	}
	return nil
}

// unit is one manifest in one repository.
type unit struct{ Repository, Digest string }

func (e Step) unit() unit { return unit{e.Repository, e.Digest} }

func (u unit) String() string { return u.Repository + "@" + u.Digest }

func (u unit) project() string {
	project, _, _ := strings.Cut(u.Repository, "/")
	return project
}

func (u unit) validate() error {
	if !strings.Contains(u.Repository, "/") || !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(u.Digest) {
		return fmt.Errorf("want a repository and a digest, got %.200q", u.String())
	}
	return nil
}

// parseUnit reads repository@digest.
func parseUnit(s string) (unit, error) {
	repository, digest, _ := strings.Cut(s, "@")
	u := unit{repository, digest}
	return u, u.validate()
}
