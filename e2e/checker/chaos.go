package checker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// The rules of a run in which things were broken on purpose.
const (
	Lost        Rule = "lost"         // what was acknowledged and has to be signed is not, and is no dead letter
	Doubled     Rule = "doubled"      // one digest has several signatures by one key in one format, or several log entries
	Mismatched  Rule = "mismatched"   // ledger and registry disagree
	ForeignLost Rule = "foreign lost" // another party's signature is gone
	Extra       Rule = "extra"        // our key signed what nobody wanted
	Unheard     Rule = "unheard"      // the registry was told that a push is cared for, and only a sweep of everything found it
	Unexplained Rule = "unexplained"  // given up, or gone, and nothing in the journal explains it
)

// ChaosRules are the rules that [Chaos] judges by.
func ChaosRules() []Rule {
	return []Rule{Lost, Doubled, Mismatched, ForeignLost, Extra, Unheard, Unexplained}
}

// Defaults of Chaos.
const (
	defaultSettle   = 10 * time.Second
	defaultParallel = 8
)

// Chaos judges a run after calm has returned: what was done (the journal), what the system says of it (ledger and dead
// letters), and what the registry holds. It changes nothing.
//
//   - Every push that was acknowledged, of a project that was enabled then and ever since, has exactly one signature for each
//     key and format that all policies since the push ask for, and for each that the last policy asks for if that wants older
//     images, too; or it is a dead letter whose reason a fault explains that was in force when it was given up. A signature is
//     its bytes, however many manifests carry it.
//   - Every webhook that was answered with success led to work by itself, and not by a later sweep alone.
//   - Our key has signed nothing else: no manifest of another project, no exempt one, no accessory, none that nobody pushed.
//   - Signatures of others that were acknowledged are there, unless their subject was deleted.
//   - A manifest that was acknowledged and not deleted is there.
//   - Each row that says signed verifies in the registry, signature by signature, unless it was deleted in a project that is not
//     enabled any more. Each signature of ours in the registry has a row, and a signed event unless what it signs was deleted.
//
// What was not acknowledged may be there or not, signed or not.
type Chaos struct {
	// Checkers judge signatures, one for each of our keys, by the names that the journal's policies use. Their formats are
	// not used; what they trust and ask for is.
	Checkers map[string]*Checker
	Journal  []Step
	Ledger   []LedgerEvent
	// Rows are the whole report, Letters all dead letters.
	Rows    []Row
	Letters []Letter
	// Explains says which reasons of dead letters a kind of fault explains; nil stands for [Explanations].
	Explains map[string][]string
	// Settle is how long a change of policy or the end of a fault may take to be known everywhere; 0 is 10 s.
	Settle time.Duration
	// Parallel is how many digests are looked at at once; 0 is 8.
	Parallel int
	// Progress, if there is one, is called after each, by one goroutine at a time.
	Progress func(done, total int)
}

// Findings are what Chaos found.
type Findings struct {
	// Pushes were acknowledged, and so many Digests were judged, of which Signed carry a valid signature by our keys.
	Pushes, Digests, Signed int
	// Dead are unsigned as dead letters that a fault explains. Undecided may be signed or not: their project's policy has
	// changed since the push.
	Dead, Undecided int
	// By counts the signed ones by what led to that.
	By Found
	// Faults counts them by kind, and Calm is how long it took until everything had come to rest; 0 if it never did.
	Faults     map[string]int
	Calm       time.Duration
	Violations []Violation
}

// Count says how often a rule was broken.
func (f Findings) Count(rule Rule) int {
	n := 0
	for _, v := range f.Violations {
		if v.Rule == rule {
			n++
		}
	}
	return n
}

// String is one line.
func (f Findings) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pushes=%d digests=%d signed=%d dead=%d undecided=%d by_webhook=%d by_sweep=%d by_final_sweep=%d",
		f.Pushes, f.Digests, f.Signed, f.Dead, f.Undecided, f.By.Webhook, f.By.Sweep, f.By.Final)
	for _, rule := range ChaosRules() {
		fmt.Fprintf(&b, " %s=%d", strings.ReplaceAll(string(rule), " ", "_"), f.Count(rule))
	}
	faults := make([]string, 0, len(f.Faults))
	for _, kind := range slices.Sorted(maps.Keys(f.Faults)) {
		faults = append(faults, fmt.Sprintf("%s:%d", kind, f.Faults[kind]))
	}
	fmt.Fprintf(&b, " faults=%s calm=%s", strings.Join(faults, ","), f.Calm.Round(time.Millisecond))
	return b.String()
}

