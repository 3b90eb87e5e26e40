package report_test

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/report"
)

// book keeps events. It fails as often as fails says.
type book struct {
	mu     sync.Mutex
	fails  int // guarded by mu; -1 for always
	kind   fault.Kind
	events []artifact.Event // guarded by mu
}

func (b *book) Record(_ context.Context, e artifact.Event) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails != 0 {
		b.fails--
		return 0, fault.Newf(b.kind, fault.QueueUnavailable, "away")
	}
	if _, err := artifact.EncodeEvent(e); err != nil {
		return 0, fault.New(fault.Permanent, fault.Malformed, err)
	}
	b.events = append(b.events, e)
	return uint64(len(b.events)), nil
}

func (b *book) all() []artifact.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]artifact.Event(nil), b.events...)
}

func recorder(t *testing.T, b *book, waiting int) (*report.Recorder, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	r, err := report.NewRecorder(report.RecorderConfig{Book: b, Waiting: waiting, Registerer: registry})
	if err != nil {
		t.Fatalf("NewRecorder: %v", err)
	}
	return r, registry
}

// running runs a recorder.
func running(t *testing.T, r *report.Recorder, during func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	during()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func counted(t *testing.T, registry *prometheus.Registry, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func reading(actor, query string) report.Reading {
	values, err := url.ParseQuery(query)
	if err != nil {
		panic(err)
	}
	return report.Reading{Actor: actor, Address: "192.0.2.1", Project: "demo", Path: "/api/v1/signatures", Parameters: values}
}

func TestReadingsAreCoalesced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		r, registry := recorder(t, b, 0)
		other, _ := recorder(t, b, 0)
		running(t, r, func() {
			r.Read(reading("ann", "project=demo&state=failed"))
			r.Read(reading("ann", "state=failed&project=demo&cursor=abc&limit=5")) // another page of the same
			r.Read(reading("ann", "project=demo"))
			r.Read(reading("bob", "project=demo"))
			synctest.Wait()
			time.Sleep(10 * time.Minute)
			r.Read(reading("ann", "project=demo"))
			synctest.Wait()
		})
		events := b.all()
		if len(events) != 4 || counted(t, registry, "recorded") != 4 || counted(t, registry, "coalesced") != 1 {
			t.Fatalf("%d events, want 4: %+v", len(events), events)
		}
		if e := events[0]; e.Kind != artifact.ReportRead || e.Actor != "ann" || e.Project != "demo" || e.Report.Address != "192.0.2.1" ||
			e.Report.Scope != "/api/v1/signatures?project=demo&state=failed" || e.Origin != artifact.OriginAPI {
			t.Errorf("event = %+v, %+v", e, e.Report)
		}
		// Another receiver gives the reading the same id.
		running(t, other, func() {
			other.Read(reading("ann", "project=demo"))
			synctest.Wait()
		})
		if last := b.all()[4]; last.ID != events[3].ID || events[3].ID == events[1].ID {
			t.Errorf("ids = %s, %s and %s; want the same in a slot, and another in the next", last.ID, events[3].ID, events[1].ID)
		}
	})
}

// Who asks for ever something else fills no ledger, and does not keep others out of it.
func TestReadingsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		r, _ := recorder(t, b, 0)
		running(t, r, func() {
			for i := range 500 {
				r.Read(reading("ann", "since="+strconv.Itoa(i)))
			}
			r.Read(reading("ann", "since=3")) // one of those that were told apart
			r.Read(reading("bob", "since=1"))
			synctest.Wait()
		})
		events := b.all()
		if len(events) != 102 {
			t.Fatalf("%d events, want 100, one for the rest, and one of bob's", len(events))
		}
		if last := events[100]; last.Actor != "ann" || last.Project != "" || !strings.Contains(last.Report.Scope, "more questions") {
			t.Errorf("the rest is %+v", last)
		}
		if events[101].Actor != "bob" {
			t.Errorf("the last event is of %s, want bob's", events[101].Actor)
		}
	})
}

func TestExportsAreRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		r, _ := recorder(t, b, 0)
		running(t, r, func() {
			r.Exported(reading("ann", "format=csv"), report.CSV, report.Result{Rows: 7, SHA256: "ab", Complete: true})
			r.Exported(reading("ann", "format=csv"), report.CSV, report.Result{Rows: 3})
			synctest.Wait()
		})
		events := b.all()
		if len(events) != 2 || events[0].ID == events[1].ID {
			t.Fatalf("events = %+v, want 2", events)
		}
		whole, part := events[0], events[1]
		if whole.Result != artifact.Success || whole.Report.Rows != 7 || whole.Report.SHA256 != "ab" || !whole.Report.Complete || whole.Report.Format != "csv" {
			t.Errorf("event = %+v, %+v", whole, whole.Report)
		}
		if part.Result != artifact.Failure || part.Report.Rows != 3 || part.Report.Complete {
			t.Errorf("event = %+v, %+v", part, part.Report)
		}
	})
}

func TestRecordingTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &book{fails: 6, kind: fault.Transient}
		r, registry := recorder(t, b, 0)
		running(t, r, func() {
			r.Read(reading("ann", ""))
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if len(b.all()) != 1 || counted(t, registry, "recorded") != 1 {
				t.Errorf("%d events, want 1 after the ledger is back", len(b.all()))
			}
		})
	})
}

func TestRecordingNeverWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &book{fails: -1, kind: fault.Transient}
		r, registry := recorder(t, b, 2)
		for _, actor := range []string{"a", "b", "c", "d"} { // nobody takes them
			r.Read(reading(actor, ""))
		}
		if got := counted(t, registry, "dropped"); got != 2 {
			t.Errorf("dropped = %v, want 2", got)
		}
		// What was dropped is no repetition when it is read again.
		r.Read(reading("d", ""))
		if got := counted(t, registry, "dropped"); got != 3 {
			t.Errorf("dropped = %v, want 3", got)
		}
		running(t, r, func() { time.Sleep(time.Minute) }) // ends although the ledger does not answer
		if got := counted(t, registry, "dropped"); got != 5 {
			t.Errorf("dropped = %v, want 5: two of them at the end", got)
		}
	})
}

func TestRecordingPassesOverWhatIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &book{fails: 1, kind: fault.Permanent}
		r, registry := recorder(t, b, 0)
		running(t, r, func() {
			r.Read(reading("ann", ""))
			r.Read(reading("bob", ""))
			synctest.Wait()
		})
		if events := b.all(); len(events) != 1 || events[0].Actor != "bob" || counted(t, registry, "refused") != 1 {
			t.Errorf("events = %+v, want bob's", events)
		}
	})
}

// What waits when the program ends is still recorded.
func TestRecordingAtTheEnd(t *testing.T) {
	t.Parallel()
	b := &book{}
	r, _ := recorder(t, b, 0)
	r.Read(reading("ann", ""))
	r.Read(reading("bob", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil || len(b.all()) != 2 {
		t.Errorf("Run = %v with %d events, want 2", err, len(b.all()))
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	t.Parallel()
	_, registry := recorder(t, &book{}, 0)
	if _, err := report.NewRecorder(report.RecorderConfig{Book: &book{}, Registerer: registry}); err == nil {
		t.Error("a second recorder with the same metrics = nil, want an error")
	}
	if n, err := testutil.GatherAndCount(registry); err != nil || n != 4 {
		t.Errorf("metrics = %d, %v; want 4", n, err)
	}
}
