// Package footprint measures what the programs take before they do anything: how large they are, how long they take to
// start, and what each key provider adds.
//
// Programs are built as `make build` builds them, but for the tags. A build that fails here, such as the one that needs a C
// compiler, is left out of the table with what it said.
package footprint

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// starts is how often each program is started.
const starts = 9

// Row is one build.
type Row struct {
	Program string `json:"program"`
	// Tags are the build tags; CGO says whether C code is linked.
	Tags string `json:"tags"`
	CGO  bool   `json:"cgo,omitempty"`
	Size int64  `json:"size_bytes"`
	// Start is the median time from exec to the exit of the subcommand version.
	Start time.Duration `json:"start_ns"`
	// Provider is the key provider that this build has and Without lacks, or the other way round; Adds is its size in bytes.
	Provider string `json:"provider,omitempty"`
	Adds     int64  `json:"adds_bytes,omitempty"`
	// Failed says why there is no such build here.
	Failed string `json:"failed,omitempty"`
}

// builds are the default ones, and one for each key provider: with those that are left out by default, without those that
// are in. The one that needs CGO is compared with another one that has it.
func builds() []Row {
	return []Row{
		{Program: "receiver"},
		{Program: "signer"},
		{Program: "signer", Tags: "no_hashivault,no_awskms"},
		{Program: "signer", Tags: "no_hashivault", Provider: "hashivault"},
		{Program: "signer", Tags: "no_awskms", Provider: "awskms"},
		{Program: "signer", Tags: "gcpkms", Provider: "gcpkms"},
		{Program: "signer", Tags: "azurekms", Provider: "azurekms"},
		{Program: "signer", CGO: true},
		{Program: "signer", Tags: "pkcs11", CGO: true, Provider: "pkcs11"},
	}
}

// Measure builds the programs into dir and starts them.
func Measure(ctx context.Context, dir string, progress io.Writer) ([]Row, error) {
	rows := builds()
	for i := range rows {
		r := &rows[i]
		_, _ = fmt.Fprintf(progress, "building %s\n", r.label()) // nobody can be told
		path := filepath.Join(dir, fmt.Sprintf("%s-%d", r.Program, i))
		if err := r.build(ctx, path); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			r.Failed = err.Error()
			continue
		}
		if err := r.measure(ctx, path); err != nil {
			return nil, err
		}
	}
	compare(rows)
	return rows, nil
}

// compare says what each provider adds to the build of the same kind without tags.
func compare(rows []Row) {
	for i := range rows {
		r := &rows[i]
		at := slices.IndexFunc(rows, func(plain Row) bool {
			return plain.Program == r.Program && plain.CGO == r.CGO && plain.Tags == "" && plain.Failed == ""
		})
		switch {
		case r.Provider == "" || r.Failed != "" || at < 0:
		case strings.HasPrefix(r.Tags, "no_"):
			r.Adds = rows[at].Size - r.Size
		default:
			r.Adds = r.Size - rows[at].Size
		}
	}
}

func (r *Row) label() string {
	label := r.Program
	if r.CGO {
		label += " with CGO"
	}
	if r.Tags != "" {
		label += " -tags " + r.Tags
	}
	return label
}

func (r *Row) build(ctx context.Context, path string) error {
	args, cgo := []string{"build", "-trimpath", "-tags", r.Tags, "-o", path}, "CGO_ENABLED=0"
	if r.CGO {
		// Whether Go or the C compiler links makes a larger difference than what is linked: here the latter always does.
		args, cgo = append(args, "-ldflags=-linkmode=external"), "CGO_ENABLED=1"
	}
	args = append(args, "github.com/harborseal/harborseal/cmd/"+r.Program)
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the arguments are our own
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %.300s", r.label(), err, out)
	}
	return nil
}

func (r *Row) measure(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("measuring %s: %w", r.label(), err)
	}
	r.Size = info.Size()
	times := make([]time.Duration, starts)
	for i := range times {
		cmd := exec.CommandContext(ctx, path, "version")
		started := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("starting %s: %w: %.300s", r.label(), err, out)
		}
		times[i] = time.Since(started)
	}
	slices.Sort(times)
	r.Start = times[starts/2]
	return os.Remove(path)
}

// Print writes the table for people.
func Print(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprint(w, "build\tMiB\tms to start\tprovider\tadds MiB\t\n") // Flush tells
	for _, r := range rows {
		provider, adds := "-", "-"
		if r.Provider != "" {
			provider, adds = r.Provider, fmt.Sprintf("%.1f", float64(r.Adds)/(1<<20))
		}
		if r.Failed != "" {
			_, _ = fmt.Fprintf(w, "%s\t-\t-\t%s\tnot built\t\n", r.label(), provider)
			continue
		}
		_, _ = fmt.Fprintf(w, "%s\t%.1f\t%.0f\t%s\t%s\t\n", r.label(), float64(r.Size)/(1<<20), float64(r.Start)/float64(time.Millisecond), provider, adds)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	for _, r := range rows {
		if r.Failed != "" {
			_, _ = fmt.Fprintf(out, "not built: %s\n", r.Failed)
		}
	}
	return nil
}