// Check judges. An error means that it could not look everywhere: what it found by then comes with it.
func (c Chaos) Check(ctx context.Context) (Findings, error) {
	j, err := c.prepare()
	if err != nil {
		return Findings{}, fmt.Errorf("checking a run: %w", err)
	}
	found := j.counts()
	tasks := make([]func(context.Context) (result, error), 0, len(j.units)+len(j.repositories))
	for _, u := range j.units {
		tasks = append(tasks, func(ctx context.Context) (result, error) { return j.digest(ctx, u) })
	}
	for _, repository := range slices.Sorted(maps.Keys(j.repositories)) {
		tasks = append(tasks, func(ctx context.Context) (result, error) { return j.repository(ctx, repository) })
	}
	err = j.each(ctx, tasks, func(r result) {
		found.Violations = append(found.Violations, r.violations...)
		found.Signed += r.signed
		found.Dead += r.dead
		found.Undecided += r.undecided
		found.By.Webhook += r.found.Webhook
		found.By.Sweep += r.found.Sweep
		found.By.Final += r.found.Final
	})
	slices.SortFunc(found.Violations, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	found.Violations = slices.Compact(found.Violations)
	if err != nil {
		return found, fmt.Errorf("checking a run: %w", err)
	}
	return found, nil
}

// result is what one task found.
type result struct {
	violations              []Violation
	signed, dead, undecided int
	found                   Found
}

// each does all tasks, some at a time, and hands their results on one by one. It stops at the first error.
func (c Chaos) each(ctx context.Context, tasks []func(context.Context) (result, error), take func(result)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan func(context.Context) (result, error))
	var mu sync.Mutex
	done := 0
	work := func() {
		for task := range next {
			r, err := task(ctx)
			if err != nil {
				cancel(err)
				continue
			}
			mu.Lock()
			done++
			take(r)
			if c.Progress != nil {
				c.Progress(done, len(tasks))
			}
			mu.Unlock()
		}
	}
	var workers sync.WaitGroup
	for range c.Parallel {
		workers.Go(work)
	}
	for _, task := range tasks {
		select {
		case next <- task:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// judgement is a run that is being judged. It is read alone once it is prepared.
type judgement struct {
	Chaos

	story  *story
	keys   []string          // the names of our keys
	names  map[string]string // and those by their ids
	rows   map[unit][]Row
	events map[unit][]LedgerEvent
	// letters are the dead letters.
	letters map[unit]Letter
	// sweeps are when full sweeps began, by the name that their requests have.
	sweeps map[string]time.Time
	// units are all that anybody speaks of, repositories those that they are in, with the digests of each.
	units        []unit
	repositories map[string][]string
}

func (c Chaos) prepare() (*judgement, error) {
	if len(c.Checkers) == 0 {
		return nil, errors.New("there is no key to judge by")
	}
	if c.Explains == nil {
		c.Explains = Explanations()
	}
	if c.Settle == 0 {
		c.Settle = defaultSettle
	}
	if c.Parallel <= 0 {
		c.Parallel = defaultParallel
	}
	j := &judgement{
		Chaos: c, story: newStory(c.Journal, c.Settle), keys: slices.Sorted(maps.Keys(c.Checkers)), names: make(map[string]string),
		rows: make(map[unit][]Row), events: make(map[unit][]LedgerEvent), letters: make(map[unit]Letter),
		repositories: make(map[string][]string), sweeps: sweeps(c.Ledger),
	}
	for name, checker := range c.Checkers {
		id, err := checker.keyID()
		if err != nil {
			return nil, err
		}
		j.names[id] = name
	}
	all := make(map[unit]bool)
	for u := range j.story.units {
		all[u] = true
	}
	for _, row := range c.Rows {
		u := unit{row.Repository, row.Digest}
		j.rows[u], all[u] = append(j.rows[u], row), true
	}
	for _, l := range c.Letters {
		u := unit{l.Repository, l.Digest}
		j.letters[u], all[u] = l, true
	}
	for _, e := range c.Ledger {
		if e.Ref == "" || e.Canary {
			continue
		}
		u, err := parseUnit(e.Ref)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Seq, err)
		}
		j.events[u], all[u] = append(j.events[u], e), true
	}
	j.units = slices.SortedFunc(maps.Keys(all), func(a, b unit) int { return strings.Compare(a.String(), b.String()) })
	for _, u := range j.units {
		j.repositories[u.Repository] = append(j.repositories[u.Repository], u.Digest)
	}
	return j, nil
}

func (j *judgement) counts() Findings {
	f := Findings{Digests: len(j.units), Faults: make(map[string]int)}
	for _, h := range j.story.units {
		for _, e := range h.pushes {
			if e.Accepted {
				f.Pushes++
			}
		}
	}
	for _, e := range j.story.faults {
		f.Faults[e.Fault]++
	}
	if calm := j.story.calm; !calm.Ended.IsZero() {
		f.Calm = calm.Ended.Sub(calm.Began)
	}
	return f
}

// repository finds what our keys signed in a repository although nobody speaks of it.
func (j *judgement) repository(ctx context.Context, repository string) (result, error) {
	var r result
	for _, key := range j.keys {
		violations, err := j.Checkers[key].Repository(ctx, repository, j.repositories[repository])
		if err != nil {
			return result{}, err
		}
		for _, v := range violations {
			v.Rule = Extra
			r.violations = append(r.violations, v)
		}
	}
	return r, nil
}
