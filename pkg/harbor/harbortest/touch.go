package harbortest

import (
	"fmt"
	"math"
	"time"
)

// TouchConfig says what Touch does to synthetic content.
type TouchConfig struct {
	// Pushes is how many new images are pushed, unsigned, each with a tag and into a repository at random.
	Pushes int `json:"pushes"`
	// Pulls is the share of the repositories that something is pulled from, in [0,1].
	Pulls float64 `json:"pulls"`
	// Over is how long ago the first of it was; the rest follows evenly until now. Nothing comes before what the audit
	// log has last.
	Over time.Duration `json:"over"` // Nanoseconds on the wire.
}

// Touched is what Touch did.
type Touched struct {
	Pushed   []SyntheticRef `json:"pushed"`
	Projects int            `json:"projects"` // That something was pushed to.
	Pulled   int            `json:"pulled"`   // Repositories.
}

// Touch simulates that time goes on in the content that Synthesize made: pushes of new images and pulls of old ones. Both
// move the update times of their repositories and stand in the audit log; webhooks do not fire, as if the jobservice
// were down.
func (h *Harbor) Touch(cfg TouchConfig) (Touched, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := h.state.synthetic
	switch {
	case set == nil:
		return Touched{}, errNoSynthetic
	case cfg.Pushes < 0, uint64(set.count)+uint64(max(0, cfg.Pushes)) > uint64(set.limit), cfg.Pulls < 0, cfg.Pulls > 1:
		return Touched{}, fmt.Errorf("%w: %d pushes, and pulls from a share of %g", errSyntheticConfig, cfg.Pushes, cfg.Pulls)
	}
	if set.first == 0 {
		set.first = set.count
	}
	var repos []*repository
	for _, sp := range set.projects {
		for _, r := range sp.repos {
			if h.state.repos[r.name] == r {
				repos = append(repos, r)
			}
		}
	}
	set.rand.Shuffle(len(repos), func(i, j int) { repos[i], repos[j] = repos[j], repos[i] })
	out := Touched{Pushed: []SyntheticRef{}, Pulled: int(math.Round(cfg.Pulls * float64(len(repos))))}
	if len(repos) == 0 {
		return out, nil
	}
	pushed := make([]bool, out.Pulled+cfg.Pushes) // And the others are pulls, in a random order.
	for i := range cfg.Pushes {
		pushed[i] = true
	}
	set.rand.Shuffle(len(pushed), func(i, j int) { pushed[i], pushed[j] = pushed[j], pushed[i] })
	c := &call{h: h, who: &identity{name: robotPrefix + "builder"}}
	clock := h.state.touchTimes(cfg.Over, len(pushed))
	projects := make(map[*syntheticProject]bool)
	pulls := repos[:out.Pulled]
	for i, push := range pushed {
		if !push {
			c.pullSynthetic(pulls[0], clock(i))
			pulls = pulls[1:]
			continue
		}
		r := repos[set.rand.IntN(len(repos))]
		projects[r.synthetic.project] = true
		out.Pushed = append(out.Pushed, c.pushSynthetic(r, clock(i)))
	}
	out.Projects = len(projects)
	return out, nil
}

// touchTimes spreads n things over the time before now, but not before what the audit log has last.
func (s *state) touchTimes(over time.Duration, n int) func(i int) time.Time {
	now := storedNow()
	from := now.Add(-over)
	if last := len(s.audit) - 1; last >= 0 && s.audit[last].at.After(from) {
		from = s.audit[last].at
	}
	step := now.Sub(from) / time.Duration(max(1, n))
	return func(i int) time.Time { return from.Add(time.Duration(i+1) * step).Truncate(time.Microsecond) }
}

func (c *call) pullSynthetic(r *repository, at time.Time) {
	r.pulls++
	r.updated = at
	reference := "latest"
	if rows := r.synthetic.project.byRepo[r.synthetic.index]; len(rows) > 0 {
		reference = r.synthetic.project.rows[rows[len(rows)-1]].tag()
	}
	c.auditAt(at, "pull", "artifact", r.name+":"+reference, "pull artifact: "+r.name+":"+reference, r.project)
}

func (c *call) pushSynthetic(r *repository, at time.Time) SyntheticRef {
	sp := r.synthetic.project
	pushed := at.UnixMicro()
	if n := len(sp.rows); n > 0 {
		pushed = max(pushed, sp.rows[n-1].pushed+1) // Rows rise.
	}
	i := sp.push(syntheticRow{pushed: pushed, repo: r.synthetic.index})
	sp.set.extra = append(sp.set.extra, place{project: sp, row: i})
	ref := sp.remember(i)
	row := &sp.rows[i]
	r.updated = row.time()
	c.auditAt(at, "create", "artifact", r.name+":"+row.tag(), "push artifact: "+r.name+"@"+ref.Digest, r.project)
	return ref
}
