// Package projects measures what many projects cost while nothing happens: memory and processor time of the NATS servers and of
// the real programs, each a process of its own, with one server and with three that keep every stream three times.
//
// Each project has a policy of its own in the bucket of policies, and has had one image signed; one in ten was swept. Policies
// are put into their bucket directly, without the API and its checks, and the receiver has no account in Harbor: what the
// comparison of Harbor's settings costs is not measured.
package projects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Options are what is measured. Dir and Progress are required.
type Options struct {
	// Dir is a folder for the programs and all that they write.
	Dir      string
	Progress io.Writer
	// Quick measures little, and judges no times.
	Quick bool
}

// plan says how many projects there are, one number after the other, and how long it is looked at each of them.
type plan struct {
	projects []int
	nodes    []int
	idle     time.Duration
}

func (o Options) plan() plan {
	if o.Quick {
		return plan{projects: []int{10, 50}, nodes: []int{1, 3}, idle: 2 * time.Second}
	}
	// The programs measure the queue and try their dependencies every 15 s.
	return plan{projects: []int{1000, 5000}, nodes: []int{1, 3}, idle: 15 * time.Second}
}

// Result is all that was measured.
type Result struct {
	Rows   []*Row        `json:"rows"`
	Checks target.Checks `json:"checks"`
}

// Row is one number of projects on one number of servers. The row of no projects has no CPU.
type Row struct {
	Projects int           `json:"projects"`
	Nodes    int           `json:"nodes"`
	Idle     time.Duration `json:"idle_ns"`
	// Prepared is how long it took to enable, sweep and sign what is new.
	Prepared time.Duration `json:"prepared_ns"`
	// Servers are the NATS servers, largest first.
	Servers  []Use `json:"servers"`
	Receiver Use   `json:"receiver"`
	Signer   Use   `json:"signer"`
}

// Use is what a process uses while nothing happens.
type Use struct {
	// RSS is in bytes.
	RSS int64 `json:"rss_bytes"`
	// CPU is in parts of one processor.
	CPU float64 `json:"cpu"`
}

// Run measures and judges. Nothing is left running.
func Run(ctx context.Context, o Options) (*Result, error) {
	programs, err := harness.Build(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	server, err := harness.BuildNATS(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	r, p := &Result{}, o.plan()
	for _, nodes := range p.nodes {
		b := &bench{plan: p}
		if err := b.run(ctx, o, programs, server, nodes, r); err != nil {
			return nil, fmt.Errorf("%d servers: %w", nodes, err)
		}
	}
	r.Judge(o.Quick)
	return r, nil
}

// bench is a running system with servers of its own.
type bench struct {
	plan
	*stage.Stage
	nats *harness.NATS
	ids  map[string]int64 // of the projects, as Harbor numbers them
	// authority is the file with the authority of the servers' certificates, as signers know it; empty without TLS.
	authority string
}

func (b *bench) run(ctx context.Context, o Options, programs harness.Programs, server string, nodes int, r *Result) (err error) {
	dir := filepath.Join(o.Dir, fmt.Sprintf("stage-projects-%d", nodes))
	if b.nats, err = harness.StartNATS(ctx, harness.NATSOptions{Program: server, Dir: filepath.Join(dir, "nats"), Nodes: nodes}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.nats.Close()) }() //nolint:contextcheck // it ends after ctx has
	most := b.projects[len(b.projects)-1]
	b.Stage, err = stage.New(ctx, stage.Options{
		Dir: dir, Programs: programs, Progress: o.Progress,
		Content: harbortest.SyntheticConfig{Projects: most, Repositories: most, Digests: 5 * most, Prefix: "many", Unsigned: 1, Seed: 1},
		Edit: func(options *harness.Options) {
			options.NATS, options.Enabled = b.nats, nil
			edit := options.EditSigner
			options.EditSigner = func(c harness.Config) {
				edit(c)
				b.authority = authorityOf(c)
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err := b.measure(ctx, nodes, r); err != nil {
		return fmt.Errorf("%w\n%s", err, b.System.Tails())
	}
	return nil
}

func (b *bench) measure(ctx context.Context, nodes int, r *Result) error {
	if err := b.System.Start(ctx); err != nil {
		return err
	}
	if err := b.number(ctx); err != nil {
		return err
	}
	none, err := b.look()
	if err != nil {
		return err
	}
	r.Rows = append(r.Rows, none.row(nodes))
	enabled := 0
	for _, n := range b.projects {
		b.Say("projects: %d on %s", n, servers(nodes))
		begun := time.Now()
		if err := b.prepare(ctx, enabled, n); err != nil {
			return err
		}
		enabled = n
		prepared := time.Since(begun)
		row, err := b.idleRow(ctx, nodes)
		if err != nil {
			return err
		}
		row.Projects, row.Prepared = n, prepared
		r.Rows = append(r.Rows, row)
	}
	return nil
}

// authorityOf reads a signer's configuration.
func authorityOf(c harness.Config) string {
	at, _ := c["queue"].(harness.Config)
	tls, _ := at["tls"].(harness.Config)
	file, _ := tls["ca_file"].(string)
	return file
}
