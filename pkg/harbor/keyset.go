package harbor

import (
	"context"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// pageOf asks for one page of a listing. It gives the rows and Harbor's own count of all of them; 0 stands for none: a proxy
// may have dropped it.
type pageOf[T any] func(ctx context.Context, page int64) (rows []T, total int64, err error)

// eachPage asks for pages until one is not full, or until Harbor's count is reached, which saves the last request. Rows that
// are added in front come twice, and rows that are deleted in front let others be skipped: it is for listings that nobody
// changes, or whose newest rows come first and whose oldest are deleted.
func (c *Client) eachPage(ctx context.Context, fetch func(ctx context.Context, page int64) (rows int, total int64, err error)) error {
	for page := int64(1); ; page++ {
		rows, total, err := fetch(ctx, page)
		if err != nil {
			return err
		}
		if int64(rows) < c.pageSize || total > 0 && page*c.pageSize >= total {
			return nil
		}
	}
}

// backwards gives the first page of a listing, and then its pages from the last to the first, until each says that it has
// enough. It is for listings whose new rows come last: a row that is deleted moves others to pages that are still to come, so
// that each row that is there all along is given at least once. It costs one request more than the listing has pages, if that is
// more than one.
func backwards[T any](ctx context.Context, size int64, fetch pageOf[T], each func(rows []T) (enough bool, err error)) error {
	rows, total, err := fetch(ctx, 1)
	if err != nil {
		return err
	}
	last := max(1, (total+size-1)/size)
	for full := int64(len(rows)) >= size; total == 0 && full; last++ { // without a count, the end is looked for
		further, _, err := fetch(ctx, last+1)
		if err != nil {
			return err
		}
		full = int64(len(further)) >= size
	}
	if enough, err := each(rows); err != nil || enough || last == 1 {
		return err
	}
	for page := last; page >= 1; page-- {
		if rows, _, err = fetch(ctx, page); err != nil {
			return err
		}
		if enough, err := each(rows); err != nil || enough {
			return err
		}
	}
	return nil
}

// grain is how finely Harbor bounds a time.
//
// SPEC: Harbor, src/lib/q/builder.go, and its object mapper (beego, client/orm, getFlatParams): what stands behind the seconds of a
// bound is cut off.
const grain = time.Second

// keyset walks through a listing that Harbor sorts by a time, oldest first. It asks for the first page of what is not older
// than the second of the last row, again and again, and does not go by the numbers of pages: whoever adds, changes or deletes rows
// meanwhile moves no other row past it. Each row that is there all along is given exactly once.
type keyset[T any, K comparable] struct {
	size int64
	// fetch asks for rows from a second on, oldest first, or for those of a range, in the order in which they were made; zero
	// times are no bounds.
	fetch func(ctx context.Context, from, until time.Time, page int64) (rows []T, total int64, err error)
	at    func(T) time.Time
	key   func(T) K
}

// stretch is what a keyset gives at a time: rows that were not given before, and where the listing stands behind them.
type stretch[T any, K comparable] struct {
	rows []T
	at   time.Time // of the last row
	edge []K       // the rows of the same second, all that were given
	// total is Harbor's count from where the walk began, in its first stretch.
	total int64
}

// walk goes on behind a time, of whose second some rows were given already. Without any it begins there, at that very time.
func (k keyset[T, K]) walk(ctx context.Context, at time.Time, edge []K, each func(stretch[T, K]) error) error {
	var since time.Time
	if len(edge) == 0 {
		since = at.Truncate(time.Millisecond)
	}
	place := newPlace(at, edge)
	for first := true; ; first = false {
		rows, total, err := k.fetch(ctx, place.second, time.Time{}, 1)
		if err != nil {
			return err
		}
		if err := k.check(rows, place.second); err != nil {
			return err
		}
		full := int64(len(rows)) >= k.size
		if full && total > 0 && int64(len(rows)) >= total {
			full = false // there are no more
		}
		crowded := full && k.second(rows[0]).Equal(k.second(rows[len(rows)-1]))
		given := slices.DeleteFunc(rows, func(row T) bool { return k.at(row).Before(since) })
		if !first {
			total = 0
		}
		if err := k.give(&place, given, total, each); err != nil {
			return err
		}
		switch {
		case !full:
			return nil
		case crowded:
			// More rows are of this second than a page holds: no bound tells them apart.
			if err := k.rest(ctx, &place, since, each); err != nil {
				return err
			}
			place = newPlace(place.second.Add(grain), []K(nil))
		}
	}
}

// rest gives all rows of the second at which the walk stands. Whatever is new there comes last.
func (k keyset[T, K]) rest(ctx context.Context, p *place[K], since time.Time, each func(stretch[T, K]) error) error {
	second := p.second
	until := second.Add(grain)
	fetch := func(ctx context.Context, page int64) ([]T, int64, error) { return k.fetch(ctx, second, until, page) }
	return backwards(ctx, k.size, fetch, func(rows []T) (bool, error) {
		rows = slices.DeleteFunc(rows, func(row T) bool { return !k.second(row).Equal(second) || k.at(row).Before(since) })
		return false, k.give(p, rows, 0, each)
	})
}

func (k keyset[T, K]) second(row T) time.Time { return k.at(row).Truncate(grain) }

// check refuses rows that are not in the order that was asked for: the walk would lose some, or never end.
func (k keyset[T, K]) check(rows []T, from time.Time) error {
	for _, row := range rows {
		at := k.at(row)
		if at.Before(from) {
			return fault.Newf(fault.Transient, fault.BadAnswer, "the listing is not in the order of its times: %s after %s",
				at.Format(time.RFC3339Nano), from.Format(time.RFC3339Nano))
		}
		from = at
	}
	return nil
}

// give hands over the rows that are new, and moves the place behind them.
func (k keyset[T, K]) give(p *place[K], rows []T, total int64, each func(stretch[T, K]) error) error {
	rows = slices.DeleteFunc(rows, func(row T) bool { return p.passed(k.at(row), k.key(row)) })
	if len(rows) == 0 {
		return nil
	}
	return each(stretch[T, K]{rows: rows, at: p.at, edge: slices.Clone(p.edge), total: total})
}

// place is where a walk stands: at a time, of whose second some rows were given.
type place[K comparable] struct {
	at, second time.Time
	edge       []K
	seen       map[K]bool // edge
}

func newPlace[K comparable](at time.Time, edge []K) place[K] {
	p := place[K]{at: at, second: at.Truncate(grain), seen: make(map[K]bool, len(edge)), edge: slices.Clone(edge)}
	for _, key := range edge {
		p.seen[key] = true
	}
	return p
}

// passed says whether a row was given already. One that was not is from now on.
func (p *place[K]) passed(at time.Time, key K) bool {
	if second := at.Truncate(grain); second.After(p.second) {
		*p = newPlace(at, []K(nil))
	}
	if p.seen[key] {
		return true
	}
	p.seen[key] = true
	p.edge = append(p.edge, key)
	if at.After(p.at) {
		p.at = at
	}
	return false
}
