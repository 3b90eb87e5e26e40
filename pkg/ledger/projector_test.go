package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

// source is what a projector reads from.
type source interface {
	Events(ctx context.Context, after uint64, fn func(ctx context.Context, batch []artifact.Entry) error) error
	LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error)
}

// start runs a projector until stop is called or the test ends.
func start(t *testing.T, from source, view ledgertest.View) (metrics *prometheus.Registry, stop func()) {
	t.Helper()
	metrics = prometheus.NewRegistry()
	p, err := ledger.NewProjector(ledger.ProjectorConfig{Source: from, View: view, Logger: zerolog.Nop(), Registerer: metrics})
	if err != nil {
		t.Fatalf("NewProjector: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil after a cancelled context", err)
		}
	}
	t.Cleanup(stop)
	return metrics, stop
}

func value(t *testing.T, metrics *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	for _, family := range families {
		if family.GetName() == name {
			m := family.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func wantValues(t *testing.T, metrics *prometheus.Registry, want map[string]float64) {
	t.Helper()
	for name, wanted := range want {
		if got := value(t, metrics, name); got != wanted {
			t.Errorf("%s = %v, want %v", name, got, wanted)
		}
	}
}

// wantRows compares the view's digests and their states.
func wantRows(t *testing.T, view ledgertest.View, want map[string]ledger.State) {
	t.Helper()
	got := map[string]ledger.State{}
	for _, row := range ledgertest.All(t, view, ledger.Query{}) {
		got[row.Digest] = row.State
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rows = %v, want %v", got, want)
	}
}

func received(n int) artifact.Event {
	return ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", n))
}

func signed(n int) artifact.Event {
	return ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", n))
}

func digest(n int) string { return ledgertest.Ref("demo/app", n).Digest() }

func TestProjectorFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
		stream.BatchSize = 2
		stream.Append(received(1), received(2), signed(1), ledgertest.ProjectEvent(artifact.Drifted, "demo"), artifact.Event{})
		metrics, stop := start(t, stream, view)
		synctest.Wait()
		wantRows(t, view, map[string]ledger.State{digest(1): ledger.Signed, digest(2): ledger.Pending})

		stream.Append(signed(2))
		synctest.Wait()
		wantRows(t, view, map[string]ledger.State{digest(1): ledger.Signed, digest(2): ledger.Signed})
		wantValues(t, metrics, map[string]float64{
			"harborseal_ledger_position": 6, "harborseal_ledger_events_total": 6, "harborseal_ledger_unreadable_total": 1,
			"harborseal_ledger_apply_seconds": 4, "harborseal_ledger_errors_total": 0, "harborseal_ledger_rebuilds_total": 1,
		})

		// After a restart it goes on where it stopped.
		stop()
		stream.Append(received(3))
		metrics, _ = start(t, stream, view)
		synctest.Wait()
		wantRows(t, view, map[string]ledger.State{digest(1): ledger.Signed, digest(2): ledger.Signed, digest(3): ledger.Pending})
		wantValues(t, metrics, map[string]float64{
			"harborseal_ledger_position": 7, "harborseal_ledger_events_total": 1, "harborseal_ledger_rebuilds_total": 0,
		})
	})
}

func TestProjectorOutlivesItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
		stream.Append(received(1))
		metrics, _ := start(t, stream, view)
		synctest.Wait()
		stream.Fail(errDown)
		time.Sleep(time.Hour)
		failures := value(t, metrics, "harborseal_ledger_errors_total")
		if least, most := 120.0, 260.0; failures < least || failures > most {
			t.Errorf("%v attempts in an hour, want %v to %v: one in 15 to 30 s", failures, least, most)
		}
		stream.Fail(nil)
		stream.Append(signed(1))
		time.Sleep(31 * time.Second)
		wantRows(t, view, map[string]ledger.State{digest(1): ledger.Signed})

		// Progress has reset the delay.
		stream.Fail(errDown)
		synctest.Wait()
		stream.Fail(nil)
		stream.Append(received(2))
		time.Sleep(time.Second)
		wantRows(t, view, map[string]ledger.State{digest(1): ledger.Signed, digest(2): ledger.Pending})
	})
}

// flaky is a view whose every second Apply fails, before or after it has done its work.
type flaky struct {
	ledgertest.Memory
	calls atomic.Int64
}

func (f *flaky) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	switch f.calls.Add(1) % 4 {
	case 1:
		return errDown
	case 3:
		return errors.Join(f.Memory.Apply(ctx, basis, entries), errDown)
	default:
		return f.Memory.Apply(ctx, basis, entries)
	}
}

