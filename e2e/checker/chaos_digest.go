package checker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The states of rows that the rules know.
const (
	stateSigned = "signed"
	stateDead   = "dead"
)

// kindDebtPaid is the kind of the event that tells of log entries that were owed, and of the signatures that were made with them.
const kindDebtPaid = "log_debt_paid"

// examined is all that is known of one digest.
type examined struct {
	unit

	j       *judgement
	history *history
	rows    []Row
	events  []LedgerEvent
	letter  *Letter
	// present says whether the registry has the manifest. What refers to it is read even if it has not.
	present bool
	found   map[string]Evidence // by the names of our keys
	// must are the signatures that it has to have, may those that it may have.
	must, may map[want]bool
}

// digest judges one digest by all rules.
func (j *judgement) digest(ctx context.Context, u unit) (result, error) {
	e, err := j.examine(ctx, u)
	if err != nil {
		return result{}, err
	}
	var r result
	r.violations = append(r.violations, e.once()...)
	r.violations = append(r.violations, e.nothingElse()...)
	r.violations = append(r.violations, e.agreed()...)
	r.violations = append(r.violations, e.heard()...)
	e.first(&r.found)
	missing, dead := e.required()
	r.violations = append(r.violations, missing...)
	for _, rule := range []func(context.Context) ([]Violation, error){e.accessories, e.foreign} {
		more, err := rule(ctx)
		if err != nil {
			return result{}, err
		}
		r.violations = append(r.violations, more...)
	}
	if len(e.valid()) > 0 {
		r.signed = 1
	}
	if dead {
		r.dead = 1
	}
	if _, accepted := e.history.accepted(); accepted && len(e.must) == 0 && len(e.may) > 0 {
		r.undecided = 1
	}
	return r, nil
}

func (j *judgement) examine(ctx context.Context, u unit) (*examined, error) {
	e := &examined{
		unit: u, j: j, history: &history{}, rows: j.rows[u], events: j.events[u], present: true, found: make(map[string]Evidence),
	}
	if h := j.story.units[u]; h != nil {
		e.history = h
	}
	if l, there := j.letters[u]; there {
		e.letter = &l
	}
	e.must, e.may = j.story.asked(u, e.history, j.keys)
	for _, key := range j.keys {
		found, err := j.Checkers[key].Look(ctx, u.Repository, u.Digest)
		if errors.Is(err, ErrNotFound) {
			e.present = false
			found, err = j.Checkers[key].signatures(ctx, u.Repository, u.Digest)
		}
		if err != nil {
			return nil, err
		}
		e.found[key] = found
	}
	return e, nil
}

func (e *examined) violation(rule Rule, format string, args ...any) Violation {
	return Violation{rule, e.Repository, e.Digest, fmt.Sprintf(format, args...)}
}

// valid gives the signatures of ours that verify, as often as a manifest carries one.
func (e *examined) valid() map[want][]Signature {
	all := make(map[want][]Signature)
	for key, found := range e.found {
		for _, s := range found.Signatures {
			if s.Verdict == Valid {
				all[want{key, s.Format}] = append(all[want{key, s.Format}], s)
			}
		}
	}
	return all
}

// sorted gives wants in an order that does not change from run to run.
func sorted[V any](all map[want]V) []want {
	return slices.SortedFunc(maps.Keys(all), func(a, b want) int {
		return strings.Compare(a.key+" "+string(a.format), b.key+" "+string(b.format))
	})
}

// once: one set of bytes for each key and format, and one log entry for each.
func (e *examined) once() []Violation {
	var violations []Violation
	valid := e.valid()
	for _, w := range sorted(valid) {
		bytes := make(map[string]bool)
		for _, s := range valid[w] {
			bytes[s.Bytes] = true
		}
		if len(bytes) > 1 {
			violations = append(violations, e.violation(Doubled, "%d distinct signatures by the key %s in the format %s", len(bytes), w.key, w.format))
		}
	}
	for _, found := range e.found {
		for _, v := range loggedOnce(e.Repository, e.Digest, found) {
			rule := Doubled
			if v.Rule != LoggedTwice {
				rule = Mismatched
			}
			violations = append(violations, e.violation(rule, "%s: %s", v.Rule, v.Detail))
		}
	}
	return violations
}

// nothingElse: our keys made no signature that nobody wanted, and none that says the wrong thing.
func (e *examined) nothingElse() []Violation {
	var violations []Violation
	for key, found := range e.found {
		for _, s := range found.Signatures {
			switch {
			case s.Verdict == Tampered:
				violations = append(violations, e.violation(Mismatched, "%s: %s", s.Verdict, s.Detail))
			case s.ByOurKey() && s.Verdict != Valid:
				violations = append(violations, e.violation(Extra, "the key %s signed, in %s: %s: %s", key, s.Manifest, s.Verdict, s.Detail))
			case s.Verdict == Valid && !e.may[want{key, s.Format}]:
				violations = append(violations, e.violation(Extra, "the key %s signed in the format %s, which no policy asked for: %s",
					key, s.Format, e.why()))
			}
			for _, detail := range s.Unproven {
				violations = append(violations, e.violation(Mismatched, "in %s: %s", s.Manifest, detail))
			}
		}
	}
	return violations
}

