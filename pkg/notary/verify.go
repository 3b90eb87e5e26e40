package notary

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// VerifyConfig is what is verified, and against what. Source and Keys are required.
type VerifyConfig struct {
	Source Source
	Keys   *Keys
	// Store holds the leaves that tell which event it was; nil for findings between checkpoints.
	Store Store
	// Known are checkpoints from elsewhere, such as those that [ReadFile] gives.
	Known []Known
	// Progress is told how many events of how many sequences were read; nil is allowed.
	Progress func(seq, last uint64)
	// Pause is waited after each batch of at most 1000 events, to leave the stream to others.
	Pause time.Duration
}

// Report is what was verified and what does not fit.
type Report struct {
	// Events and Checkpoints were read, up to the sequence Last from First on, in Epochs.
	Events      uint64  `json:"events"`
	Checkpoints int     `json:"checkpoints"`
	First       uint64  `json:"first"`
	Last        uint64  `json:"last"`
	Epochs      []Epoch `json:"epochs"`
	// Compared counts the events whose leaves the database knows, Outside the checkpoints from elsewhere that were compared.
	Compared uint64 `json:"compared"`
	Outside  int    `json:"outside"`
	// Uncovered counts the events behind the last checkpoint: nothing speaks for them yet.
	Uncovered uint64 `json:"uncovered"`
	// Notes say what could not be verified, and why that is no finding.
	Notes    []string  `json:"notes"`
	Findings []Finding `json:"findings"`
}

// OK says that nothing was found.
func (r Report) OK() bool { return len(r.Findings) == 0 }

// errRead ends the reading.
var errRead = errors.New("everything was read")

// verification is one run of Verify.
type verification struct {
	cfg    VerifyConfig
	report Report
	chain  chain
	diff   *diff // nil without a store
}

// Verify reads the whole ledger of one harbor, up to the newest event at the beginning, and compares it with all checkpoints in it,
// with those that are known from elsewhere, and with the leaves in the store. An error means that it could not be read to the end; it
// is no finding.
func Verify(ctx context.Context, cfg VerifyConfig) (Report, error) {
	if cfg.Source == nil || cfg.Keys == nil {
		return Report{}, errors.New("verifying the ledger: a source and keys are required")
	}
	first, _, _, err := cfg.Source.LedgerState(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("verifying the ledger: %w", err)
	}
	last, _, err := cfg.Source.NewestOf(ctx, "")
	if err != nil {
		return Report{}, fmt.Errorf("verifying the ledger: %w", err)
	}
	first = max(first, 1)
	v := &verification{cfg: cfg, report: Report{First: first, Last: last.Seq, Epochs: []Epoch{}, Notes: []string{}, Findings: []Finding{}}}
	if err := v.prepare(ctx, first); err != nil {
		return Report{}, fmt.Errorf("verifying the ledger: %w", err)
	}
	if last.Seq > 0 {
		if err := cfg.Source.Events(ctx, first-1, v.read); !errors.Is(err, errRead) {
			return Report{}, fmt.Errorf("verifying the ledger: %w", err)
		}
	}
	if err := v.finish(ctx); err != nil {
		return Report{}, fmt.Errorf("verifying the ledger: %w", err)
	}
	return v.report, nil
}

func (v *verification) prepare(ctx context.Context, first uint64) error {
	known := slices.Clone(v.cfg.Known)
	if v.cfg.Store != nil {
		logs, err := v.cfg.Store.Logs(ctx)
		if err != nil {
			return err
		}
		known = append(known, knownLogs(v.cfg.Keys, logs)...)
		v.diff = newDiff(v.cfg.Keys, v.cfg.Store, logs, first)
	}
	slices.SortStableFunc(known, compareKnown)
	v.report.Outside = len(known)
	v.chain = chain{
		keys: v.cfg.Keys, covers: first, position: first - 1, known: known,
		found:    func(f Finding) { v.report.Findings = append(v.report.Findings, f) },
		verified: v.verified,
		opened: func(seq uint64, reason string, r artifact.EpochRecord) {
			v.report.Epochs = append(v.report.Epochs, Epoch{r.Epoch, seq, r.First, reason, r.Stream, r.Note})
			if v.diff != nil {
				v.diff.opened(r.Epoch, r.First)
			}
			if v.chain.base == nil {
				v.note("epoch %d begins at %d, before the first event that is left: its events up to the first checkpoint cannot be verified", r.Epoch, r.First)
			}
		},
	}
	return nil
}

func (v *verification) note(format string, args ...any) {
	v.report.Notes = append(v.report.Notes, fmt.Sprintf(format, args...))
}

func (v *verification) verified(r artifact.CheckpointRecord, from *tree, _ []Leaf) {
	v.report.Checkpoints++
	if from == nil {
		v.note("events up to %d cannot be verified: those before the first that is left have expired, and the checkpoint of %d events is the base",
			r.LastSeq, r.Size)
	}
}

