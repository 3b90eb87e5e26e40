package sqldb_test

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// envDigests says how many digests BenchmarkFilters writes.
const envDigests = "HARBORSEAL_BENCH_DIGESTS"

// BenchmarkFilters reads pages of 100 with each filter alone, in a project, and in a state, out of a population of 100,000 digests, or as
// many as the variable says. What to compare with is "100 by key".
func BenchmarkFilters(b *testing.B) {
	digests := 100_000
	if n, err := strconv.Atoi(os.Getenv(envDigests)); err == nil {
		digests = n
	}
	for _, open := range []func(tb testing.TB) database{sqliteDatabase, postgresDatabase} {
		d := open(b)
		store := d.open(b)
		if _, err := ledgertest.Populate(b.Context(), store, digests); err != nil {
			b.Fatal(err)
		}
		exec(b, d.served(b), "ANALYZE")
		b.Run(d.name+"/100 by key", func(b *testing.B) { benchKeys(b, store) })
		for _, name := range slices.Sorted(maps.Keys(planned())) {
			for scope, narrow := range map[string]func(q *ledger.Query){
				"":           func(*ledger.Query) {},
				" a project": func(q *ledger.Query) { q.Project = ledgertest.CommonProject },
				" a state":   func(q *ledger.Query) { q.State = ledger.Skipped },
			} {
				q := planned()[name].q
				narrow(&q)
				if _, err := q.Filter(); err != nil {
					continue
				}
				b.Run(d.name+"/"+name+scope, func(b *testing.B) {
					for range b.N {
						if _, err := store.Signatures(b.Context(), q); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

func benchKeys(b *testing.B, store ledgertest.View) {
	b.Helper()
	page, err := store.Signatures(b.Context(), ledger.Query{})
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		for _, row := range page.Items {
			ref, err := artifact.NewRef(row.Repository, row.Digest)
			if err != nil {
				b.Fatal(err)
			}
			if _, found, err := store.One(b.Context(), ref); err != nil || !found {
				b.Fatal(found, err)
			}
		}
	}
}
