package ledgertest

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// populationProjects is how many projects a population has.
const populationProjects = 200

// Frequencies in a population, for those who ask about it.
const (
	// CommonProject has more than a quarter of all digests.
	CommonProject = "project-000"
	// RareProject has less than one in 500.
	RareProject = "project-199"
	// CommonTag is on a twentieth of the digests.
	CommonTag = "latest"
	// RareTag is on one in 50,000.
	RareTag = "hotfix"
	// CommonPusher pushed about a fifth.
	CommonPusher = "robot$project-000+ci"
	// RarePusher pushed one in 40,000.
	RarePusher = "ann"
	// RareState is that of one in 5,000.
	RareState = ledger.Dead
)

// CommonKey signed most of a population, and RareKey one in 20,000.
func CommonKey() string { return artifact.DigestOf([]byte("key of this year"))[len("sha256:"):] }

// RareKey signed little.
func RareKey() string { return artifact.DigestOf([]byte("key of a day"))[len("sha256:"):] }

// Population gives the events of so many digests as a registry has them after two years: 200 projects of which few have most, ten or more
// repositories in each, tags, pushers and keys that are on many digests or on few. The same number gives the same events. Events of one
// digest follow one another.
func Population(digests int) iter.Seq[artifact.Entry] {
	return func(yield func(artifact.Entry) bool) {
		p := &population{rand: rand.New(rand.NewPCG(7, 7)), step: 2 * 365 * 24 * time.Hour / time.Duration(max(1, digests))} //nolint:gosec // the same ones each time
		for i := range digests {
			for _, e := range p.digest(i) {
				p.seq++
				if !yield(artifact.Entry{Seq: p.seq, Event: e}) {
					return
				}
			}
		}
	}
}

// Populate resets a view to a population, in large batches, and gives the position behind it.
func Populate(ctx context.Context, view View, digests int) (ledger.Position, error) {
	seen, err := view.Position(ctx)
	if err != nil {
		return ledger.Position{}, err
	}
	at, err := view.Reset(ctx, seen, Epoch(), ledger.Rules)
	if err != nil {
		return ledger.Position{}, err
	}
	batch := make([]artifact.Entry, 0, 20_000)
	flush := func() error {
		err := view.Apply(ctx, at.Basis, batch)
		batch = batch[:0]
		return err
	}
	for entry := range Population(digests) {
		if batch = append(batch, entry); len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return ledger.Position{}, err
			}
		}
	}
	if err := flush(); err != nil {
		return ledger.Position{}, err
	}
	return view.Position(ctx)
}

type population struct {
	rand *rand.Rand
	step time.Duration
	seq  uint64
}

// digest gives the events of the i-th digest.
func (p *population) digest(i int) []artifact.Event {
	at := Epoch().Add(time.Duration(i) * p.step)
	project := fmt.Sprintf("project-%03d", p.skewed(populationProjects))
	ref, err := artifact.NewRef(fmt.Sprintf("%s/team-%c/app-%d", project, "abc"[p.rand.IntN(3)], p.skewed(20)), p.sha256())
	if err != nil {
		panic(err) // the names are of this function
	}
	event := func(kind artifact.Kind, after time.Duration) artifact.Event {
		e := Event(kind, ref)
		e.Time = at.Add(after)
		return e
	}
	received := event(artifact.Received, 0)
	pushed := at.Add(-time.Duration(p.rand.IntN(5000)) * time.Millisecond)
	received.Tag, received.PushedAt, received.Pusher = p.tag(i), &pushed, p.pusher(project)
	events := []artifact.Event{received}
	if p.rand.IntN(10) < 3 {
		confirmed := received
		confirmed.Kind, confirmed.ID, confirmed.Time = artifact.Confirmed, artifact.EventID(artifact.Confirmed, ref), at.Add(time.Minute)
		events = append(events, confirmed)
	}
	return append(events, p.end(event)...)
}

// end gives what became of a digest.
func (p *population) end(event func(kind artifact.Kind, after time.Duration) artifact.Event) []artifact.Event {
	took := time.Duration(math.Exp(p.rand.NormFloat64()) * float64(2*time.Second))
	of := func(kind artifact.Kind, reason string) []artifact.Event {
		e := event(kind, took)
		e.Reason = reason
		return []artifact.Event{e}
	}
	switch n := p.rand.IntN(10_000); {
	case n < 2:
		return of(artifact.Dead, "denied")
	case n < 50:
		return nil // pending
	case n < 150:
		return of(artifact.Failed, "timeout")
	case n < 1200:
		return of(artifact.Skipped, string(policy.IsAccessory))
	case n < 1400:
		return of(artifact.Skipped, string(policy.Exempt))
	case n < 1420:
		return of(artifact.Blocked, string(policy.Blocked))
	}
	signed := event(artifact.Signed, took)
	signed.How, signed.MediaType, signed.PolicyRevision = artifact.Made, "application/vnd.oci.image.manifest.v1+json", "api-17"
	signed.Signatures = p.signatures()
	first := signed.Signatures[0]
	signed.KeyID, signed.Format, signed.SignatureDigest = first.KeyID, first.Format, first.Digest
	events := []artifact.Event{signed}
	switch n := p.rand.IntN(100); {
	case n < 4:
		gone := event(artifact.Vanished, took+time.Hour)
		gone.Reason = "deleted"
		events = append(events, gone)
	case n < 5:
		events = append(events, event(artifact.Removed, took+time.Hour))
	}
	return events
}

func (p *population) signatures() []artifact.Evidence {
	one := func(format artifact.Format) artifact.Evidence {
		keyID := CommonKey()
		switch n := p.rand.IntN(20_000); {
		case n == 0:
			keyID = RareKey()
		case n < 1000:
			keyID = artifact.DigestOf([]byte("key of a team"))[len("sha256:"):]
		case n < 7000:
			keyID = artifact.DigestOf([]byte("key of last year"))[len("sha256:"):]
		}
		return artifact.Evidence{Format: format, KeyID: keyID, Digest: p.sha256(), Log: "https://rekor.example.com", LogIndex: p.rand.Int64N(1e9)}
	}
	switch n := p.rand.IntN(100); {
	case n < 1:
		return []artifact.Evidence{one(artifact.Legacy), one(artifact.Bundle)}
	case n < 30:
		return []artifact.Evidence{one(artifact.Bundle)}
	default:
		return []artifact.Evidence{one(artifact.Legacy)}
	}
}

func (p *population) tag(i int) string {
	switch n := p.rand.IntN(50_000); {
	case n == 0:
		return RareTag
	case n < 2500:
		return CommonTag
	case n < 3000:
		return "stable"
	default:
		return fmt.Sprintf("v1.%d", i)
	}
}

func (p *population) pusher(project string) string {
	switch n := p.rand.IntN(40_000); {
	case n == 0:
		return RarePusher
	case n < 200:
		return "" // the webhook named nobody
	case n < 12_000:
		return fmt.Sprintf("user-%d", p.skewed(1000))
	default:
		return "robot$" + project + "+ci"
	}
}

// skewed draws one of n: the first ones often, the last ones seldom.
func (p *population) skewed(n int) int {
	return min(n-1, int(math.Pow(float64(n), p.rand.Float64()*p.rand.Float64()+p.rand.Float64()/10)-1))
}

func (p *population) sha256() string {
	var b []byte
	for range 4 {
		b = binary.BigEndian.AppendUint64(b, p.rand.Uint64())
	}
	return fmt.Sprintf("sha256:%x", slices.Clip(b))
}