// read takes a batch of events.
func (v *verification) read(ctx context.Context, entries []artifact.Entry) error {
	for _, e := range entries {
		if e.Seq > v.report.Last {
			return errRead
		}
		v.report.Events++
		v.chain.add(e)
		if v.diff != nil {
			if err := v.diff.add(ctx, e); err != nil {
				return err
			}
		}
		if e.Seq == v.report.Last {
			return errRead
		}
	}
	if v.cfg.Progress != nil {
		v.cfg.Progress(entries[len(entries)-1].Seq, v.report.Last)
	}
	if v.cfg.Pause <= 0 {
		return nil
	}
	timer := time.NewTimer(v.cfg.Pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// finish compares what is left.
func (v *verification) finish(ctx context.Context) error {
	if _, err := v.chain.head(); err != nil {
		return err
	}
	v.report.Uncovered = uint64(len(v.chain.ahead))
	v.judgeKnown()
	if v.chain.unused > 0 {
		v.note("%d checkpoints from elsewhere are of events that have expired, and were not compared", v.chain.unused)
	}
	v.report.Outside -= v.chain.unused + len(v.chain.known) + len(v.chain.left)
	if v.diff != nil {
		exact, err := v.diff.finish(ctx)
		if err != nil {
			return err
		}
		v.report.Compared = v.diff.compared
		v.report.Notes = append(v.report.Notes, v.diff.notes...)
		exact = slices.DeleteFunc(exact, func(f Finding) bool { return f.Kind == Removed && f.From > v.report.Last }) // rolled back
		v.report.Findings = sharpen(v.report.Findings, exact)
	}
	slices.SortStableFunc(v.report.Findings, compareFindings)
	v.report.Findings = slices.Compact(v.report.Findings)
	return nil
}

// judgeKnown judges the checkpoints from elsewhere that were not met: only a restore explains that the events are gone.
func (v *verification) judgeKnown() {
	for _, k := range newestOfEpochs(v.chain.known) {
		v.report.Findings = append(v.report.Findings, rolledBack(k, v.chain.position))
	}
	for _, k := range newestOfEpochs(v.chain.left) {
		i := slices.IndexFunc(v.report.Epochs, func(e Epoch) bool { return e.Epoch > k.Record.Epoch })
		if i >= 0 && v.report.Epochs[i].Reason == AfterRestore {
			v.note("%s has a checkpoint of epoch %d up to event %d, which the backup that was restored as epoch %d does not have",
				k.Source, k.Record.Epoch, k.Record.LastSeq, v.report.Epochs[i].Epoch)
			continue
		}
		before := v.report.First
		if i >= 0 {
			before = v.report.Epochs[i].First
		}
		v.report.Findings = append(v.report.Findings, rolledBack(k, before-1))
	}
}

// newestOfEpochs leaves the last of each epoch, of checkpoints in order.
func newestOfEpochs(known []Known) []Known {
	var last []Known
	for _, k := range known {
		if n := len(last); n > 0 && last[n-1].Record.Epoch == k.Record.Epoch {
			last[n-1] = k
		} else {
			last = append(last, k)
		}
	}
	return last
}

// sharpen puts exact findings into the place of those that only say between which checkpoints. What comes behind the first exact
// finding may have moved, and no checkpoint fits it any more: the exact findings account for all of that.
func sharpen(rough, exact []Finding) []Finding {
	if len(exact) == 0 {
		return rough
	}
	first := slices.MinFunc(exact, compareFindings).From
	rough = slices.DeleteFunc(rough, func(r Finding) bool {
		return r.To >= first && (r.Kind == Mismatch || r.Kind == Removed || r.Kind == Inserted)
	})
	return append(rough, exact...)
}

// keepVerifying verifies the whole ledger from time to time, and for the first time soon after the start.
func (n *Notary) keepVerifying(ctx context.Context) {
	ticks, stop := n.cfg.Ticks(n.cfg.VerifyInterval / verifyParts)
	defer stop()
	for part := 0; ; part++ {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if part%verifyParts > 0 {
			continue
		}
		if err := n.Check(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn().Err(err).Msg("ledger could not be verified, trying again later")
		}
	}
}

const (
	// verifyParts is into how many parts the time between two verifications is divided: the first comes after one of them.
	verifyParts = 24
	// verifyPause bounds a verification in the background to 50,000 events in a second.
	verifyPause = 20 * time.Millisecond
)

// Check verifies the whole ledger once, as [Verify] does, and remembers what it finds: the next Tick records it.
func (n *Notary) Check(ctx context.Context) error {
	cfg := VerifyConfig{Source: n.cfg.Ledger, Keys: n.keys, Store: n.cfg.Store, Pause: verifyPause}
	if n.cfg.CheckpointsFile != "" {
		known, _, err := ReadFile(n.cfg.CheckpointsFile, n.keys)
		if err != nil {
			n.logger.Warn().Err(err).Msg("second place of the checkpoints could not be read, verifying without it")
		}
		cfg.Known = known
	}
	report, err := Verify(ctx, cfg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range report.Findings {
		n.found(f)
	}
	n.summary.VerifiedAt = n.cfg.Now().UTC()
	n.metrics.verified.Set(float64(n.summary.VerifiedAt.Unix()))
	n.logger.Info().Uint64("events", report.Events).Int("checkpoints", report.Checkpoints).Int("findings", len(report.Findings)).
		Msg("ledger was verified")
	return nil
}
