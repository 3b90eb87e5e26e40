package plan

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// Least is the shortest run that has a place for every kind of fault.
const Least = lead + round

// CrowdedProject is the project whose quota is filled.
const CrowdedProject = "crowded"

// Project is a project, and what is asked of it in the beginning.
type Project struct {
	Name string
	// Settings are nil for a project that nobody ever enables.
	Settings *Settings
	// Last, if it is there, is what is asked of it once everything is mended; otherwise Settings are.
	Last *Settings
	// changes are what else is asked of it, one after the other: for ever, or once if there is a Last.
	changes []Settings
}

// AtLast is what is asked of a project in the end; nil for one that nobody ever enables.
func (p Project) AtLast() *Settings {
	if p.Last != nil {
		return p.Last
	}
	return p.Settings
}

// Projects are all projects of a run.
func Projects() []Project {
	sign := func(format string) *Settings { return &Settings{Mode: "sign", Format: format} }
	return []Project{
		{Name: "legacy", Settings: sign("legacy")},
		{Name: "bundle", Settings: sign("bundle")},
		{Name: "both", Settings: sign("both")},
		{Name: "logged", Settings: &Settings{Mode: "sign", Format: "both", Logged: true}},
		{Name: CrowdedProject, Settings: sign("bundle")},
		{Name: "toggled", Settings: sign("legacy"), changes: []Settings{{Mode: "off"}, *sign("legacy")}},
		{Name: "restless", Settings: sign("legacy"), changes: []Settings{{Mode: "observe", Format: "bundle"}, *sign("both"), *sign("bundle"), *sign("legacy")}},
		{Name: "stranger"},
		// Requests of these reach the signers, who must not sign: only looked at, and given up for good.
		{Name: "watched", Settings: &Settings{Mode: "observe", Format: "both"}},
		{Name: "retired", Settings: sign("bundle"), Last: &Settings{Mode: "off"}, changes: []Settings{{Mode: "off"}}},
	}
}

// pace is the mean time between two actions of one project.
const pace = 1600 * time.Millisecond

// Generate makes the plan of a seed.
func Generate(seed uint64, duration time.Duration) (*Plan, error) {
	if duration < Least {
		return nil, fmt.Errorf("planning a run: %s has no place for every fault: want %s at least", duration, Least)
	}
	if duration > 24*time.Hour {
		return nil, errors.New("planning a run: want 24 hours at most")
	}
	p := &Plan{Seed: seed, Duration: Duration(duration)}
	stream := uint64(0)
	next := func() *rand.Rand {
		stream++
		return rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // what follows from a seed is what is wanted
	}
	for _, t := range tracks() {
		p.Actions = append(p.Actions, t.faults(next(), duration)...)
	}
	for _, project := range Projects() {
		p.Actions = append(p.Actions, newLane(project, next()).actions(duration)...)
	}
	slices.SortStableFunc(p.Actions, func(a, b Action) int { return cmp.Compare(a.At, b.At) })
	return p, nil
}

// lane makes what is done in one project.
type lane struct {
	project Project
	r       *rand.Rand
	// pushed is what is there as far as the plan knows; deleted what was there.
	pushed, deleted []content
	// kept are numbers that are never deleted: something was attached to them, of which nobody would say that it is gone.
	kept    map[int]bool
	numbers int
	changes int
}

// content is something that was pushed.
type content struct {
	repository string
	number     int
	index      bool
}

func newLane(p Project, r *rand.Rand) *lane { return &lane{project: p, r: r, kept: make(map[int]bool)} }

func (l *lane) actions(duration time.Duration) []Action {
	var all []Action
	for i, at := 0, between(l.r, 0, pace); at < duration; i, at = i+1, at+between(l.r, pace/4, pace*7/4) {
		a := l.one(i)
		a.At, a.Project = Duration(at), l.project.Name
		all = append(all, a)
	}
	return all
}

// one gives the action after i others. The first ones of every ten see to it that all kinds of pushes are there in a short run.
func (l *lane) one(i int) Action {
	if i >= 3 && i%6 == 3 && l.mayChange() {
		settings := l.project.changes[l.changes%len(l.project.changes)]
		l.changes++
		return Action{Do: Policy, Settings: &settings}
	}
	if len(l.pushed) < 2 {
		return l.push(l.fresh(false))
	}
	switch chance := l.r.IntN(100); {
	case chance < 40:
		return l.push(l.fresh(false))
	case chance < 52:
		return l.push(l.fresh(true))
	case chance < 60:
		c := l.fresh(false)
		a := l.push(c)
		a.Tag = "" // by its digest
		return a
	case chance < 68:
		return l.push(pick(l.r, l.pushed...)) // again, or under another tag
	case chance < 76:
		return l.delete()
	case chance < 86 && len(l.deleted) > 0:
		at := l.r.IntN(len(l.deleted))
		c := l.deleted[at]
		l.deleted = slices.Delete(l.deleted, at, at+1)
		l.pushed = append(l.pushed, c)
		return l.push(c)
	case chance < 90:
		c := pick(l.r, l.pushed...)
		l.kept[c.number] = true
		l.numbers++
		return Action{Do: Attach, Repository: c.repository, Number: c.number, Index: c.index, Tag: "attached-" + strconv.Itoa(l.numbers)}
	default:
		return l.foreign()
	}
}

func (l *lane) mayChange() bool {
	all := len(l.project.changes)
	return l.changes < all || all > 0 && l.project.Last == nil
}

// fresh is content that was not there before.
func (l *lane) fresh(index bool) content {
	l.numbers++
	c := content{"app" + strconv.Itoa(l.r.IntN(2)), l.numbers, index}
	l.pushed = append(l.pushed, c)
	return c
}

func (l *lane) push(c content) Action {
	// Tags move: some are taken from others.
	tag := "t" + strconv.Itoa(l.r.IntN(12))
	return Action{Do: Push, Repository: c.repository, Number: c.number, Index: c.index, Tag: tag}
}

// delete takes something away, or pushes where nothing may be taken away.
func (l *lane) delete() Action {
	at := l.r.IntN(len(l.pushed))
	c := l.pushed[at]
	if l.kept[c.number] {
		return l.push(l.fresh(false))
	}
	l.pushed = slices.Delete(l.pushed, at, at+1)
	l.deleted = append(l.deleted, c)
	return Action{Do: Delete, Repository: c.repository, Number: c.number, Index: c.index}
}

// foreign lets somebody else sign what was pushed just now: both write the same tag then.
func (l *lane) foreign() Action {
	c := l.pushed[len(l.pushed)-1]
	return Action{Do: Foreign, Repository: c.repository, Number: c.number, Index: c.index}
}
