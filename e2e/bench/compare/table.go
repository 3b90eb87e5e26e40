package compare

import (
	"math"
	"slices"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/e2e/bench/target"
)

// Table is the result of a run.
type Table struct {
	Rows   []*Row        `json:"rows"`
	Memory *Memory       `json:"memory,omitempty"`
	Checks target.Checks `json:"checks,omitempty"`
}

// Row is one contender with one format.
type Row struct {
	Signer string  `json:"signer"`
	Format string  `json:"format"`
	Levels []Level `json:"levels"`
	// Requests are missing where the registry does not count.
	Requests *Requests `json:"requests,omitempty"`
}

// Requests are those of one signature, read-back included, by kind.
type Requests struct {
	// FirstOfProcess includes what a process asks once in its life, such as the registry's challenge.
	FirstOfProcess map[string]float64 `json:"first_of_process"`
	// Cold is the first in a repository, with its token.
	Cold map[string]float64 `json:"cold"`
	Warm map[string]float64 `json:"warm"`
}

// Level is what a contender did with one number in flight: medians over the rounds.
type Level struct {
	InFlight   int `json:"in_flight"`
	Signatures int `json:"signatures"`
	// Rate is in signatures a second, Ratio is to the bare loop's in the same round; 0 if that did not run.
	Rate  float64 `json:"rate"`
	Ratio float64 `json:"ratio"`
	// Slowest and Fastest are the rates of single rounds.
	Slowest float64 `json:"slowest"`
	Fastest float64 `json:"fastest"`
	// CPU is the contender's own, in milliseconds a signature.
	CPU float64 `json:"cpu_ms"`
	// RegistryCPU is that of the registry in memory, which shares the machine, in milliseconds a signature.
	RegistryCPU float64 `json:"registry_cpu_ms,omitempty"`
	// PeakRSS is in bytes.
	PeakRSS int64 `json:"peak_rss_bytes"`
	// Allocations and AllocatedBytes are for one signature; 0 where nobody can tell.
	Allocations    float64 `json:"allocations"`
	AllocatedBytes float64 `json:"allocated_bytes"`

	rates, ratios, cpus, registry, allocations, bytes []float64
}

// Memory is how large the engine's process was.
type Memory struct {
	FirstSignatures int   `json:"first_signatures"`
	First           int64 `json:"first_peak_rss_bytes"`
	Signatures      int   `json:"signatures"`
	Last            int64 `json:"peak_rss_bytes"`
}

// row finds one, and adds it if it is missing.
func (t *Table) row(signer, format string) *Row {
	for _, r := range t.Rows {
		if r.Signer == signer && r.Format == format {
			return r
		}
	}
	r := &Row{Signer: signer, Format: format}
	t.Rows = append(t.Rows, r)
	return r
}

func (r *Row) label() string { return r.Signer + ", " + r.Format }

// add takes one round, with the CPU that the registry used, and gives its rate.
func (l *Level) add(r contender.Result, registry time.Duration) float64 {
	n := float64(r.Signatures)
	rate := n / r.Took.Seconds()
	l.Signatures += r.Signatures
	l.PeakRSS = max(l.PeakRSS, r.PeakRSS)
	l.rates = append(l.rates, rate)
	l.cpus = append(l.cpus, float64(r.CPU)/float64(time.Millisecond)/n)
	l.registry = append(l.registry, float64(registry)/float64(time.Millisecond)/n)
	l.allocations = append(l.allocations, float64(r.Allocations)/n)
	l.bytes = append(l.bytes, float64(r.AllocatedBytes)/n)
	return rate
}

// compare takes the rates of one round.
func (l *Level) compare(own, bare float64) {
	if bare > 0 {
		l.ratios = append(l.ratios, own/bare)
	}
}

// summary is the level with its medians.
func (l *Level) summary() Level {
	s := *l
	s.Rate, s.Ratio, s.CPU = median(l.rates), median(l.ratios), median(l.cpus)
	s.RegistryCPU = median(l.registry)
	s.Allocations, s.AllocatedBytes = median(l.allocations), median(l.bytes)
	s.Slowest, s.Fastest = slices.Min(l.rates), slices.Max(l.rates)
	return s
}

// median is 0 for nothing.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// level gives the one with so many in flight, nil if there is none.
func (r *Row) level(inFlight int) *Level {
	at := slices.IndexFunc(r.Levels, func(l Level) bool { return l.InFlight == inFlight })
	if at < 0 {
		return nil
	}
	return &r.Levels[at]
}

// total adds requests of all kinds. Counts are fractions of whole requests: what is nearly a hundredth is one.
func total(requests map[string]float64, without ...string) float64 {
	sum := 0.0
	for kind, n := range requests {
		if !slices.Contains(without, kind) {
			sum += n
		}
	}
	return math.Round(sum*100) / 100
}
