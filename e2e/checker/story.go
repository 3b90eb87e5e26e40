package checker

import (
	"maps"
	"slices"
	"time"
)

// story is a journal, ordered by what it is about.
type story struct {
	units    map[unit]*history
	policies map[string][]Step // by project, as they began
	faults   []Step
	calm     Step
	// swept is when the last sweeps were asked for; zero if they were not.
	swept time.Time
	// settle is how long after a change what held before may still be acted upon, and after a fault what it caused may still
	// come to light.
	settle time.Duration
}

// history is what was done to one manifest, as it began.
type history struct{ pushes, deletes, foreign, webhooks []Step }

func newStory(journal []Step, settle time.Duration) *story {
	s := &story{units: make(map[unit]*history), policies: make(map[string][]Step), settle: settle}
	sorted := slices.Clone(journal)
	slices.SortStableFunc(sorted, func(a, b Step) int { return a.Began.Compare(b.Began) })
	for _, e := range sorted {
		switch e.Kind {
		case StepPush:
			h := s.history(e.unit())
			h.pushes = append(h.pushes, e)
		case StepDelete:
			h := s.history(e.unit())
			h.deletes = append(h.deletes, e)
		case StepForeign:
			h := s.history(e.unit())
			h.foreign = append(h.foreign, e)
		case StepWebhook:
			h := s.history(e.unit())
			h.webhooks = append(h.webhooks, e)
		case StepPolicy:
			s.policies[e.Project] = append(s.policies[e.Project], e)
		case StepFault:
			s.faults = append(s.faults, e)
		case StepSweep:
			s.swept = e.Began
		case StepCalm:
			s.calm = e
		}
	}
	return s
}

func (s *story) history(u unit) *history {
	if s.units[u] == nil {
		s.units[u] = &history{}
	}
	return s.units[u]
}

// accepted gives the last push that was acknowledged.
func (h *history) accepted() (Step, bool) {
	for _, e := range slices.Backward(h.pushes) {
		if e.Accepted {
			return e, true
		}
	}
	return Step{}, false
}

// accessory says whether the manifest refers to another one.
func (h *history) accessory() bool {
	return slices.ContainsFunc(h.pushes, func(e Step) bool { return e.Subject != "" })
}

// deletedSince says whether a deletion may have taken away what was there after a time.
func (h *history) deletedSince(t time.Time) bool {
	return slices.ContainsFunc(h.deletes, func(e Step) bool { return !e.Accepted || !e.Ended.Before(t) })
}

// settings gives all that may have held in a project at some time since a moment: nothing is enabled before the first
// policy, and what was not acknowledged may hold beside what held before.
func (s *story) settings(project string, since time.Time) []Step {
	all := append([]Step{{Kind: StepPolicy, Project: project}}, s.policies[project]...)
	var held []Step
	for i, e := range all {
		next := slices.IndexFunc(all[i+1:], func(o Step) bool { return o.Accepted })
		if next >= 0 && all[i+1+next].Ended.Add(s.settle).Before(since) {
			continue
		}
		held = append(held, e)
	}
	return held
}

// want is a signature that somebody wants: by which key and in which format.
type want struct {
	key    string
	format Format
}

// wants gives what a policy asks for in one manifest.
func (e Step) wants(u unit, keys []string) map[want]bool {
	asked := make(map[want]bool)
	if !e.Enabled || slices.Contains(e.Exempt, u.Repository) || slices.Contains(e.Exempt, u.String()) {
		return asked
	}
	for _, key := range keys {
		for _, format := range e.Formats {
			if len(e.Keys) == 0 || slices.Contains(e.Keys, key) {
				asked[want{key, format}] = true
			}
		}
	}
	return asked
}

// asked says what has to be signed: what every policy that may have held since the last acknowledged push asks for, and what
// the last policy does if it asks for older images. And it says what may be signed, because some policy since the first push
// asks for it.
func (s *story) asked(u unit, h *history, keys []string) (must, may map[want]bool) {
	must, may = make(map[want]bool), make(map[want]bool)
	if len(h.pushes) == 0 || h.accessory() {
		return must, may
	}
	for _, policy := range s.settings(u.project(), h.pushes[0].Began) {
		maps.Copy(may, policy.wants(u, keys))
	}
	last, accepted := h.accepted()
	if !accepted {
		return must, may
	}
	maps.Copy(must, may)
	held := s.settings(u.project(), last.Began)
	for _, policy := range held {
		wanted := policy.wants(u, keys)
		maps.DeleteFunc(must, func(w want, _ bool) bool { return !wanted[w] })
	}
	if final := held[len(held)-1]; final.Accepted && final.Backfill {
		maps.Copy(must, final.wants(u, keys))
	}
	return must, may
}

// explains says whether a fault was in force by which a request of a project may have been given up for a reason, at a time.
func (s *story) explains(table map[string][]string, project, reason string, at time.Time) bool {
	return slices.ContainsFunc(s.faults, func(f Step) bool {
		return slices.Contains(table[f.Fault], reason) && (f.Project == "" || f.Project == project) &&
			!at.Before(f.Began) && (f.Ended.IsZero() || !at.After(f.Ended.Add(s.settle)))
	})
}
