package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/pubkey"
)

// seedBatch is how many events are applied in one transaction.
const seedBatch = 5000

// seed lets the ledger know of every signed digest, as if it had been signed with the system's key.
func (b *bench) seed(ctx context.Context) error {
	began := time.Now()
	b.say("putting what is signed into the ledger")
	text, err := os.ReadFile(b.system.Keys.Public)
	if err != nil {
		return fmt.Errorf("reading the public key: %w", err)
	}
	key, err := pubkey.Parse(text)
	if err != nil {
		return err
	}
	// The rows are as of the last event, so that each later one counts.
	err = harness.Until(ctx, limitOfRecent, func(ctx context.Context) error {
		m, err := b.system.Metrics(ctx, b.system.Receiver)
		if err == nil && m.Sum("harborseal_ledger_position") < 1 {
			err = errors.New("no event is in the ledger's database")
		}
		return err
	})
	if err != nil {
		return err
	}
	b.queue.close()
	b.queue = nil
	if err := b.system.Receiver.Process.Stop(); err != nil {
		return err
	}
	if err := b.fill(ctx, key.ID); err != nil {
		return err
	}
	b.seeding = time.Since(began)
	if err := b.system.StartProgram(ctx, b.system.Receiver); err != nil {
		return err
	}
	b.queue, err = openQueue(ctx, b.system)
	return err
}

// fill writes the rows while nobody else has the database open.
func (b *bench) fill(ctx context.Context, key string) (err error) {
	store, err := sqldb.Open(ctx, sqldb.Config{Path: b.system.LedgerPath()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	position, err := store.Position(ctx)
	if err != nil {
		return err
	}
	if position.Seq == 0 {
		return errors.New("the ledger's database rests on no stream")
	}
	batch := make([]artifact.Entry, 0, seedBatch)
	done, at := 0, time.Now().Add(-time.Hour)
	apply := func() error {
		err := store.Apply(ctx, position.Basis, batch)
		if done += len(batch); done%(40*seedBatch) == 0 {
			b.say("  %d", done)
		}
		batch = batch[:0]
		return err
	}
	err = b.control.Artifacts(ctx, func(a harbortest.SyntheticArtifact) error {
		if len(a.Signatures) == 0 {
			return nil
		}
		// Events come in the order of their times, as in a stream.
		at = at.Add(time.Millisecond)
		event, err := signedEvent(a, key, at)
		if err != nil {
			return err
		}
		if batch = append(batch, artifact.Entry{Seq: position.Seq, Event: event}); len(batch) < seedBatch {
			return nil
		}
		return apply()
	})
	return errors.Join(err, apply(), checkKnown(ctx, store, b.made))
}

// signedEvent is what a signer records when it has signed.
func signedEvent(a harbortest.SyntheticArtifact, key string, at time.Time) (artifact.Event, error) {
	ref, err := artifact.NewRef(a.Repository, a.Digest)
	if err != nil {
		return artifact.Event{}, err
	}
	signature := a.Signatures[len(a.Signatures)-1] // the one under the tag
	return artifact.Event{
		ID: artifact.EventID(artifact.Signed, ref, key, signature), Kind: artifact.Signed, Ref: ref, Time: at,
		Origin: artifact.OriginSigner, CorrelationID: "seed", How: artifact.Made, Format: artifact.Legacy, KeyID: key, SignatureDigest: signature,
		Signatures: []artifact.Evidence{{Format: artifact.Legacy, KeyID: key, Digest: signature}},
	}, nil
}

// checkKnown looks whether the ledger has what was put into it.
func checkKnown(ctx context.Context, store *sqldb.Store, made harbortest.Synthetic) error {
	coverage, err := store.Coverage(ctx, made.Projects)
	if err != nil {
		return err
	}
	signed := 0
	for _, c := range coverage {
		signed += c.Signed
	}
	if want := made.Digests - len(made.Unsigned); signed != want {
		return fmt.Errorf("the ledger knows %d signed digests, want %d", signed, want)
	}
	return nil
}
