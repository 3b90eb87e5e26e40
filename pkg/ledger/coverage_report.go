package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// defaultDays is the period of a coverage report that names none, and maxDays the longest.
	defaultDays = 30
	maxDays     = 400
	// MaxCovered is how many projects a coverage report shows one by one; its total is over all.
	MaxCovered = 1000
)

// CoverageQuery asks how far projects are signed.
type CoverageQuery struct {
	// Project is a project's exact name; empty means all.
	Project string
	// Projects restricts the answer to these, such as those that somebody may see; nil means all.
	Projects []string
	// Since and Until are the first day and the last, in UTC. The zero time means 30 days, today being the last.
	Since, Until time.Time
}

// CoverageFilter is a query as stores take it: checked, with everything filled in.
type CoverageFilter struct {
	// Projects are sorted; nil means all.
	Projects []string
	// Single says that one project was asked for, whose days are shown.
	Single bool
	// From <= day < To.
	From, To Day
}

// Filter checks the query. The error is an [*InvalidQueryError].
func (q CoverageQuery) Filter(now time.Time) (CoverageFilter, error) {
	f := CoverageFilter{To: DayOf(now) + 1, Projects: slices.Clone(q.Projects)}
	if q.Project != "" {
		if artifact.ValidateProject(q.Project) != nil {
			return CoverageFilter{}, invalid("project", wantProject)
		}
		if q.Projects != nil && !slices.Contains(q.Projects, q.Project) {
			f.Projects = []string{}
		} else {
			f.Projects = []string{q.Project}
		}
		f.Single = true
	}
	slices.Sort(f.Projects)
	if !q.Until.IsZero() {
		f.To = DayOf(q.Until) + 1
	}
	f.From = f.To - defaultDays
	if !q.Since.IsZero() {
		f.From = DayOf(q.Since)
	}
	switch {
	case f.From >= f.To:
		return CoverageFilter{}, invalid("until", "want a day that is not before since")
	case f.To-f.From > maxDays:
		return CoverageFilter{}, invalid("since", fmt.Sprintf("want at most %d days up to until", maxDays))
	}
	return f, nil
}

// Exceptions are the digests that an auditor asks about first: those without a signature that counts, and why.
type Exceptions struct {
	// Unsigned are those that nobody was asked to sign, or whose signature was removed; Failed are tried again, Dead were given up;
	// Exempt were approved to be left out until a day; Blocked were forbidden.
	Unsigned int `json:"unsigned"`
	Failed   int `json:"failed"`
	Dead     int `json:"dead"`
	Exempt   int `json:"exempt"`
	Blocked  int `json:"blocked"`
}

// DayCoverage are the digests that were first seen on a day, as they stand now, and what was signed on that day.
type DayCoverage struct {
	Day        string     `json:"day"` // such as 2026-01-31, in UTC
	Exceptions Exceptions `json:"exceptions"`
	Population int        `json:"population"`
	Signed     int        `json:"signed"`
	Pending    int        `json:"pending"`
	// Excluded are left out by the policy, exempt ones included.
	Excluded int `json:"excluded"`
	// TimeToSign is of the signatures that were made on that day; null if none was.
	TimeToSign *Percentiles `json:"time_to_sign"`
}

// Percentiles are times from push to signature, in seconds. They are upper bounds, an eighth above at most.
type Percentiles struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
}

// Covered is a project, or all of them together. Days and times are those of the period, all else is as it stands now.
type Covered struct {
	// Project is empty for the total.
	Project    string     `json:"project,omitempty"`
	Exceptions Exceptions `json:"exceptions"`
	Coverage
	// Unaccounted is how many digests more Harbor has counted itself than the last sweep has seen: its count when the sweep began, and
	// what the sweep noticed of pushes and deletions meanwhile, less the population. It is null before there was a sweep.
	Unaccounted *int         `json:"unaccounted"`
	TimeToSign  *Percentiles `json:"time_to_sign"`
	// Days are there in the total, and in the one project that was asked for; oldest first, without those on which nothing happened.
	Days []DayCoverage `json:"days,omitempty"`
}

