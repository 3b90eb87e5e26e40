package harbortest_test

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// What no recording covers is held to what was measured at the same Harbor; see the SPEC comments.

// TestTenWorkers lets a receiver hold its answers back: ten deliveries come, and an eleventh only after an answer.
func TestTenWorkers(t *testing.T) {
	t.Parallel()
	const workers, pushes = 10, 25
	s := &stage{client: newClient(t, harbortest.New(t, harbortest.Config{
		DeliveryDelayScale: 0.001, RetryScale: 0.0001, WebhookTimeout: time.Minute, Seed: 1,
	}))}
	s.project("demo", nil)
	answers, ended := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	open, most := 0, 0
	hook := newReceiver(t, func(n int, r *http.Request) string {
		mu.Lock()
		open++
		most = max(most, open)
		mu.Unlock()
		select {
		case <-answers:
		case <-ended:
		}
		mu.Lock()
		open--
		mu.Unlock()
		return ok200(n, r)
	})
	t.Cleanup(func() { close(ended) }) // Before the receiver's own, which waits for its answers.
	s.policy("demo", "hook", hook.url(), "Default")
	for i := range pushes {
		body := s.plain(i)
		s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	}
	hook.wait(t, workers)
	for i := range pushes {
		answers <- struct{}{}
		hook.wait(t, min(workers+i+1, pushes))
	}
	settled(t, s.client, hook)
	mu.Lock()
	defer mu.Unlock()
	if most != workers {
		t.Errorf("deliveries at once: got %d, want %d", most, workers)
	}
}

// TestWebhookAfterAQuietTimeIsLate measures from below: with this seed, the first of the ten workers looks after the 0.5th
// part of the longest sleep.
func TestWebhookAfterAQuietTimeIsLate(t *testing.T) {
	t.Parallel()
	const scale = 0.1 // 10 s are 1 s.
	started := time.Now()
	s := &stage{client: newClient(t, harbortest.New(t, harbortest.Config{DeliveryDelayScale: scale, Seed: 222}))}
	s.project("demo", nil)
	hook := newReceiver(t, ok200)
	s.policy("demo", "hook", hook.url(), "Default")
	body := s.plain(0)
	s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	hook.wait(t, 1)
	if took := time.Since(started); took < 500*time.Millisecond {
		t.Errorf("the first webhook came %s after the start, want at least 500ms", took)
	}
}

func TestRetryGaps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fails  int
		random float64
		want   time.Duration
	}{{1, 0, 16 * time.Second}, {1, 0.999, 74 * time.Second}, {2, 0, 31 * time.Second}, {2, 0.999, 118 * time.Second}} {
		if got := harbortest.RetryGap(tt.fails, tt.random); got != tt.want {
			t.Errorf("after failure %d, random %v: got %s, want %s", tt.fails, tt.random, got, tt.want)
		}
	}
}

func TestLatencyDelays(t *testing.T) {
	t.Parallel()
	const latency = 50 * time.Millisecond
	c := newClient(t, fast(t))
	c.h.SetFaults(harbortest.Faults{Latency: latency, PathPrefix: "/api/v2.0/ping"})
	started := time.Now()
	c.want(http.StatusOK, login{}, http.MethodGet, "/api/v2.0/ping", nil)
	if took := time.Since(started); took < latency {
		t.Errorf("a request took %s, want at least %s", took, latency)
	}
}

func TestRateMeetsSomeRequests(t *testing.T) {
	t.Parallel()
	const requests = 100
	c := newClient(t, fast(t))
	c.h.SetFaults(harbortest.Faults{Status: http.StatusServiceUnavailable, Rate: 0.5})
	refused := 0
	for range requests {
		if c.do(login{}, http.MethodGet, "/api/v2.0/ping", nil).status == http.StatusServiceUnavailable {
			refused++
		}
	}
	if refused < requests/5 || refused > requests*4/5 {
		t.Errorf("refused: got %d of %d, want about half", refused, requests)
	}
}

// TestManifestPutsOfProjectsDoNotMeet lets a push hold the quota row of its project for ever; another project's goes on.
func TestManifestPutsOfProjectsDoNotMeet(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	s.project("other", nil)
	s.blob("other/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	body := s.plain(0)
	s.h.SetFaults(harbortest.Faults{ManifestPutLatency: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	var held sync.WaitGroup
	held.Go(func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.h.URL()+"/v2/demo/app/manifests/v1", bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.SetBasicAuth(admin().name, admin().secret)
		req.Header.Set("Content-Type", ociManifest)
		if res, err := s.http.Do(req); err == nil {
			_ = res.Body.Close()
			t.Errorf("a push whose row is held for an hour: got status %d, want none", res.StatusCode)
		}
	})
	for s.h.QuotaRowsHeld() == 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("no push holds a row")
		case <-time.After(time.Millisecond):
		}
	}
	s.h.SetFaults(harbortest.Faults{ManifestPutLatency: time.Millisecond})
	s.put(admin(), "other/app", "v1", ociManifest, body)
	cancel()
	held.Wait()
}
