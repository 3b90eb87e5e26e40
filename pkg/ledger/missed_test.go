package ledger_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// observer notes up to where it was told, and how often it was told that it has missed something.
type observer struct {
	mu     sync.Mutex
	seen   []uint64
	missed int
}

func (o *observer) Observe(entries []artifact.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(entries) == 0 {
		o.missed++
	}
	for _, e := range entries {
		o.seen = append(o.seen, e.Seq)
	}
}

func (o *observer) told() (seen []uint64, missed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen), o.missed
}

// TestObserverIsToldOfWhatItMissed: events whose commit was answered with an error are in the view, and are not read again.
func TestObserverIsToldOfWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view, told := ledgertest.NewStream(ledgertest.Epoch()), &flaky{}, &observer{}
		p, err := ledger.NewProjector(ledger.ProjectorConfig{Source: stream, View: view, Logger: zerolog.Nop(), Observer: told})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = p.Run(ctx) }) // it gives nil
		defer running.Wait()
		defer cancel()
		settle := func() {
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		stream.Append(received(1)) // fails before it is applied, and is applied then
		settle()
		if seen, missed := told.told(); !slices.Equal(seen, []uint64{1}) || missed != 0 {
			t.Fatalf("told of %v, missed %d; want the first event, and nothing missed", seen, missed)
		}
		stream.Append(received(2)) // is applied, and fails then
		settle()
		if seen, missed := told.told(); !slices.Equal(seen, []uint64{1}) || missed != 1 {
			t.Errorf("told of %v, missed %d; want to be told once that something was missed", seen, missed)
		}
	})
}