// KeyDates is a key with what became of it; a date is null if that did not happen, or before the ledger begins.
type KeyDates struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Use       string     `json:"use"`
	State     string     `json:"state"`
	AddedAt   *time.Time `json:"added_at"`
	RetiredAt *time.Time `json:"retired_at"`
	RevokedAt *time.Time `json:"revoked_at"`
}

// CoverageReport answers a [CoverageQuery].
type CoverageReport struct {
	// AsOf is the sequence of the ledger up to which everything is in the report.
	AsOf uint64 `json:"as_of"`
	// Since and Until are the first and the last day.
	Since string `json:"since"`
	Until string `json:"until"`
	// Total is over all projects of the question; LastSweep and Unaccounted are those of single projects alone.
	Total Covered `json:"total"`
	// Projects are those with the most exceptions first, at most MaxCovered; ProjectsTotal is how many there are.
	Projects      []Covered  `json:"projects"`
	ProjectsTotal int        `json:"projects_total"`
	Keys          []KeyDates `json:"keys"`
}

// CoverageSums collects a report from what a store counts.
type CoverageSums struct {
	filter    CoverageFilter
	projects  map[string]*Covered
	days      map[Day]*DayCoverage
	signTimes map[string]histogram
	daily     map[Day]histogram
}

// histogram counts times to sign by their bucket.
type histogram map[int]int

// NewCoverageSums begins a report about projects.
func NewCoverageSums(f CoverageFilter, projects []string) *CoverageSums {
	s := &CoverageSums{
		filter: f, projects: make(map[string]*Covered, len(projects)), days: map[Day]*DayCoverage{}, signTimes: map[string]histogram{},
		daily: map[Day]histogram{},
	}
	for _, name := range projects {
		s.projects[name] = &Covered{Project: name}
	}
	return s
}

// Project adds what is counted of a project already.
func (s *CoverageSums) Project(name string, c Coverage) {
	p := s.projects[name]
	if p == nil {
		return
	}
	p.Coverage = c
	if sweep := c.LastSweep; sweep != nil {
		left := sweep.HarborCount + sweep.Pushed - sweep.Deleted - sweep.Population
		p.Unaccounted = &left
	}
}

// Count adds digests of a state and class (see [ClassOf]) to a project.
func (s *CoverageSums) Count(project string, state State, class string, digests int) {
	if p := s.projects[project]; p != nil {
		p.Exceptions.add(state, class, digests)
	}
}

// CountDay adds digests that were first seen on a day.
func (s *CoverageSums) CountDay(day Day, state State, class string, digests int) {
	var c Coverage
	if state != Skipped || !slices.Contains(AccessoryReasons(), policy.Reason(class)) {
		c.Count(state, digests, day.Start())
	}
	if c.Population == 0 {
		return // the day is not shown for what is not counted
	}
	d := s.day(day)
	d.Exceptions.add(state, class, digests)
	d.Population += c.Population
	d.Signed += c.Signed
	d.Pending += c.Pending
	d.Excluded += c.Excluded
}

// SignTime adds signatures that were made for a project in the period, by the bucket of their times.
func (s *CoverageSums) SignTime(project string, bucket, signatures int) {
	if s.signTimes[project] == nil {
		s.signTimes[project] = histogram{}
	}
	s.signTimes[project][bucket] += signatures
}

// SignTimeDay adds signatures that were made on a day, by the bucket of their times.
func (s *CoverageSums) SignTimeDay(day Day, bucket, signatures int) {
	if s.daily[day] == nil {
		s.daily[day] = histogram{}
	}
	s.daily[day][bucket] += signatures
}

func (s *CoverageSums) day(day Day) *DayCoverage {
	if s.days[day] == nil {
		s.days[day] = &DayCoverage{Day: day.Start().Format(time.DateOnly)}
	}
	return s.days[day]
}

