package api_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/status"
)

// oneRow is a view in memory for a status.
type oneRow struct{ *ledgertest.Memory }

func (v oneRow) One(ctx context.Context, ref artifact.Ref) (ledger.Row, bool, error) {
	page, err := v.Signatures(ctx, ledger.Query{Repository: ref.Repository(), Digest: ref.Digest()})
	if err != nil || len(page.Items) == 0 {
		return ledger.Row{}, false, err
	}
	return page.Items[0], true, nil
}

// signsAll is a policy, and a registry that has everything and counts who asks.
type signsAll struct{ asked atomic.Int64 }

func (*signsAll) Policy(_ context.Context, project string) (policy.Policy, error) {
	return policy.Policy{Project: project, Mode: policy.ModeSign}, nil
}

func (s *signsAll) Resolve(_ context.Context, repository, reference string) (artifact.Listed, error) {
	s.asked.Add(1)
	ref, err := artifact.NewRef(repository, reference)
	return artifact.Listed{Ref: ref}, err
}

func (s *signsAll) Answers(context.Context, artifact.Ref) (bool, error) {
	s.asked.Add(1)
	return true, nil
}

// BenchmarkWaitingPolls has callers wait over TLS, each for another digest, on connections of their own, and wakes them by events that
// come at a steady rate: the time is from the event to the end of the answer at the caller. Callers and server share the processors.
func BenchmarkWaitingPolls(b *testing.B) {
	const waiters, perSecond = 1000, 2000
	for b.Loop() {
		pollAndWake(b, waiters, perSecond)
	}
}

func pollAndWake(b *testing.B, waiters, perSecond int) {
	b.Helper()
	memory, all := &ledgertest.Memory{}, &signsAll{}
	basis := ledgertest.Begin(b, memory)
	states, err := status.New(status.Config{
		View: oneRow{memory}, Policies: all, Registry: all, Door: wishing{&standing{}}, Host: "harbor.example.com", MaxPerCaller: waiters,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = states.Run(ctx) })
	defer run.Wait()
	defer cancel()
	tokens := filepath.Join(b.TempDir(), "tokens")
	writeTokens(b, tokens, "ci:"+hashed(token)+"\n")
	cfg := config(b, &report{}, tokens, io.Discard)
	cfg.Status = states
	a, err := api.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	server := httptest.NewTLSServer(engine)
	defer server.Close()

	event := func(kind artifact.Kind, n int) artifact.Event {
		e := ledgertest.Event(kind, ledgertest.Ref("demo/app", n))
		e.Time, e.MediaType = time.Now(), "application/vnd.oci.image.manifest.v1+json"
		e.Signatures = []artifact.Evidence{{Format: artifact.Legacy, KeyID: "k", Digest: ledgertest.Ref("demo/app", waiters+n).Digest()}}
		return e
	}
	seq := uint64(0)
	happens := func(events ...artifact.Event) {
		entries := make([]artifact.Entry, 0, len(events))
		for _, e := range events {
			seq++
			entries = append(entries, artifact.Entry{Seq: seq, Event: e})
		}
		ledgertest.Apply(b, memory, basis, entries...)
		states.Observe(entries)
	}
	for i := range waiters {
		happens(event(artifact.Received, i))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	woken := make([]time.Time, waiters)
	var callers sync.WaitGroup
	for i := range waiters {
		callers.Go(func() {
			woken[i] = poll(b, server.URL, ledgertest.Ref("demo/app", i))
		})
	}
	for states.Waiting() < waiters {
		runtime.Gosched()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	told := make([]time.Time, waiters)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for next := 0; next < waiters; {
		<-ticker.C
		var batch []artifact.Event
		for ; next < waiters && len(batch) < perSecond/100; next++ {
			batch = append(batch, event(artifact.Signed, next))
			told[next] = time.Now()
		}
		happens(batch...)
	}
	callers.Wait()
	times := make([]time.Duration, waiters)
	for i := range times {
		times[i] = woken[i].Sub(told[i])
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[waiters/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(times[waiters*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(all.asked.Load()), "harbor-calls")
	// Both ends of the connection are in this process.
	b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/float64(waiters), "bytes/waiter-and-caller")
}

// poll waits for a digest over a connection of its own, and gives when the answer had come.
func poll(b *testing.B, server string, ref artifact.Ref) time.Time {
	b.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // of this test alone
	target := server + "/api/v1/status?wait=60s&image=" + url.QueryEscape("harbor.example.com/"+ref.String())
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		b.Error(err)
		return time.Time{}
	}
	req.Header = with(token)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		b.Error(err)
		return time.Time{}
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if raw, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Error(fmt.Errorf("%s %s: %w", resp.Status, raw, err))
	}
	return time.Now()
}
