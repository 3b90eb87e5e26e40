package harbortest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func TestFaultsOverTheControlSurface(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	nobody := login{}
	set := func(faults string) {
		t.Helper()
		c.want(http.StatusOK, nobody, http.MethodPut, "/_emulator/faults", faults)
	}
	set(`{"status":429,"retry_after":"7","count":2,"path_prefix":"/api/v2.0/ping"}`)
	c.want(http.StatusOK, nobody, http.MethodGet, "/api/v2.0/health", nil)
	for range 2 {
		got := c.want(http.StatusTooManyRequests, nobody, http.MethodGet, "/api/v2.0/ping", nil)
		if after := got.header.Get("Retry-After"); after != "7" {
			t.Errorf("Retry-After: got %q, want 7", after)
		}
	}
	c.want(http.StatusOK, nobody, http.MethodGet, "/api/v2.0/ping", nil)

	set(`{"status":503,"route":"token"}`)
	c.want(http.StatusServiceUnavailable, nobody, http.MethodGet, "/service/token?service=harbor-registry", nil)
	c.want(http.StatusUnauthorized, nobody, http.MethodGet, "/v2/", nil)

	set(`{"drop_connections":1,"method":"GET","path_prefix":"/api"}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.h.URL()+"/api/v2.0/ping", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := c.http.Do(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("a dropped connection: got status %d, want an error", res.StatusCode)
	}
	set(`{}`)
	c.want(http.StatusOK, nobody, http.MethodGet, "/api/v2.0/ping", nil)
	c.want(http.StatusBadRequest, nobody, http.MethodPut, "/_emulator/faults", `{"latncy":"1s"}`)
	c.want(http.StatusBadRequest, nobody, http.MethodPut, "/_emulator/faults", `{"latency":"soon"}`)
	c.want(http.StatusBadRequest, nobody, http.MethodPut, "/_emulator/faults", `{"cut_answers":1.5}`)
	c.want(http.StatusBadRequest, nobody, http.MethodPut, "/_emulator/faults/x", `{"latency":"soon"}`)
	c.want(http.StatusMethodNotAllowed, nobody, http.MethodDelete, "/_emulator/faults/x", nil)
	c.want(http.StatusNotFound, nobody, http.MethodGet, "/_emulator/else", nil)

	var stats harbortest.Stats
	c.want(http.StatusOK, nobody, http.MethodGet, "/_emulator/stats", nil).decode(t, &stats)
	// At least: net/http repeats a GET by itself when a connection that it used before breaks.
	if stats.FaultAnswers != 3 || stats.Requests["GET token"] != 1 || stats.Requests["GET api"] < 6 {
		t.Errorf("stats: got %+v, want 3 fault answers, 1 GET token, at least 6 GET api", stats)
	}
}

func TestFaultsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		want := harbortest.Faults{
			Method: rapid.StringMatching(`[A-Z]*`).Draw(rt, "method"), PathPrefix: rapid.StringMatching(`(/[a-z]*)?`).Draw(rt, "path"),
			Route:              rapid.SampledFrom([]string{"", "token", "manifest"}).Draw(rt, "route"),
			Project:            rapid.StringMatching(`[a-z]*`).Draw(rt, "project"),
			Latency:            time.Duration(rapid.Int64Range(0, 1e12).Draw(rt, "latency")),
			ManifestPutLatency: time.Duration(rapid.Int64Range(0, 1e12).Draw(rt, "put latency")),
			Status:             rapid.IntRange(0, 599).Draw(rt, "status"), RetryAfter: rapid.StringMatching(`[0-9]*`).Draw(rt, "after"),
			Count: rapid.IntRange(0, 9).Draw(rt, "count"), Rate: rapid.Float64Range(0, 1).Draw(rt, "rate"),
			DropConnections: rapid.Float64Range(0, 1).Draw(rt, "drop"), LoseWebhooks: rapid.Bool().Draw(rt, "lose"),
			LoseNextWebhooks: rapid.IntRange(0, 9).Draw(rt, "lose next"), CutAnswers: rapid.Float64Range(0, 1).Draw(rt, "cut"),
			LoseWebhookRate:   rapid.Float64Range(0, 1).Draw(rt, "lose rate"),
			DoubleWebhookRate: rapid.Float64Range(0, 1).Draw(rt, "double rate"),
		}
		raw, err := json.Marshal(want)
		if err != nil {
			rt.Fatalf("encoding: %v", err)
		}
		var got harbortest.Faults
		if err := json.Unmarshal(raw, &got); err != nil {
			rt.Fatalf("decoding %s: %v", raw, err)
		}
		if !reflect.DeepEqual(got, want) {
			rt.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

// TestManifestPutsOfAProjectTakeTurns measures from below only: serial waits add up, however slow the machine is.
func TestManifestPutsOfAProjectTakeTurns(t *testing.T) {
	t.Parallel()
	const latency, pushes = 40 * time.Millisecond, 4
	c := newClient(t, fast(t))
	s := &stage{client: c}
	c.project("demo", nil)
	config := s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	c.h.SetFaults(harbortest.Faults{ManifestPutLatency: latency})
	started := time.Now()
	var pushing sync.WaitGroup
	for i := range pushes {
		body := s.padded(map[string]any{
			"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{},
		}, 400+i)
		pushing.Go(func() { s.put(admin(), "demo/app", digestOf(body), ociManifest, body) })
	}
	pushing.Wait()
	if took := time.Since(started); took < pushes*latency {
		t.Errorf("%d pushes took %s, want at least %s", pushes, took, pushes*latency)
	}
}

// TestConcurrentUse lets pushers, readers and an admin at one project at once; the race detector watches.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	const workers, each = 8, 20
	c := newClient(t, fast(t))
	s := &stage{client: c}
	c.project("demo", nil)
	hook := newReceiver(t, ok200)
	c.policy("demo", "hook", hook.url(), "Default")
	pusher := c.robot("pusher", "project", "*", "repository:push", "repository:pull", "artifact:list")
	config := s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	var working sync.WaitGroup
	for w := range workers {
		working.Go(func() {
			for i := range each {
				body := s.padded(map[string]any{
					"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{},
					"annotations": map[string]string{"n": fmt.Sprint(w, i)},
				}, 500)
				s.put(pusher, "demo/app", fmt.Sprintf("w%d", w), ociManifest, body)
				c.want(http.StatusOK, pusher, http.MethodGet, "/v2/demo/app/manifests/"+digestOf(body), nil, "Accept", ociManifest)
				c.want(http.StatusOK, pusher, http.MethodGet, "/api/v2.0/projects/demo/artifacts?with_tag=true", nil)
				c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/auditlog-exts", nil)
			}
		})
	}
	working.Wait()
	list := c.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/demo/artifacts?page_size=1", nil)
	if got, want := list.header.Get("X-Total-Count"), fmt.Sprint(workers*each); got != want {
		t.Errorf("artifacts: got %s, want %s", got, want)
	}
	if got := len(settled(t, c, hook)); got != workers*each {
		t.Errorf("webhooks: got %d, want %d", got, workers*each)
	}
}

func TestCloseInTheMiddle(t *testing.T) {
	t.Parallel()
	h, err := harbortest.Start(harbortest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h.SetFaults(harbortest.Faults{Latency: time.Hour})
	c := newClient(t, h)
	failed := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, h.URL()+"/api/v2.0/ping", nil)
		if err != nil {
			failed <- err
			return
		}
		res, err := c.http.Do(req) //nolint:bodyclose // it fails
		if err == nil {
			err = fmt.Errorf("status %d", res.StatusCode)
		} else {
			err = nil
		}
		failed <- err
	}()
	for h.Stats().Requests["GET api"] == 0 {
		select {
		case err := <-failed:
			t.Fatalf("the request came back early: %v", err)
		case <-time.After(time.Millisecond): // The request is on its way; its counter is the signal.
		}
	}
	if err := h.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if err := <-failed; err != nil {
		t.Errorf("a request at the time of closing: got %v, want an error of the transport", err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}
