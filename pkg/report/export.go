package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

const (
	defaultMaxRunning = 2
	defaultLimit      = 30 * time.Minute
)

// ErrBusy says that as many exports are running as may.
var ErrBusy = errors.New("as many exports are running as may: try again later")

// ErrNoProofs says that proofs were asked for where there are none.
var ErrNoProofs = errors.New("this service has no ledger key, and so no proofs")

// view is the ledger's. It is safe for concurrent use, makes one attempt and ends when ctx does. The errors are a
// [*ledger.InvalidQueryError] or faults.
type view interface {
	// Each gives the rows of a query, all from one snapshot, in constant memory; an error of fn ends it and is given back. The rows
	// are the callee's: fn keeps none.
	Each(ctx context.Context, q ledger.Query, fn func(ledger.Row) error) (ledger.Position, error)
	Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error)
	Names(ctx context.Context) ([]string, error)
}

// Config is what exports need. View is required.
type Config struct {
	View view
	// Key signs; nil means that exports are not signed.
	Key Key
	// Checkpoint gives the ledger's newest signed checkpoint, empty if there is none yet; nil means that there is none.
	Checkpoint func(ctx context.Context) (string, error)
	// Prover may be nil: then there are no proofs.
	Prover prover
	// Keys gives the inventory of keys; nil means that none is known.
	Keys func(ctx context.Context) ([]KeyEntry, error)
	// Harbor, Registry and Program are as in the manifest.
	Harbor, Registry, Program string
	// MaxRunning is how many exports run at once; 0 means 2. Limit is how long one may take; 0 means 30 minutes.
	MaxRunning int
	Limit      time.Duration
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// Now may be nil: then it is the clock.
	Now func() time.Time
}

// Exporter makes exports. It is safe for concurrent use.
type Exporter struct {
	cfg     Config
	running chan struct{} // a place for each export
	metrics *exportMetrics
}

// New checks the configuration.
func New(cfg Config) (*Exporter, error) {
	if cfg.View == nil || cfg.MaxRunning < 0 || cfg.Limit < 0 {
		return nil, errors.New("making exports: View, and numbers that are not negative, are required")
	}
	if cfg.MaxRunning == 0 {
		cfg.MaxRunning = defaultMaxRunning
	}
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m, err := newExportMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Exporter{cfg: cfg, running: make(chan struct{}, cfg.MaxRunning), metrics: m}, nil
}

// Limit is how long an export may take.
func (e *Exporter) Limit() time.Duration { return e.cfg.Limit }

// Request asks for an export. What the caller may see is in the query already.
type Request struct {
	// Query's limit and cursor are passed over: an export has all rows.
	Query  ledger.Query
	Format Format
	// Proofs asks for a proof in each row that has one: of [JSONL] alone.
	Proofs bool
	// Parameters are those of the question, by name; Actor is who asks, Address where from.
	Parameters     map[string]string
	Actor, Address string
}

// project is the one that the request is about; empty for several.
func (r *Request) project() string { return r.Query.Project }

// Check says what is wrong with a request: a [*ledger.InvalidQueryError] or [ErrNoProofs].
func (e *Exporter) Check(r *Request) error {
	switch {
	case !slices.Contains(Formats(), r.Format):
		return &ledger.InvalidQueryError{Field: "format", Want: "want csv or jsonl"}
	case r.Proofs && r.Format != JSONL:
		return &ledger.InvalidQueryError{Field: "proofs", Want: "there are proofs in the format jsonl alone"}
	case r.Proofs && e.cfg.Prover == nil:
		return ErrNoProofs
	}
	r.Query.Limit, r.Query.Cursor = 0, ""
	_, err := r.Query.Filter()
	return err
}

// Export writes an export. It takes a place, or gives [ErrBusy] at once. The error is that, one of [Exporter.Check], the one of w, or
// one of the ledger's. Nothing is written before the first 64 KiB are there; after an error, what was written is no export.
//
// It returns when it is done with w. When ctx ends, so does the query; a Write that waits for a slow reader is for w to end.
func (e *Exporter) Export(ctx context.Context, w io.Writer, r Request) (Result, error) {
	if err := e.Check(&r); err != nil {
		return Result{}, err
	}
	select {
	case e.running <- struct{}{}:
	default:
		e.metrics.ended(outcomeBusy)
		return Result{}, ErrBusy
	}
	e.metrics.running.Inc()
	defer func() {
		e.metrics.running.Dec()
		<-e.running
	}()
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Limit)
	defer cancel()
	run := &run{exporter: e, request: &r, tally: newTally()}
	err := run.do(ctx, w)
	run.result.Rows = run.tally.totals.Rows
	e.metrics.rows.Add(float64(run.result.Rows))
	switch {
	case err == nil:
		e.metrics.ended(outcomeComplete)
	case run.cut || ctx.Err() != nil:
		e.metrics.ended(outcomeCut)
	default:
		e.metrics.ended(outcomeFailed)
	}
	return run.result, err
}

// Result is what was sent. Of an export that ended before its time, SHA256 is empty and Rows are those that were read.
type Result struct {
	Rows     uint64
	SHA256   string
	Complete bool
}

// run is one export. It belongs to one goroutine.
type run struct {
	exporter *Exporter
	request  *Request
	tally    *tally
	manifest Manifest
	result   Result
	cut      bool // the reader does not read
	proven   uint64
	keys     []string // reused
}

