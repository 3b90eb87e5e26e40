package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// epoch is when the first manifest was pushed, unless a test says otherwise.
func epoch() time.Time { return time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC) }

func refOf(tb testing.TB, name string) artifact.Ref {
	tb.Helper()
	ref, err := artifact.NewRef("demo/app", artifact.DigestOf([]byte(name)))
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

// add puts a manifest into the project demo. change may be nil.
func (w *world) add(tb testing.TB, name string, change func(*artifact.Listed)) artifact.Ref {
	tb.Helper()
	l := artifact.Listed{
		Ref: refOf(tb, name), Tags: []string{"v1"}, PushedAt: epoch().Add(time.Duration(len(w.population)) * time.Millisecond),
	}
	if change != nil {
		change(&l)
	}
	w.population = append(w.population, l)
	return l.Ref
}

// by makes a signature manifest of a key, for a name.
func (w *world) by(key, name string) string {
	digest := artifact.DigestOf([]byte("signature of " + name + " by " + key))
	w.keys[digest] = key
	return digest
}

// signedBy adds a signed manifest.
func (w *world) signedBy(tb testing.TB, key, name string) artifact.Ref {
	tb.Helper()
	return w.add(tb, name, func(l *artifact.Listed) { l.Signatures = []string{w.by(key, name)} })
}

// toldID is the id of the next event that a test tells, with no more in it than the test needs.
func toldID(seq uint64) string { return fmt.Sprint("told-", seq) }

// tell writes an event into the ledger, as somebody else's.
func (w *world) tell(tb testing.TB, e artifact.Event) {
	tb.Helper()
	e.ID, e.Time, e.CorrelationID, e.Origin = toldID(w.seq), time.Now(), "c", artifact.OriginSigner
	if _, err := w.Record(tb.Context(), e); err != nil {
		tb.Fatal(err)
	}
}

// tellSigned writes that a manifest was signed by a key.
func (w *world) tellSigned(tb testing.TB, ref artifact.Ref, key, name string) {
	tb.Helper()
	w.tell(tb, artifact.Event{
		Kind: artifact.Signed, Ref: ref, How: artifact.Made,
		Signatures: []artifact.Evidence{{Format: artifact.Legacy, KeyID: key, Digest: w.by(key, name)}},
	})
}

func (w *world) change(ref artifact.Ref, change func(*artifact.Listed)) {
	for i := range w.population {
		if w.population[i].Ref == ref {
			change(&w.population[i])
		}
	}
}

// policy changes the policy of demo.
func (w *world) policy(change func(*policy.Policy)) {
	p := w.policies["demo"]
	change(&p)
	w.policies["demo"] = p
}

func (w *world) reconciler(tb testing.TB, change ...func(*reconcile.Config)) *reconcile.Reconciler {
	tb.Helper()
	cfg := reconcile.Config{
		Harbor: w, Queue: w, Policies: w, Memory: w, Verifier: w, State: w, OwnAccounts: []string{"robot$signer"}, Logger: zerolog.Nop(),
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := reconcile.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// sweep does an ad hoc sweep of demo and gives its summary and the events that it recorded before.
func (w *world) sweep(tb testing.TB, r *reconcile.Reconciler) (artifact.Sweep, []artifact.Event) {
	tb.Helper()
	return w.tick(tb, r, reconcile.AdHoc(time.Now()))
}

func (w *world) tick(tb testing.TB, r *reconcile.Reconciler, slot int64) (artifact.Sweep, []artifact.Event) {
	tb.Helper()
	before := len(w.events)
	if err := r.Tick(tb.Context(), reconcile.Full, "demo", slot); err != nil {
		tb.Fatalf("Tick: %v", err)
	}
	if len(w.events) == before || w.events[len(w.events)-1].Kind != artifact.Swept {
		tb.Fatalf("the last of %d new events is no summary", len(w.events)-before)
	}
	return *w.events[len(w.events)-1].Sweep, w.events[before : len(w.events)-1]
}

// kinds gives kind and reason of each event.
func kinds(events []artifact.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, string(e.Kind)+" "+e.Reason)
	}
	return all
}
