package queue_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

// stage is where a claim of the model is.
type stage string

const (
	waits   stage = "waits for its first slot"
	works   stage = "works"
	leaves  stage = "has a slot and waits for a place"
	away    stage = "is aside"
	returns stage = "is aside and waits for a slot"
	ended   stage = "has ended"
)

// modelClaim is a claim as the model sees it.
type modelClaim struct {
	*queue.Claim
	lane    artifact.Lane
	project string
	retry   bool
	stage   stage
	next    <-chan struct{} // closed when the stage is over for which it waits
}

// slotsModel drives slots one step at a time and checks after each what must always hold.
type slotsModel struct {
	slots         *queue.Slots
	total, places int
	caps          map[string]int // 0 is none
	widest        map[string]int // the widest cap that a project had; 0 is none
	claims        []*modelClaim
	borrowed      bool           // whether a request may have taken a slot of another lane
	overtaken     map[laneOf]int // at most so many first tries have begun since a retry did, while one waited
}

// laneOf is a project in a lane.
type laneOf struct {
	lane    artifact.Lane
	project string
}

func newSlotsModel(t *rapid.T) *slotsModel {
	m := &slotsModel{
		total: rapid.IntRange(1, 10).Draw(t, "slots"), places: rapid.IntRange(1, 4).Draw(t, "places"),
		caps: map[string]int{}, widest: map[string]int{}, overtaken: map[laneOf]int{},
	}
	for _, project := range []string{"a", "b", "c"} {
		m.caps[project] = rapid.IntRange(0, 5).Draw(t, "cap of "+project)
		m.widest[project] = m.caps[project]
		m.borrowed = m.borrowed || m.caps[project] > 0
	}
	m.slots = queue.NewSlotsAside(m.total, m.places, func(project string) int { return m.caps[project] })
	return m
}

// of gives the claims of a stage.
func (m *slotsModel) of(stages ...stage) []*modelClaim {
	var found []*modelClaim
	for _, c := range m.claims {
		for _, s := range stages {
			if c.stage == s {
				found = append(found, c)
			}
		}
	}
	return found
}

func (m *slotsModel) draw(t *rapid.T, s stage) *modelClaim {
	found := m.of(s)
	if len(found) == 0 {
		t.Skip("nobody " + s)
	}
	return rapid.SampledFrom(found).Draw(t, "who "+string(s))
}

// settle moves the claims on that were given what they waited for.
func (m *slotsModel) settle(t *rapid.T) {
	after := map[stage]stage{waits: works, leaves: away, returns: works}
	var begun []*modelClaim
	for _, c := range m.claims {
		next, isWaiting := after[c.stage]
		if !isWaiting {
			continue
		}
		select {
		case <-c.next:
			if c.stage == waits {
				begun = append(begun, c)
			}
			c.stage = next
		default:
		}
	}
	for _, c := range begun {
		for _, other := range m.of(returns) {
			if other.lane == c.lane && other.project == c.project {
				t.Fatalf("a request of %s, %s began before one that came back", c.lane, c.project)
			}
		}
	}
	m.checkTurns(t, begun)
}

// checkTurns checks that of those that have begun, in whatever order, no retry went before first tries too early.
func (m *slotsModel) checkTurns(t *rapid.T, begun []*modelClaim) {
	first, again, firstWait, againWait := map[laneOf]int{}, map[laneOf]int{}, map[laneOf]int{}, map[laneOf]int{}
	count := func(claims []*modelClaim, first, again map[laneOf]int) {
		for _, c := range claims {
			if c.retry {
				again[laneOf{c.lane, c.project}]++
			} else {
				first[laneOf{c.lane, c.project}]++
			}
		}
	}
	count(begun, first, again)
	count(m.of(waits), firstWait, againWait)
	for of, n := range first {
		m.overtaken[of] += n
	}
	for of, n := range again {
		if firstWait[of] > 0 && m.overtaken[of] < 4*n {
			t.Fatalf("%d retries of %s, %s began before %d first tries, after %d of them", n, of.lane, of.project, firstWait[of], m.overtaken[of])
		}
		m.overtaken[of] = first[of]
	}
	for of := range m.overtaken {
		if againWait[of] == 0 {
			delete(m.overtaken, of)
		}
	}
}

// checkRetries checks that retries take half of a cap at most, and at least one.
func (m *slotsModel) checkRetries(t *rapid.T) {
	retries := map[string]int{}
	for _, c := range m.of(works, leaves, away, returns) {
		if c.retry {
			retries[c.project]++
		}
	}
	for project, n := range retries {
		if limit := m.widest[project]; limit > 0 && n > max(1, min(limit, m.total)/2) {
			t.Fatalf("%d retries of %s are in work, with a cap of %d and %d slots", n, project, limit, m.total)
		}
	}
}

