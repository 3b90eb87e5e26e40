package sqldb_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// pushes gives the events of n digests in 50 repositories: each is received with a tag, and signed.
func pushes(n int) []artifact.Entry {
	entries := make([]artifact.Entry, 0, 2*n)
	key := ledgertest.Ref("p0/key", 0).Digest()[7:]
	for i := range n {
		ref := ledgertest.Ref(fmt.Sprintf("p%d/team/app%d", i%5, i%50), i)
		received, signed := ledgertest.Event(artifact.Received, ref), ledgertest.Event(artifact.Signed, ref)
		received.Tag, received.Pusher = fmt.Sprintf("v%d", i), "robot$ci"
		signed.KeyID, signed.SignatureDigest, signed.How = key, ref.Digest(), artifact.Made
		seq := uint64(len(entries))
		entries = append(entries, artifact.Entry{Seq: seq + 1, Event: received}, artifact.Entry{Seq: seq + 2, Event: signed})
	}
	return entries
}

func openBench(b *testing.B) *sqldb.Store {
	b.Helper()
	store, err := sqldb.Open(b.Context(), sqldb.Config{Path: filepath.Join(b.TempDir(), "ledger.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	return store
}

// BenchmarkApply projects 200,000 events in batches of 1,000, as the queue delivers them at most. The number to look at is events/s.
func BenchmarkApply(b *testing.B) {
	for _, make := range []func(tb testing.TB) database{sqliteDatabase, postgresDatabase} {
		for _, apart := range []bool{false, true} {
			d := make(b)
			b.Run(fmt.Sprintf("%s/apart=%t", d.name, apart), func(b *testing.B) {
				entries := pushes(100_000)
				if apart {
					entries = apartBy(entries, 20_000)
				}
				store := d.open(b)
				b.ResetTimer()
				for range b.N {
					basis := ledgertest.Begin(b, store)
					for batch := range slices.Chunk(entries, 1000) {
						ledgertest.Apply(b, store, basis, batch...)
					}
				}
				b.ReportMetric(float64(b.N*len(entries))/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// apartBy has each digest signed so many digests later, and not in the batch in which it was received: the row is written twice.
func apartBy(entries []artifact.Entry, digests int) []artifact.Entry {
	var apart []artifact.Entry
	for i := range len(entries)/2 + digests {
		if i < len(entries)/2 {
			apart = append(apart, entries[2*i])
		}
		if i >= digests {
			apart = append(apart, entries[2*(i-digests)+1])
		}
	}
	for i := range apart {
		apart[i].Seq = uint64(i) + 1
	}
	return apart
}

// BenchmarkPage reads pages of 100 out of 50,000 rows.
func BenchmarkPage(b *testing.B) {
	store := openBench(b)
	entries := pushes(50_000)
	ledgertest.Apply(b, store, ledgertest.Begin(b, store), entries...)
	digest := entries[777].Event.Ref.Digest()
	for _, bb := range []struct {
		name string
		q    ledger.Query
	}{
		{"all", ledger.Query{}},
		{"project", ledger.Query{Project: "p1"}},
		{"project and state", ledger.Query{Project: "p1", State: ledger.Signed}},
		{"state without rows", ledger.Query{State: ledger.Dead}},
		{"repository", ledger.Query{Repository: "p1/team/app1"}},
		{"digest", ledger.Query{Digest: digest}},
		{"digest prefix", ledger.Query{Digest: digest[:20]}},
		{"digest prefix and project", ledger.Query{Digest: digest[:20], Project: "p1"}},
		{"digest prefix and everything", ledger.Query{
			Digest: digest[:20], Project: "p3", Repository: "team/app38", State: ledger.Signed, Since: ledgertest.Epoch().Add(-time.Hour), Until: ledgertest.Epoch().Add(time.Hour),
		}},
		{"no time between", ledger.Query{Since: ledgertest.Epoch().Add(time.Hour), Until: ledgertest.Epoch().Add(2 * time.Hour)}},
		{"repository and a state without rows", ledger.Query{Repository: "p1/team/app1", State: ledger.Dead}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for range b.N {
				if _, err := store.Signatures(context.Background(), bb.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
