// Package signing is the way of one request: from the decision to a signature that has been read back and verified, its
// record in the ledger, and the acknowledgement, in this order.
//
// It guarantees, for each delivery: nothing is acknowledged before its outcome is in the ledger; "signed" is recorded only
// after the signature was read from the registry and verified; a repetition, by this process or another, ends with the
// same signature bytes; the key signs only what the policy, looked at right before, says is to be signed. It assumes that a
// delivery that ends without an acknowledgement is delivered again. It retries nothing itself: faults become delays of the
// queue.
//
// Where a policy requires a log entry or a timestamp, no manifest is attached without one that was verified. Where the entry
// may come later, the manifest is attached without, and what is owed waits in a stream of its own ([Service.Pay]) until the
// entry is attached too, or until the policy asks for none any more: a debt is never given up. A signature that lacks either is
// completed with the bytes that it has, never made again, except a keyless one whose certificate has ended. At no moment does an
// unlogged bundle alone stand beside a logged legacy signature, which it would hide from verifiers. A log that does not answer
// takes no worker's slot, and a timestamp that is optional at most half a second. An entry of any log that is trusted counts,
// whichever log the policy names for new ones. Keyless signatures are stored for other attempts only when finished: a crash
// between log and store leaves an entry of a signature that nobody has, which counts for nothing.
//
// What a crash between two steps leaves behind is written at each step; docs/ARCHITECTURE.md has the whole table.
package signing

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// pushedSize is of how many repositories it is remembered that they have the constant configuration.
const pushedSize = 10_000

// postponedSize is of how many requests it is remembered that they have met a pause.
const postponedSize = 10_000

// policyTries bounds how often one attempt meets a policy that is changed meanwhile.
const policyTries = 3

// Config is what a Service needs.
type Config struct {
	Registry Registry
	Keys     Keys
	Legacy   LegacyFormat
	Bundles  BundleFormat
	Verifier *Verifier
	Harbor   Harbor
	Queue    Queue
	Policies Policies
	Merger   *Merger
	// Watch looks again at the tags that were written; nil if nobody does.
	Watch *Watch
	// Logs and Timestamps are nil where there are none; the Verifier has to know the same.
	Logs       Logs
	Timestamps Timestamps
	// MaxAge is how long after it was enqueued a request that keeps failing is given up, if it was tried 10 times; 0 stands
	// for 24 hours.
	MaxAge time.Duration
	// AttemptTimeout bounds one attempt; 0 stands for 2 minutes.
	AttemptTimeout time.Duration
	// Now is the clock; nil stands for time.Now.
	Now        func() time.Time
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Service handles deliveries. It is safe for concurrent use.
type Service struct {
	cfg     Config
	metrics *metrics
	// actions is the table of what follows from a fault; nobody changes it.
	actions map[fault.Reason]action
	// pushed are the repositories into which this process has put the constant configuration.
	pushed *recent[string, struct{}]
	// postponed is how many attempts a request had when it met a pause last.
	postponed *recent[artifact.Ref, uint64]
	// ledgerSeq is the highest sequence of the ledger that this process has seen, and asked when it asked for it last, in
	// nanoseconds.
	ledgerSeq atomic.Uint64
	asked     atomic.Int64
}

// New validates the configuration.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Registry == nil, cfg.Keys == nil, cfg.Legacy == nil, cfg.Bundles == nil, cfg.Verifier == nil:
		return nil, errors.New("signing: registry, keys, formats and verifier are required")
	case cfg.Harbor == nil, cfg.Queue == nil, cfg.Policies == nil, cfg.Merger == nil:
		return nil, errors.New("signing: harbor, queue, policies and merger are required")
	}
	if (cfg.Logs == nil) != (cfg.Verifier.cfg.Logs == nil) || (cfg.Timestamps == nil) == cfg.Verifier.cfg.Timestamps {
		return nil, errors.New("signing: logs and timestamps must be there for the verifier too, or for neither")
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 24 * time.Hour
	}
	if cfg.AttemptTimeout == 0 {
		cfg.AttemptTimeout = 2 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{
		cfg: cfg, metrics: newMetrics(cfg.Registerer), actions: actions(),
		pushed: &recent[string, struct{}]{size: pushedSize}, postponed: &recent[artifact.Ref, uint64]{size: postponedSize},
	}, nil
}

// outcome is how an attempt that did not fail ended.
type outcome struct {
	kind       artifact.Kind // Signed, Skipped, Blocked or Vanished
	how        artifact.How
	reason     policy.Reason
	mediaType  string
	signatures []artifact.Evidence
	note       string // for people: what is unusual about the signatures, or why there are none
	standsIn   bool   // a bundle stands in for a locked tag
	lost       bool   // in one of the formats there was nothing that could be completed
	// owed are the formats in which the log entry is still to be made.
	owed []artifact.Format
}