func TestProjectorOutlivesItsView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &flaky{}
		stream.BatchSize = 1
		want := map[string]ledger.State{}
		for i := range 10 {
			stream.Append(received(i), signed(i))
			want[digest(i)] = ledger.Signed
		}
		metrics, _ := start(t, stream, view)
		time.Sleep(time.Hour)
		wantRows(t, view, want)
		if got := value(t, metrics, "harborseal_ledger_errors_total"); got == 0 {
			t.Error("harborseal_ledger_errors_total = 0, want the failures counted")
		}
	})
}

func TestProjectorRebuilds(t *testing.T) {
	later := ledgertest.Epoch().Add(time.Nanosecond)
	tests := []struct {
		name   string
		change func(t *testing.T, stream *ledgertest.Stream, view *ledgertest.Memory)
		want   map[string]ledger.State
		resets float64
	}{
		{
			"nothing changed",
			func(*testing.T, *ledgertest.Stream, *ledgertest.Memory) {},
			map[string]ledger.State{digest(1): ledger.Pending, digest(2): ledger.Pending, digest(3): ledger.Pending},
			0,
		},
		{
			"another stream",
			func(_ *testing.T, stream *ledgertest.Stream, _ *ledgertest.Memory) {
				stream.Recreate(later)
				stream.Append(received(4), received(5), received(6), received(7))
			},
			map[string]ledger.State{digest(4): ledger.Pending, digest(5): ledger.Pending, digest(6): ledger.Pending, digest(7): ledger.Pending},
			1,
		},
		{
			"the stream went back",
			func(_ *testing.T, stream *ledgertest.Stream, _ *ledgertest.Memory) { stream.Truncate(1) },
			map[string]ledger.State{digest(1): ledger.Pending},
			1,
		},
		{
			"older rules",
			func(t *testing.T, _ *ledgertest.Stream, view *ledgertest.Memory) {
				t.Helper()
				seen, err := view.Position(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := view.Reset(t.Context(), seen, ledgertest.Epoch(), ledger.Rules-1); err != nil {
					t.Fatal(err)
				}
			},
			map[string]ledger.State{digest(1): ledger.Pending, digest(2): ledger.Pending, digest(3): ledger.Pending},
			1,
		},
		{
			"expired events keep their rows",
			func(_ *testing.T, stream *ledgertest.Stream, _ *ledgertest.Memory) {
				stream.Append(received(4), received(5))
				stream.Expire(5)
			},
			map[string]ledger.State{digest(1): ledger.Pending, digest(2): ledger.Pending, digest(3): ledger.Pending, digest(5): ledger.Pending},
			0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
				stream.Append(received(1), received(2), received(3))
				_, stop := start(t, stream, view)
				synctest.Wait()
				stop()
				tt.change(t, stream, view)
				metrics, _ := start(t, stream, view)
				synctest.Wait()
				wantRows(t, view, tt.want)
				wantValues(t, metrics, map[string]float64{"harborseal_ledger_rebuilds_total": tt.resets})
			})
		})
	}
}

// A view that a change of its schema sent back to the beginning keeps its rows, and nobody is told of events that were
// missed.
func TestProjectorReadsAgainFromTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
		ledgertest.Begin(t, view)
		stream.Append(received(1), received(2))
		stream.Expire(2)
		var logged bytes.Buffer
		metrics := prometheus.NewRegistry()
		p, err := ledger.NewProjector(ledger.ProjectorConfig{Source: stream, View: view, Logger: zerolog.New(&logged), Registerer: metrics})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
		wantRows(t, view, map[string]ledger.State{digest(2): ledger.Pending})
		wantValues(t, metrics, map[string]float64{"harborseal_ledger_rebuilds_total": 0})
		if strings.Contains(logged.String(), "expired") {
			t.Errorf("log = %s, want nothing of expired events", logged.String())
		}
	})
}

// TestProjectorNoticesAReplacedStream has a source that reconnects by itself and says nothing.
func TestProjectorNoticesAReplacedStream(t *testing.T) {
	tests := []struct {
		name   string
		change func(stream *ledgertest.Stream)
		want   map[string]ledger.State
	}{
		{"a new one that is longer", func(stream *ledgertest.Stream) {
			stream.Recreate(ledgertest.Epoch().Add(time.Hour))
			stream.Append(received(3), received(4), received(5))
		}, map[string]ledger.State{digest(3): ledger.Pending, digest(4): ledger.Pending, digest(5): ledger.Pending}},
		{"a new one that is empty", func(stream *ledgertest.Stream) {
			stream.Recreate(ledgertest.Epoch().Add(time.Hour))
		}, map[string]ledger.State{}},
		{"the same, gone back", func(stream *ledgertest.Stream) {
			stream.Truncate(1)
		}, map[string]ledger.State{digest(1): ledger.Pending}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
				stream.Append(received(1), received(2))
				start(t, stream, view)
				synctest.Wait()
				tt.change(stream)
				time.Sleep(10 * time.Second)
				wantRows(t, view, tt.want)
			})
		})
	}
}

func TestProjectorLeavesNewerRulesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
		newer, err := view.Reset(t.Context(), ledger.Position{}, ledgertest.Epoch(), ledger.Rules+1)
		if err != nil {
			t.Fatal(err)
		}
		stream.Append(received(1))
		metrics, _ := start(t, stream, view)
		time.Sleep(time.Minute)
		if got, err := view.Position(t.Context()); err != nil || !got.Equal(newer) {
			t.Errorf("Position() = %+v, %v; want %+v untouched", got, err, newer)
		}
		if got := value(t, metrics, "harborseal_ledger_errors_total"); got == 0 {
			t.Error("harborseal_ledger_errors_total = 0, want the refusal counted")
		}
	})
}

// ahead is a source beside which another receiver brings the view forward just after the state was read.
type ahead struct {
	*ledgertest.Stream
	view *ledgertest.Memory
}

func (a *ahead) LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error) {
	first, last, created, err = a.Stream.LedgerState(ctx)
	position, perr := a.view.Position(ctx)
	if perr == nil && position.Seq > 0 {
		seq := a.Append(received(2))
		perr = a.view.Apply(ctx, position.Basis, []artifact.Entry{{Seq: seq, Event: received(2)}})
	}
	return first, last, created, errors.Join(err, perr)
}

func TestProjectorIsNotFooledByOneAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
		stream.Append(received(1))
		_, stop := start(t, stream, view)
		synctest.Wait()
		stop()
		metrics, _ := start(t, &ahead{stream, view}, view)
		time.Sleep(time.Minute)
		wantValues(t, metrics, map[string]float64{"harborseal_ledger_rebuilds_total": 0})
	})
}

// TestProjectorsShareAView runs several receivers on one database while the stream is replaced beneath them.
func TestProjectorsShareAView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &ledgertest.Memory{}
		stream.BatchSize = 1
		for range 3 {
			start(t, stream, view)
		}
		want := map[string]ledger.State{}
		for round := range 5 {
			clear(want)
			stream.Recreate(ledgertest.Epoch().Add(time.Duration(round) * time.Second))
			for i := range 20 {
				stream.Append(received(100*round + i))
				want[digest(100*round+i)] = ledger.Pending
			}
			// Readers of the old stream find out, as those of JetStream do.
			stream.Fail(errDown)
			synctest.Wait()
			stream.Fail(nil)
			time.Sleep(2 * time.Minute)
			wantRows(t, view, want)
		}
	})
}

func TestProjectorMeasuresLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, view := ledgertest.NewStream(ledgertest.Epoch()), &stuck{}
		stream.Append(received(1), received(2), received(3))
		metrics, _ := start(t, stream, view)
		synctest.Wait()
		stream.Append(received(4))
		time.Sleep(6 * time.Second)
		wantValues(t, metrics, map[string]float64{"harborseal_ledger_lag_events": 4, "harborseal_ledger_position": 0})
	})
}

// stuck is a view that never finishes.
type stuck struct{ ledgertest.Memory }

func (*stuck) Apply(ctx context.Context, _ ledger.Basis, _ []artifact.Entry) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestNewProjectorRefuses(t *testing.T) {
	if _, err := ledger.NewProjector(ledger.ProjectorConfig{View: &ledgertest.Memory{}}); err == nil {
		t.Error("NewProjector without a source: no error")
	}
	if _, err := ledger.NewProjector(ledger.ProjectorConfig{Source: ledgertest.NewStream(ledgertest.Epoch())}); err == nil {
		t.Error("NewProjector without a view: no error")
	}
	metrics := prometheus.NewRegistry()
	cfg := ledger.ProjectorConfig{Source: ledgertest.NewStream(ledgertest.Epoch()), View: &ledgertest.Memory{}, Registerer: metrics}
	if _, err := ledger.NewProjector(cfg); err != nil {
		t.Errorf("NewProjector: %v", err)
	}
	if _, err := ledger.NewProjector(cfg); err == nil {
		t.Error("NewProjector with metrics that are taken: no error")
	}
}