// Report gives the sums.
func (s *CoverageSums) Report() CoverageReport {
	r := CoverageReport{
		Since: s.filter.From.Start().Format(time.DateOnly), Until: (s.filter.To - 1).Start().Format(time.DateOnly),
		Projects: []Covered{}, ProjectsTotal: len(s.projects), Keys: []KeyDates{},
	}
	all := histogram{}
	for _, name := range slices.Sorted(maps.Keys(s.projects)) {
		p := s.projects[name]
		p.TimeToSign = s.signTimes[name].percentiles()
		for bucket, n := range s.signTimes[name] {
			all[bucket] += n
		}
		r.Total.sum(p)
		r.Projects = append(r.Projects, *p)
	}
	r.Total.TimeToSign = all.percentiles()
	for day, h := range s.daily {
		s.day(day).TimeToSign = h.percentiles()
	}
	for _, day := range slices.Sorted(maps.Keys(s.days)) {
		r.Total.Days = append(r.Total.Days, *s.days[day])
	}
	if s.filter.Single && len(r.Projects) == 1 {
		r.Projects[0].Days = r.Total.Days
	}
	slices.SortStableFunc(r.Projects, func(a, b Covered) int { return b.Exceptions.total() - a.Exceptions.total() })
	r.Projects = r.Projects[:min(len(r.Projects), MaxCovered)]
	return r
}

// sum adds a project to the total.
func (c *Covered) sum(p *Covered) {
	e := p.Exceptions
	c.Exceptions.Unsigned += e.Unsigned
	c.Exceptions.Failed += e.Failed
	c.Exceptions.Dead += e.Dead
	c.Exceptions.Exempt += e.Exempt
	c.Exceptions.Blocked += e.Blocked
	c.Population += p.Population
	c.Signed += p.Signed
	c.Pending += p.Pending
	c.Failed += p.Failed
	c.Excluded += p.Excluded
	c.Blocked += p.Blocked
	c.Unsigned += p.Unsigned
	if at := p.OldestUnsignedAt; at != nil && (c.OldestUnsignedAt == nil || at.Before(*c.OldestUnsignedAt)) {
		c.OldestUnsignedAt = at
	}
	if p.OldestLogDebtAt != nil {
		c.Owe(p.LogDebt, *p.OldestLogDebtAt)
	}
}

func (e *Exceptions) add(state State, class string, digests int) {
	switch {
	case state == Unsigned:
		e.Unsigned += digests
	case state == Failed:
		e.Failed += digests
	case state == Dead:
		e.Dead += digests
	case state == Blocked:
		e.Blocked += digests
	case state == Skipped && class == string(policy.Exempt):
		e.Exempt += digests
	}
}

func (e Exceptions) total() int { return e.Unsigned + e.Failed + e.Dead + e.Exempt + e.Blocked }

// percentiles are nil if nothing was counted. A time is taken for the longest of its bucket.
func (h histogram) percentiles() *Percentiles {
	p := &Percentiles{}
	for _, n := range h {
		p.Count += n
	}
	if p.Count == 0 {
		return nil
	}
	seen := 0
	for _, bucket := range slices.Sorted(maps.Keys(h)) {
		before := seen
		seen += h[bucket]
		_, to := SignTimeBounds(bucket)
		for _, q := range []struct {
			of   int // in percent
			into *float64
		}{{50, &p.P50}, {90, &p.P90}, {99, &p.P99}} {
			rank := (p.Count*q.of + 99) / 100 // the nearest rank, from 1
			if before < rank && rank <= seen {
				*q.into = to.Seconds()
			}
		}
	}
	return p
}

// KeyInventory collects the dates of keys from their events, which come oldest first.
func KeyInventory(events []ProjectEvent) []KeyDates {
	keys := []KeyDates{}
	index := map[[2]string]int{}
	for _, e := range events {
		if e.Key == nil {
			continue
		}
		of := [2]string{e.Key.Use, e.Key.ID}
		i, known := index[of]
		if !known {
			i = len(keys)
			index[of], keys = i, append(keys, KeyDates{ID: e.Key.ID, Use: e.Key.Use})
		}
		at := e.At
		keys[i].Name, keys[i].State = e.Key.Name, e.Key.State
		switch e.Kind {
		case artifact.KeyAdded:
			keys[i].AddedAt, keys[i].RetiredAt, keys[i].RevokedAt = &at, nil, nil
		case artifact.KeyRetired:
			keys[i].RetiredAt = &at
		case artifact.KeyRevoked:
			keys[i].RevokedAt = &at
		default:
		}
	}
	return keys
}
