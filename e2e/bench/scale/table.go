package scale

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/target"
)

// Where an incremental sweep looks for pushes.
const (
	Feed    = "feed"
	Listing = "listing"
)

// Result is all that was measured. Durations are in nanoseconds, memory is in bytes.
type Result struct {
	Content Content  `json:"content"`
	Sweeps  []*Sweep `json:"full_sweeps"`
	// Slow are sweeps of some projects on a Harbor that takes longer for each request.
	Slow    []*Sweep      `json:"full_sweeps_slow_harbor"`
	Minutes []*Minute     `json:"incremental_sweeps"`
	Checks  target.Checks `json:"checks"`
}

// Content is what was made. Seeding is how long it took to put what is signed into the ledger's database.
type Content struct {
	Projects     int `json:"projects"`
	Repositories int `json:"repositories"`
	Digests      int `json:"digests"`
	Indexes      int `json:"indexes"`
	Unsigned     int `json:"unsigned"`
	// Fewest is how many listing requests are needed at least.
	Fewest  int           `json:"fewest_listing_requests"`
	Seeding time.Duration `json:"seeding_ns"`
}

// Found compares what was asked for with what is unsigned.
type Found struct {
	Want  int `json:"unsigned"`
	Found int `json:"found"`
	// Others were asked for although they are signed.
	Others int `json:"others"`
}

func (f Found) exact() bool { return f.Found == f.Want && f.Others == 0 }

func (f Found) String() string { return fmt.Sprintf("%d of %d, %d others", f.Found, f.Want, f.Others) }

// Sweep is the full sweep of projects, by some signers together.
type Sweep struct {
	Signers  int `json:"signers"`
	Projects int `json:"projects"`
	// Latency is what each request to Harbor took longer than the emulator needs.
	Latency time.Duration `json:"latency_ns"`
	Took    time.Duration `json:"took_ns"`
	// Requests are all that came to Harbor meanwhile, by kind.
	Requests map[string]int `json:"requests"`
	// Population is how many manifests were looked at, Unsigned how many of them were asked for, or were waiting already.
	Population int   `json:"population"`
	Unsigned   int   `json:"unsigned"`
	Found      Found `json:"found"`
	// CPU is the signers' own, together; PeakRSS is that of the largest one, since its start.
	CPU         time.Duration `json:"cpu_ns"`
	PeakRSS     int64         `json:"peak_rss_bytes"`
	ReceiverCPU time.Duration `json:"receiver_cpu_ns"`
	ReceiverRSS int64         `json:"receiver_rss_bytes"`
	EmulatorCPU time.Duration `json:"emulator_cpu_ns"`
}

// Minute is one incremental sweep.
type Minute struct {
	Source   string         `json:"source"`
	Pushes   int            `json:"pushes"`
	Projects int            `json:"projects"`
	Took     time.Duration  `json:"took_ns"`
	Requests map[string]int `json:"requests"`
	Found    Found          `json:"found"`
	CPU      time.Duration  `json:"cpu_ns"`
	// PeakRSS is since the signer's start.
	PeakRSS int64 `json:"peak_rss_bytes"`
}

const (
	mostToFewest = 1.1
	mostRSS      = 512 << 20
	pageSize     = 100
	// shares is among how many incremental sweeps the projects are divided that are listed to check the feed.
	shares = 60
	// few are what does not depend on anything: Harbor's clock, the list of projects, a page that is not full.
	few = 12
)

// Missed says whether a target was missed.
func (r *Result) Missed() bool { return r.Checks.Missed() }

// Judge compares with the targets.
func (r *Result) Judge() {
	peak := int64(0)
	for _, s := range r.Sweeps {
		by := s.label() + ": "
		all := total(s.Requests)
		r.Checks.Add(by+"unsigned digests found", "every one, and no other", s.Found.exact() && s.Unsigned == s.Found.Want,
			"%s; %d by this sweep", s.Found, s.Unsigned)
		r.Checks.Add(by+"manifests looked at", fmt.Sprint(s.want(r.Content)), s.Population == s.want(r.Content), "%d", s.Population)
		r.Checks.Add(by+"requests, to the fewest possible", fmt.Sprintf("at most %.1f of %d", mostToFewest, r.Content.Fewest),
			float64(all) <= mostToFewest*float64(r.Content.Fewest), "%.3f: %d", float64(all)/float64(r.Content.Fewest), all)
		peak = max(peak, s.PeakRSS)
	}
	for _, m := range r.Minutes {
		by := m.label() + ": "
		most, why := m.most()
		all := total(m.Requests)
		r.Checks.Add(by+"unsigned digests found", "every one, and no other", m.Found.exact(), "%s", m.Found)
		r.Checks.Add(by+"requests", fmt.Sprintf("at most %d: %s", most, why), all <= most, "%d", all)
		peak = max(peak, m.PeakRSS)
	}
	r.Checks.Add("peak RSS of a signer", fmt.Sprintf("under %d MiB", mostRSS>>20), peak > 0 && peak < mostRSS, "%.0f MiB", mebibytes(peak))
}