func (x *run) do(ctx context.Context, w io.Writer) error {
	if err := x.begin(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a, err := newArchive(w, x.request.Format.file(), x.manifest.GeneratedAt, stop)
	if err != nil {
		return err
	}
	position, err := x.rows(ctx, a)
	sending := a.finish()
	if sending != nil {
		x.cut = true
		return sending // why the query ended
	}
	if err != nil {
		return err
	}
	return x.end(a, position)
}

// begin fills in what is known before the rows are read.
func (x *run) begin(ctx context.Context) error {
	cfg, r := &x.exporter.cfg, x.request
	x.manifest = Manifest{
		FormatVersion: formatVersion, Harbor: cfg.Harbor, Registry: cfg.Registry, Program: cfg.Program,
		GeneratedAt: cfg.Now().UTC().Truncate(time.Microsecond),
		Scope: Scope{
			AskedBy: r.Actor, Address: r.Address, Parameters: r.Parameters, Projects: r.Query.Projects,
			Since: bound(r.Query.Since), Until: bound(r.Query.Until),
		},
		Inventory: []KeyEntry{},
	}
	if x.manifest.Scope.Parameters == nil {
		x.manifest.Scope.Parameters = map[string]string{}
	}
	if cfg.Key != nil {
		x.manifest.SignedBy = cfg.Key.VerifierKey()
	}
	var err error
	if cfg.Checkpoint != nil {
		if x.manifest.Checkpoint, err = cfg.Checkpoint(ctx); err != nil {
			return fmt.Errorf("reading the ledger's checkpoint: %w", err)
		}
	}
	if cfg.Keys != nil {
		inventory, err := cfg.Keys(ctx)
		if err != nil {
			return fmt.Errorf("reading the inventory of keys: %w", err)
		}
		x.manifest.Inventory = append(x.manifest.Inventory, inventory...)
	}
	x.manifest.Aggregates, err = x.aggregates(ctx)
	return err
}

// aggregates are the counts of the scope, if that is whole projects.
func (x *run) aggregates(ctx context.Context) (*Aggregates, error) {
	for name := range x.request.Parameters {
		if name != "project" && name != "format" && name != "proofs" {
			return nil, nil //nolint:nilnil // there are none, and that is no error
		}
	}
	names := x.request.Query.Projects
	switch {
	case x.request.project() != "":
		if names != nil && !slices.Contains(names, x.request.project()) {
			return &Aggregates{}, nil
		}
		names = []string{x.request.project()}
	case names == nil:
		var err error
		if names, err = x.exporter.cfg.View.Names(ctx); err != nil {
			return nil, fmt.Errorf("reading the names of projects: %w", err)
		}
	}
	all, err := x.exporter.cfg.View.Coverage(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("reading the coverage: %w", err)
	}
	sum := &Aggregates{}
	for coverage := range maps.Values(all) {
		sum.add(coverage)
	}
	return sum, nil
}

// rows writes all rows.
func (x *run) rows(ctx context.Context, a *archive) (ledger.Position, error) {
	b, err := a.buffer()
	if err != nil {
		return ledger.Position{}, err
	}
	if x.request.Format == CSV {
		b = appendHeader(b)
	}
	position, err := x.exporter.cfg.View.Each(ctx, x.request.Query, func(row ledger.Row) error {
		if b, err = x.row(ctx, b, &row); err != nil || len(b) < chunk {
			return err
		}
		if err = a.write(b); err == nil {
			b, err = a.buffer()
		}
		return err
	})
	if err != nil {
		return ledger.Position{}, fmt.Errorf("reading the rows: %w", err)
	}
	return position, a.write(b)
}

// row appends a row and counts it.
func (x *run) row(ctx context.Context, b []byte, row *ledger.Row) ([]byte, error) {
	f := factOf(row, x.keys[:0])
	x.keys = f.keys
	x.tally.add(&f)
	if x.request.Format == CSV {
		return appendCSV(b, x.manifest.Registry, row), nil
	}
	line := Line{Registry: x.manifest.Registry, Row: *row}
	if x.request.Proofs {
		ref, err := artifact.ParseRef(row.Repository + "@" + row.Digest)
		if err != nil {
			return nil, fault.New(fault.Permanent, fault.Malformed, err)
		}
		if line.Proof, err = x.exporter.cfg.Prover.ProveRow(ctx, ref, row.LedgerSeq); err != nil {
			return nil, fmt.Errorf("proving a row: %w", err)
		}
		if line.Proof != nil {
			x.proven++
			if line.Proof.Checkpoint == x.manifest.Checkpoint {
				line.Proof.Checkpoint = ""
			}
		}
	}
	return appendJSONL(b, &line)
}

// end writes what stands beside the rows.
func (x *run) end(a *archive, position ledger.Position) error {
	m, cfg := &x.manifest, &x.exporter.cfg
	m.FinishedAt = cfg.Now().UTC().Truncate(time.Microsecond)
	m.Totals, m.Exceptions = x.tally.totals, x.tally.exceptions
	m.AsOf = AsOf{Sequence: position.Seq, Stream: position.Stream.UTC()}
	m.File = File{
		Name: x.request.Format.file(), Format: x.request.Format, Rows: m.Totals.Rows, Proofs: x.request.Proofs, Proven: x.proven,
	}
	m.File.Bytes, m.File.SHA256 = a.file()
	manifest, err := m.encode()
	if err != nil {
		return err
	}
	if err := a.add(manifestName, manifest); err != nil {
		return err
	}
	if cfg.Key != nil {
		signature, err := sign(manifest, cfg.Key)
		if err != nil {
			return err
		}
		if err := a.add(signatureName, signature); err != nil {
			return err
		}
	}
	if m.Checkpoint != "" {
		if err := a.add(checkpointName, []byte(m.Checkpoint)); err != nil {
			return err
		}
	}
	if err := a.close(); err != nil {
		x.cut = true
		return err
	}
	x.result.SHA256, x.result.Complete = m.File.SHA256, true
	return nil
}

// bound is a time as the manifest shows it.
func bound(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