// job is one attempt with what is known at its start. It belongs to the goroutine of its Handle.
type job struct {
	delivery Delivery
	request  artifact.Request
	policy   policy.Policy
	// seen is the ledger's sequence of the newest push that this attempt covers. A request that names none is covered from
	// the moment in which the ledger was asked, looked.
	seen   uint64
	looked bool
	// queued is the same for the events by which indexes ask for the manifest.
	queued uint64
	// subject is what is known of the manifest once it was read, and tagged says that its tags are.
	subject policy.Subject
	tagged  bool
	// unsigned says that this attempt looked for what the policy asks for and did not find all of it, and asOf is a sequence
	// that the ledger had reached before.
	unsigned bool
	asOf     uint64
	// recorded says that the outcome is in the ledger: from then on nothing is to be given up.
	recorded bool
	// unstamped says that the timestamp authority did not answer this attempt at once: it is asked no second time.
	unstamped bool
	// waited says that this attempt waited for a log or a timestamp: what was read before may be old.
	waited bool
	// unproven says that this attempt ended where it asked for a log entry, a timestamp or a certificate: whatever the reason was,
	// it is hardly the digest's.
	unproven bool
	// debt says that this is an attempt at paying.
	debt bool
}

// hit passes a failpoint of a request, or that of a debt in the same place.
func (j *job) hit(name string) {
	if !j.debt {
		failpoint.Hit(name)
		return
	}
	switch name {
	case failpoint.SigningAfterLog:
		failpoint.Hit(failpoint.DebtAfterLog)
	case failpoint.SigningAfterAttach:
		failpoint.Hit(failpoint.DebtAfterAttach)
	case failpoint.SigningAfterVerify:
		failpoint.Hit(failpoint.DebtAfterVerify)
	default:
	}
}

// Handle makes one attempt and ends the delivery, unless ctx ends first: then the queue gives the request to somebody
// else.
func (s *Service) Handle(ctx context.Context, d Delivery) {
	started := s.cfg.Now()
	j := &job{delivery: d, request: d.Request(), seen: d.Request().ReceivedSeq}
	s.saw(j.seen)
	j.queued = s.ledgerSeq.Load()
	failpoint.Hit(failpoint.SigningReceived)
	out, err := s.try(ctx, j)
	if err != nil {
		s.fail(ctx, j, err)
		return
	}
	took := s.cfg.Now().Sub(started)
	s.metrics.handled(out, took)
	s.cfg.Logger.Info().
		Str("project", j.request.Ref.Project()).Str("repository", j.request.Ref.Repository()).Str("digest", j.request.Ref.Digest()).
		Str("outcome", string(out.kind)).Str("how", string(out.how)).Str("reason", string(out.reason)).
		Str("correlation_id", j.request.CorrelationID).Uint64("attempts", d.Attempts()).Dur("took_ms", took).
		Msg("request handled")
}

// record appends to the ledger.
func (s *Service) record(ctx context.Context, e artifact.Event) error {
	seq, err := s.cfg.Queue.Record(ctx, e)
	if err == nil {
		s.saw(seq)
	}
	return err
}

// reached gives a sequence that the ledger has reached, which is at most about a second old: a lower one is true as well, only
// worth less.
func (s *Service) reached(ctx context.Context) uint64 {
	now, asked := s.cfg.Now().UnixNano(), s.asked.Load()
	if now-asked >= int64(time.Second) && s.asked.CompareAndSwap(asked, now) {
		if seq, err := s.cfg.Queue.LedgerSeq(ctx); err == nil {
			s.saw(seq)
		}
	}
	return s.ledgerSeq.Load()
}

// saw notes that the ledger has reached a sequence.
func (s *Service) saw(seq uint64) {
	for {
		highest := s.ledgerSeq.Load()
		if seq <= highest || s.ledgerSeq.CompareAndSwap(highest, seq) {
			return
		}
	}
}

// try makes the attempt and ends the request. A panic is a failure like others: a manifest that this program cannot bear
// becomes a dead letter in the end, instead of coming back for ever.
func (s *Service) try(ctx context.Context, j *job) (out outcome, err error) {
	defer s.recovered(j, &err)
	out, err = s.attemptFresh(ctx, j)
	if err != nil && s.projectIsGone(ctx, j, err) {
		out, err = outcome{kind: artifact.Vanished}, nil
	}
	if err != nil {
		return out, err
	}
	return out, s.finish(ctx, j, out)
}

// recovered is deferred: it turns a panic into an error.
func (s *Service) recovered(j *job, err *error) {
	if cause := recover(); cause != nil {
		s.cfg.Logger.Error().Interface("panic", cause).Bytes("stack", debug.Stack()).
			Str("repository", j.request.Ref.Repository()).Str("digest", j.request.Ref.Digest()).Msg("attempt panicked: this is a bug")
		*err = fault.Newf(fault.Transient, fault.Unknown, "the program panicked: %v", cause)
	}
}

// attemptFresh repeats an attempt that ended by a policy which was changed meanwhile.
func (s *Service) attemptFresh(ctx context.Context, j *job) (outcome, error) {
	for range policyTries {
		out, err := s.attempt(ctx, j)
		if err != nil {
			return out, err
		}
		if old, err := s.overtaken(ctx, j, out); err != nil || !old {
			return out, err
		}
	}
	return outcome{}, fault.Newf(fault.Transient, fault.PolicyUnreadable, "the policy was changed %d times during the attempt", policyTries)
}