// want is the population: one push came after the content was made.
func (s *Sweep) want(c Content) int { return c.Digests + 1 }

// most is how many requests an incremental sweep may send. It looks back two minutes beyond the last one, and so sees three
// minutes of pushes.
func (m *Minute) most() (most int, why string) {
	if m.Source == Feed {
		return 3*pages(m.Pushes) + 2*divided(m.Projects, shares) + few,
			fmt.Sprintf("pages for three minutes of pushes, and twice 1/%d of the projects", shares)
	}
	return m.Projects + 3*pages(m.Pushes) + few, "one for each project, and pages for three minutes of pushes"
}

func pages(rows int) int { return divided(rows, pageSize) }

func divided(rows, size int) int { return (rows + size - 1) / size }

// Print writes the tables for people.
func (r *Result) Print(out io.Writer) error {
	c := r.Content
	_, _ = fmt.Fprintf(out, "%d digests (%d indexes, %d unsigned) in %d projects and %d repositories; %d listing requests are the fewest.\n\n",
		c.Digests, c.Indexes, c.Unsigned, c.Projects, c.Repositories, c.Fewest) // the next write tells
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") } // Flush tells
	line("sweep", "seconds", "digests a second", "requests", "to the fewest", "peak MiB of a signer", "CPU s: signers", "receiver", "emulator")
	for _, s := range slices.Concat(r.Sweeps, r.Slow) {
		fewest := "-"
		if s.Latency == 0 {
			fewest = fmt.Sprintf("%.3f", float64(total(s.Requests))/float64(c.Fewest))
		}
		line(s.label(), seconds(s.Took), fmt.Sprintf("%.0f", float64(s.Population)/s.Took.Seconds()), fmt.Sprint(total(s.Requests)), fewest,
			fmt.Sprintf("%.0f", mebibytes(s.PeakRSS)), seconds(s.CPU), seconds(s.ReceiverCPU), seconds(s.EmulatorCPU))
	}
	for _, m := range r.Minutes {
		line(m.label(), seconds(m.Took), "-", fmt.Sprint(total(m.Requests)), "-", fmt.Sprintf("%.0f", mebibytes(m.PeakRSS)), seconds(m.CPU), "-", "-")
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	r.remark(out)
	return r.Checks.Print(out)
}

// remark says what the numbers are of.
func (r *Result) remark(out io.Writer) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) } // the checks' write tells
	for _, s := range r.Sweeps {
		line("  %s: %s", s.label(), kinds(s.Requests))
	}
	for _, m := range r.Minutes {
		line("  %s: %s", m.label(), kinds(m.Requests))
	}
	for _, sweeps := range [][]*Sweep{r.Sweeps, r.Slow} {
		if len(sweeps) == 2 {
			one, two := sweeps[0], sweeps[1]
			line("Two signers take %.2f of the time of one (%d projects, %s more for each request).", two.Took.Seconds()/one.Took.Seconds(),
				two.Projects, two.Latency)
		}
	}
	line("Without a budget of requests. Signers, receiver, emulator and this program share %d processors. What is signed was put into the\n"+
		"ledger's database beforehand (%s s), as of one event and by the ledger's own rules, and nothing was signed meanwhile: this is the\n"+
		"daily sweep of content that is known. The first sweep of all, which verifies every signature, is not measured.",
		runtime.NumCPU(), seconds(r.Content.Seeding))
}

func (s *Sweep) label() string {
	label := fmt.Sprintf("full, %d projects, %s", s.Projects, signers(s.Signers))
	if s.Latency > 0 {
		label += fmt.Sprintf(", %s a request", s.Latency)
	}
	return label
}

func (m *Minute) label() string { return fmt.Sprintf("incremental, %s, %d pushes", m.Source, m.Pushes) }

func signers(n int) string {
	if n == 1 {
		return "1 signer"
	}
	return fmt.Sprintf("%d signers", n)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

func total(requests map[string]int) int {
	sum := 0
	for _, n := range requests {
		sum += n
	}
	return sum
}

func kinds(requests map[string]int) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(requests)) {
		all = append(all, fmt.Sprintf("%d %s", requests[kind], kind))
	}
	return strings.Join(all, ", ")
}
