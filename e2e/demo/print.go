package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
)

// Colours, for terminals alone.
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

// printer writes what goes on.
type printer struct {
	out   io.Writer
	color bool
	start time.Time
}

// begin sets the clock to zero: the time that compiling takes is not the demonstration's.
func (p *printer) begin() { p.start = time.Now() }

func (p *printer) paint(color, text string) string {
	if !p.color {
		return text
	}
	return color + text + plain
}

func (p *printer) write(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format, args...) // Nobody can be told.
}

func (p *printer) step(format string, args ...any) {
	p.write("%s %s\n", p.paint(bold, fmt.Sprintf("[%5.1fs]", time.Since(p.start).Seconds())), fmt.Sprintf(format, args...))
}

func (p *printer) item(format string, args ...any) { p.write("         - "+format+"\n", args...) }

func (p *printer) fail(format string, args ...any) {
	p.write("%s %s\n", p.paint(red, "FAILED:"), fmt.Sprintf(format, args...))
}

func (r *result) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// print writes the tables. Colours stand outside of the aligned columns, because their bytes would be counted.
func (r *result) print(p *printer) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "IMAGE\tREPOSITORY\tDIGEST\tSTATE\tFORMATS\tWEBHOOK TO SIGNED\tATTEMPTS\tCHECKER\tCOSIGN")
	for _, l := range r.Lines {
		took := "no webhook"
		switch {
		case l.Restored:
			took = "removed, restored"
		case l.Seconds != nil:
			took = seconds(*l.Seconds)
		case l.Early:
			took = "before it"
		case l.Wanted != "signed":
			took = "-"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Image, l.Repository, short(l.Digest), l.State,
			names(l.Formats), took, l.Attempts, verdict(l.Checker), verdict(l.Cosign))
	}
	_ = w.Flush() // A builder takes everything.
	p.write("\n%s\n", table.String())
	p.write("webhook received to verified signature: p50 %s, p99 %s; with the killed signer's work waiting for redelivery: at most %s\n\n",
		seconds(r.P50), seconds(r.P99), seconds(r.HeldWorst))
	r.printReport(p)
	for _, v := range r.Violations {
		p.fail("%s", v)
	}
	if len(r.Violations) == 0 {
		p.write("%s\n", p.paint(green, fmt.Sprintf(
			"All %d digests are as they should be: signed once in each format where wanted, verified by the checker and by cosign, and in the report.", len(r.Lines))))
	}
}

func (r *result) printReport(p *printer) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "REPOSITORY\tDIGEST\tTAGS\tSTATE\tHOW\tPUSHED\tSIGNED\tFORMAT\tSIGNATURES\tKEY")
	for _, row := range r.rows {
		carriers := make([]string, 0, len(row.Signatures))
		for _, s := range row.Signatures {
			carriers = append(carriers, short(s.Digest))
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.8s\n", row.Repository, short(row.Digest), strings.Join(row.Tags, " "),
			strings.TrimSpace(row.State+" "+row.Reason), row.How, clock(row.PushedAt), clock(row.SignedAt), row.Format, strings.Join(carriers, " "), row.KeyID)
	}
	_ = w.Flush() // A builder takes everything.
	r.printCoverage(p)
	p.write("The report (GET /api/v1/signatures), newest first, times in UTC:\n\n%s\n", table.String())
}

// printCoverage writes what a compliance admin sees first.
func (r *result) printCoverage(p *printer) {
	c := r.Coverage
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "POPULATION\tSIGNED\tPENDING\tFAILED\tEXCLUDED\tBLOCKED\tUNSIGNED\tLAST SWEEP\tHARBOR COUNTS\tREQUESTS")
	swept, counted, requests := "never", 0, 0
	if s := c.LastSweep; s != nil {
		swept, counted, requests = clock(&s.FinishedAt), s.HarborCount, s.Requests
	}
	_, _ = fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\n",
		c.Population, c.Signed, c.Pending, c.Failed, c.Excluded, c.Blocked, c.Unsigned, swept, counted, requests)
	_ = w.Flush() // A builder takes everything.
	p.write("The project's coverage (GET /api/v1/projects/%s):\n\n%s\n", enabledProject, table.String())
}

// names joins formats; "-" for none.
func names(formats []checker.Format) string {
	if len(formats) == 0 {
		return "-"
	}
	all := make([]string, 0, len(formats))
	for _, format := range formats {
		all = append(all, string(format))
	}
	return strings.Join(all, "+")
}

func verdict(good bool) string {
	if good {
		return "ok"
	}
	return "FAILED"
}

func short(digest string) string {
	return strings.TrimPrefix(digest, "sha256:")[:min(12, max(0, len(digest)-7))]
}

func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("15:04:05.000")
}

// explain says what can be looked at while everything runs.
func (d *demo) explain() {
	s, p := d.system, d.printer
	p.write("\nEverything keeps running until Ctrl-C.\n\n")
	p.write("Harbor (emulated)  %s  user %s, password %s\n", d.harbor.URL, d.harbor.Username, d.harbor.Password)
	p.write("the project        curl -u %s:%s %s/api/v1/projects/%s\n", d.harbor.Username, d.harbor.Password, s.URL, enabledProject)
	p.write("the report         curl -H 'Authorization: Bearer %s' %s/api/v1/signatures\n", s.Token, s.URL)
	p.write("the public key     curl %s/api/v1/keys\n", s.URL)
	p.write("receiver           http://%s/metrics  /readyz  /livez\n", s.Receiver.Ops)
	for _, signer := range s.Signers {
		p.write("%-18s http://%s/metrics  /readyz  /livez\n", signer.Name, signer.Ops)
	}
	p.write("files and logs     %s\n\n", d.dir)
	first := d.images[0].pushed
	verify := d.cosign.VerifyArgs(s.Keys.Public, d.harbor.Host+"/"+first.Repository+"@"+first.Digest)
	p.write("Verify an image:\n\n  DOCKER_CONFIG=%s %s %s\n\n", filepath.Join(d.dir, "cosign"), d.cosign.Path(), strings.Join(verify, " "))
	p.write("Push one of your own to %s/%s/..., as %s with password %s\n", d.harbor.Host, enabledProject, d.site.Developer.Name, d.site.Developer.Secret)
}