// attempt does the work of one delivery up to the point where its outcome is certain. Until then nothing is lost by a
// crash: the request is still in the queue.
func (s *Service) attempt(ctx context.Context, j *job) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AttemptTimeout)
	defer cancel()
	ref := j.request.Ref
	var err error
	if j.policy, err = s.policyOf(ctx, ref); err != nil {
		return outcome{}, err
	}
	if err := s.paused(j.policy); err != nil {
		return outcome{}, err
	}
	if err := s.lookBack(ctx, j); err != nil {
		return outcome{}, err
	}
	d, err := s.admit(ctx, ref, j.policy)
	if err != nil {
		return outcome{}, err
	}
	if !d.Sign {
		return notSigned(d, ""), nil
	}
	failpoint.Hit(failpoint.SigningAfterDecide)

	m, description, err := s.manifest(ctx, j)
	if fault.Is(err, fault.Gone) {
		return outcome{kind: artifact.Vanished}, nil
	}
	if err != nil {
		return outcome{}, err
	}
	return s.decideAndSign(ctx, j, m, description)
}

// manifest reads what is to be signed. The fault is Gone if it is no longer there.
func (s *Service) manifest(ctx context.Context, j *job) (artifact.Manifest, artifact.Description, error) {
	ref := j.request.Ref
	m, err := s.cfg.Registry.Manifest(ctx, ref.Repository(), ref.Digest())
	if err != nil {
		return m, artifact.Description{}, fmt.Errorf("reading the manifest: %w", err)
	}
	j.hit(failpoint.SigningAfterManifest)
	description, err := artifact.Describe(m.Raw, m.MediaType)
	if errors.Is(err, artifact.ErrUnsupported) {
		return m, description, fault.New(fault.Permanent, fault.UnsupportedManifest, err)
	}
	if err != nil {
		return m, description, fault.New(fault.Permanent, fault.Malformed, err)
	}
	m.MediaType = description.MediaType // what it says of itself; the registry's word passes through proxies
	return m, description, nil
}

// decideAndSign does with a manifest what the policy says.
func (s *Service) decideAndSign(ctx context.Context, j *job, m artifact.Manifest, description artifact.Description) (outcome, error) {
	j.subject = subjectOf(j.request, description)
	d, err := s.decide(ctx, j, j.policy)
	if fault.Is(err, fault.Gone) {
		return outcome{kind: artifact.Vanished}, nil
	}
	if err != nil {
		return outcome{}, err
	}
	if d.Sign || d.Reason == policy.Observed { // the report then says of each child what would happen to it
		if err := s.enqueueChildren(ctx, j, description.Children); err != nil {
			return outcome{}, err
		}
	}
	if d.Reason == policy.Observed {
		return s.observe(ctx, j, d, description.MediaType)
	}
	if !d.Sign {
		return notSigned(d, description.MediaType), nil
	}
	failpoint.Hit(failpoint.SigningAfterChildren)
	out, err := s.sign(ctx, j, m, outcome{mediaType: description.MediaType})
	if changed := (*changedError)(nil); errors.As(err, &changed) {
		return notSigned(changed.decision, description.MediaType), nil
	}
	return out, err
}

// observe says whether a manifest is signed that is not to be signed now. It changes nothing in the registry.
func (s *Service) observe(ctx context.Context, j *job, d policy.Decision, mediaType string) (outcome, error) {
	out := notSigned(d, mediaType)
	j.asOf = s.reached(ctx)
	need, err := s.cfg.Verifier.Require(ctx, j.policy)
	if isUnsupported(err) || err != nil && fault.Of(err).Reason == fault.Unverifiable {
		return out, nil // said as soon as it matters
	}
	if err != nil {
		return outcome{}, err
	}
	verdict, err := s.cfg.Verifier.Verify(ctx, j.request.Ref, need)
	if err != nil {
		return outcome{}, fmt.Errorf("looking for signatures: %w", err)
	}
	if !verdict.Signed() {
		return out, nil
	}
	out = outcome{kind: artifact.Signed, how: artifact.Found, mediaType: mediaType, signatures: verdict.Signatures}
	if verdict.LockedBy != "" {
		out.note = standIn(s.cfg.Legacy, j.request.Ref, verdict.LockedBy)
	}
	return out, nil
}

// lookBack notes what the attempt covers, where the request does not tell.
func (s *Service) lookBack(ctx context.Context, j *job) error {
	if j.seen != 0 {
		return nil
	}
	seen, _, err := s.cfg.Queue.LastReceived(ctx, j.request.Ref)
	if err != nil {
		return fmt.Errorf("looking for the newest push: %w", err)
	}
	queued, err := s.cfg.Queue.LastQueued(ctx, j.request.Ref)
	if err != nil {
		return fmt.Errorf("looking for the newest index: %w", err)
	}
	s.saw(seen)
	j.seen, j.queued, j.looked = seen, queued, true
	return nil
}