func (m *slotsModel) check(t *rapid.T) {
	m.settle(t)
	holders, asiders := m.of(works, leaves), m.of(away, returns)
	if len(holders) > m.total || len(holders) != m.slots.Held() {
		t.Fatalf("%d hold slots, and %d are counted; want at most %d", len(holders), m.slots.Held(), m.total)
	}
	if len(asiders) > m.places || len(asiders) != m.slots.Aside() {
		t.Fatalf("%d hold places, and %d are counted; want at most %d", len(asiders), m.slots.Aside(), m.places)
	}
	byProject, bulk := map[string]int{}, 0
	for _, c := range holders {
		byProject[c.project]++
		if c.lane == artifact.Bulk {
			bulk++
		}
	}
	for project, n := range byProject {
		if limit := m.widest[project]; limit > 0 && n > limit {
			t.Fatalf("%s holds %d slots, want at most %d", project, n, limit)
		}
	}
	if bulk > m.slots.BulkLimit() && !m.borrowed {
		t.Fatalf("bulk holds %d slots, want at most %d", bulk, m.slots.BulkLimit())
	}
	m.checkRetries(t)
	// Whoever waits, waits for somebody who is at work.
	if len(m.of(works, away)) == 0 && len(m.of(waits, leaves, returns)) > 0 {
		t.Fatalf("deadlock: %d wait for a first slot, %d for a place, %d for a slot again, and nobody works",
			len(m.of(waits)), len(m.of(leaves)), len(m.of(returns)))
	}
}

// actions are what may happen next.
func (m *slotsModel) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": m.check,
		"enter": func(t *rapid.T) {
			c := &modelClaim{
				lane:    rapid.SampledFrom([]artifact.Lane{artifact.Live, artifact.Bulk}).Draw(t, "lane"),
				project: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "project"), stage: waits,
				retry: rapid.Bool().Draw(t, "retry"),
			}
			m.claims = append(m.claims, c)
			c.Claim, c.next = m.slots.EnterAs(c.lane, c.project, c.retry)
		},
		"step aside": func(t *rapid.T) {
			c := m.draw(t, works)
			c.stage, c.next = leaves, m.slots.AskForPlace(c.Claim)
		},
		"come back": func(t *rapid.T) {
			c := m.draw(t, away)
			c.stage, c.next = returns, m.slots.AskForSlot(c.Claim)
		},
		"stay": func(t *rapid.T) {
			if c := m.draw(t, leaves); m.slots.Withdraw(c.Claim) {
				c.stage = works
			}
		},
		"end": func(t *rapid.T) {
			c := m.draw(t, works)
			c.stage = ended
			m.slots.Release(c.Claim)
		},
		"give up": func(t *rapid.T) {
			c := m.draw(t, waits)
			c.stage = ended
			m.slots.Leave(c.Claim)
		},
		"change a cap": func(t *rapid.T) {
			project := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "project")
			limit := rapid.IntRange(0, 5).Draw(t, "cap")
			m.caps[project] = limit
			if limit == 0 || m.widest[project] == 0 {
				m.widest[project] = 0
			} else {
				m.widest[project] = max(m.widest[project], limit)
			}
			m.borrowed = m.borrowed || limit > 0
		},
	}
}

// finish lets everybody end, as the drain does.
func (m *slotsModel) finish(t *rapid.T) {
	for range 10 * (len(m.claims) + 1) {
		m.check(t)
		for _, c := range m.of(works) {
			c.stage = ended
			m.slots.Release(c.Claim)
		}
		m.check(t)
		for _, c := range m.of(away) {
			c.stage, c.next = returns, m.slots.AskForSlot(c.Claim)
		}
	}
	if left := len(m.claims) - len(m.of(ended)); left > 0 || m.slots.Held() != 0 || m.slots.Aside() != 0 {
		t.Fatalf("%d never ended, %d slots and %d places are lost", left, m.slots.Held(), m.slots.Aside())
	}
}

// TestSlotsModel: whatever happens in whatever order, slots, places, caps and shares hold, also those of retries, those that come
// back go first, first tries go before retries, and nobody waits while nobody works.
func TestSlotsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newSlotsModel(t)
		t.Repeat(m.actions())
		m.finish(t)
	})
}

// TestSlotsModelWhereAllStepAside is the same where every request steps aside again and again: the way into a deadlock.
func TestSlotsModelWhereAllStepAside(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newSlotsModel(t)
		for i := range m.total + m.places {
			c := &modelClaim{lane: []artifact.Lane{artifact.Live, artifact.Bulk}[i%2], project: fmt.Sprintf("%c", 'a'+i%3), stage: waits, retry: i%5 == 0}
			m.claims = append(m.claims, c)
			c.Claim, c.next = m.slots.EnterAs(c.lane, c.project, c.retry)
			m.check(t)
		}
		actions := m.actions()
		t.Repeat(map[string]func(*rapid.T){
			"": m.check, "enter": actions["enter"], "step aside": actions["step aside"], "step aside too": actions["step aside"],
			"come back": actions["come back"], "come back too": actions["come back"],
		})
		m.finish(t)
	})
}