// why says what the digest is, for people who wonder about a signature.
func (e *examined) why() string {
	switch {
	case len(e.history.pushes) == 0:
		return "nobody pushed it"
	case e.history.accessory():
		return "it is an accessory"
	default:
		return "its project was not enabled, or it is exempt, or the format is another one"
	}
}

// accessories: what refers to a digest is signed by none of our keys. What the journal or the ledger speaks of is judged on
// its own.
func (e *examined) accessories(ctx context.Context) ([]Violation, error) {
	var violations []Violation
	for key, found := range e.found {
		for _, accessory := range found.Accessories {
			if slices.Contains(e.j.repositories[e.Repository], accessory) {
				continue
			}
			more, err := e.j.Checkers[key].NotSigned(ctx, e.Repository, accessory)
			if err != nil {
				return nil, err
			}
			for _, v := range more {
				violations = append(violations, Violation{Extra, v.Repository, v.Digest, "an accessory: " + v.Detail})
			}
		}
	}
	return violations, nil
}

// foreign: what others signed is there, on the tag if that is where they put it.
func (e *examined) foreign(ctx context.Context) ([]Violation, error) {
	var violations []Violation
	for _, f := range e.history.foreign {
		if !f.Accepted || e.history.deletedSince(f.Began) {
			continue
		}
		key, err := ParseKey([]byte(f.Key))
		if err != nil {
			return nil, fmt.Errorf("a foreign signature of %s: %w", e.unit, err)
		}
		own := e.j.Checkers[e.j.keys[0]]
		found, err := New(own.registry, own.host, key).signatures(ctx, e.Repository, e.Digest)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(found.Signatures, func(s Signature) bool {
			// Others may name the registry as they reach it.
			return s.ByOurKey() && s.Format == f.Format && (s.Format == Bundle || s.Manifest == found.Tagged)
		}) {
			violations = append(violations, e.violation(ForeignLost, "signed in the format %s until %s: %s", f.Format, f.Ended, f.Detail))
		}
	}
	return violations, nil
}

// required: what was acknowledged is there, and has what it must have; or it is a dead letter that a fault explains.
func (e *examined) required() (violations []Violation, dead bool) {
	last, accepted := e.history.accepted()
	if !accepted {
		return nil, false
	}
	if !e.present {
		if e.history.deletedSince(last.Began) {
			return nil, false
		}
		return []Violation{e.violation(Unexplained, "it was pushed until %s, nobody deleted it, and the registry does not have it", last.Ended)}, false
	}
	missing := e.missing()
	if len(missing) == 0 {
		return e.unproven(), false
	}
	at := slices.IndexFunc(e.rows, func(r Row) bool { return r.State == stateDead })
	if at < 0 {
		return []Violation{e.violation(Lost, "missing are %v; the report says %s", missing, e.states())}, false
	}
	if e.letter == nil {
		return []Violation{e.violation(Lost, "missing are %v; the report says dead, and there is no dead letter", missing)}, false
	}
	died := slices.IndexFunc(e.events, func(o LedgerEvent) bool { return o.Kind == stateDead })
	if died < 0 {
		return []Violation{e.violation(Mismatched, "the report says dead, and the ledger has no such event")}, false
	}
	for _, o := range e.events[died:] {
		if o.Kind == stateDead && o.Reason == e.rows[at].Reason && e.j.story.explains(e.j.Explains, e.project(), o.Reason, o.Stored) {
			return nil, true
		}
	}
	return []Violation{e.violation(Unexplained, "missing are %v; it is a dead letter because of %q, and no fault then explains it: %s",
		missing, e.rows[at].Reason, e.rows[at].Detail)}, false
}

// missing gives what must be there and is not.
func (e *examined) missing() []want {
	var missing []want
	for _, w := range sorted(e.must) {
		found := e.found[w.key]
		// The tag alone is what most verifiers look at.
		if len(found.Valid(w.format)) == 0 || w.format == Legacy && !found.carries(Legacy, found.Tagged) {
			missing = append(missing, w)
		}
	}
	return missing
}

// unproven says which of the signatures that must be there lack a log entry or a timestamp that is asked for.
func (e *examined) unproven() []Violation {
	var violations []Violation
	for _, w := range sorted(e.must) {
		checker := *e.j.Checkers[w.key]
		checker.formats = []Format{w.format}
		for _, v := range checker.proofs(e.Repository, e.Digest, w.format, e.found[w.key]) {
			violations = append(violations, e.violation(Lost, "%s: %s", v.Rule, v.Detail))
		}
	}
	return violations
}

func (e *examined) states() string {
	var states []string
	for _, row := range e.rows {
		states = append(states, strings.TrimSuffix(row.State+" ("+row.Reason+")", " ()"))
	}
	if len(states) == 0 {
		return "nothing"
	}
	return strings.Join(states, ", ")
}
