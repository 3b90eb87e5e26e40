package report

import (
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxListed is how many exceptions a manifest lists, and maxKeys how many keys it counts by.
	maxListed = 1000
	maxKeys   = 1000
)

// Totals are what the rows of an export add up to.
type Totals struct {
	// Rows are all; Population are those without what is gone and without accessories.
	Rows       uint64 `json:"rows"`
	Population uint64 `json:"population"`
	// States counts the rows by state. A state without rows is not there.
	States map[ledger.State]uint64 `json:"states"`
	// Accessories are the skipped ones that belong to another digest.
	Accessories uint64 `json:"accessories"`
	// LogOwed are those for which an entry of a transparency log is owed.
	LogOwed uint64 `json:"log_owed"`
	// Keys counts the signed rows by the key of each of their signatures; OtherKeys are the signatures beyond the first 1,000 keys.
	Keys      map[string]uint64 `json:"keys"`
	OtherKeys uint64            `json:"other_keys"`
	// FirstSeen and LastSeen are the bounds of first_seen_at; null without rows.
	FirstSeen *time.Time `json:"first_seen"`
	LastSeen  *time.Time `json:"last_seen"`
}

// Exceptions are the digests of the population that are not signed although they could be.
type Exceptions struct {
	Unsigned uint64 `json:"unsigned"`
	Failed   uint64 `json:"failed"`
	Dead     uint64 `json:"dead"`
	Blocked  uint64 `json:"blocked"`
	// Exempted are those that a policy exempts by name.
	Exempted uint64 `json:"exempted"`
	// List are the first 1,000 of them, in the order of the rows; Complete says whether those are all.
	List     []Exception `json:"list"`
	Complete bool        `json:"complete"`
}

// Exception is a digest that is not signed.
type Exception struct {
	Repository string       `json:"repository"`
	Digest     string       `json:"digest"`
	State      ledger.State `json:"state"`
	Reason     string       `json:"reason"`
}

// fact is what is counted of a row.
type fact struct {
	repository, digest string
	state              ledger.State
	reason             string
	owed               bool
	keys               []string
	firstSeen          time.Time
}

// tally counts rows. It belongs to one goroutine.
type tally struct {
	totals     Totals
	exceptions Exceptions
}

func newTally() *tally {
	return &tally{
		totals:     Totals{States: map[ledger.State]uint64{}, Keys: map[string]uint64{}},
		exceptions: Exceptions{List: []Exception{}, Complete: true},
	}
}

func (t *tally) add(f *fact) {
	t.totals.Rows++
	t.totals.States[f.state]++
	accessory := f.state == ledger.Skipped && slices.Contains(ledger.AccessoryReasons(), policy.Reason(f.reason))
	switch {
	case accessory:
		t.totals.Accessories++
	case f.state != ledger.Gone:
		t.totals.Population++
	}
	if f.owed {
		t.totals.LogOwed++
	}
	if f.state == ledger.Signed {
		for _, key := range f.keys {
			if _, known := t.totals.Keys[key]; !known && len(t.totals.Keys) >= maxKeys {
				t.totals.OtherKeys++
				continue
			}
			t.totals.Keys[key]++
		}
	}
	if seen := f.firstSeen; t.totals.FirstSeen == nil {
		t.totals.FirstSeen, t.totals.LastSeen = &seen, &seen
	} else if seen.Before(*t.totals.FirstSeen) {
		t.totals.FirstSeen = &seen
	} else if seen.After(*t.totals.LastSeen) {
		t.totals.LastSeen = &seen
	}
	t.except(f)
}

func (t *tally) except(f *fact) {
	switch {
	case f.state == ledger.Unsigned:
		t.exceptions.Unsigned++
	case f.state == ledger.Failed:
		t.exceptions.Failed++
	case f.state == ledger.Dead:
		t.exceptions.Dead++
	case f.state == ledger.Blocked:
		t.exceptions.Blocked++
	case f.state == ledger.Skipped && f.reason == string(policy.Exempt):
		t.exceptions.Exempted++
	default:
		return
	}
	if len(t.exceptions.List) == maxListed {
		t.exceptions.Complete = false
		return
	}
	t.exceptions.List = append(t.exceptions.List, Exception{Repository: f.repository, Digest: f.digest, State: f.state, Reason: f.reason})
}

// factOf is what is counted of a row. The keys are kept in the given slice.
func factOf(r *ledger.Row, keys []string) fact {
	for i := range r.Signatures {
		keys = append(keys, r.Signatures[i].KeyID)
	}
	return fact{
		repository: r.Repository, digest: r.Digest, state: r.State, reason: r.Reason, owed: r.LogState == ledger.LogOwed, keys: keys,
		firstSeen: r.FirstSeenAt.UTC().Truncate(time.Microsecond),
	}
}
