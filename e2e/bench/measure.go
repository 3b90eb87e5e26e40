package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/harness"
)

const (
	project = "bench"
	limit   = 2 * time.Minute
)

// measure is what one part has used and taken.
type measure struct {
	signatures int
	took       time.Duration
	// requests are those that came to the registry and its token service, by kind; nil if others than the signer sent some,
	// too.
	requests map[string]int
	// requested is for how many signatures they were sent.
	requested        int
	signer, receiver harness.Usage
	// latencies are from the receipt of each webhook to its verified signature; empty where requests had to wait for the
	// signer to start.
	latencies []time.Duration
}

// snapshot is how far the programs are at one moment.
type snapshot struct {
	at               time.Time
	signed           int
	signer, receiver harness.Usage
}

// since gives what happened between two moments, but for requests and latencies.
func (s snapshot) since(before snapshot) *measure {
	m := &measure{signatures: s.signed - before.signed, took: s.at.Sub(before.at), signer: s.signer, receiver: s.receiver}
	m.signer.CPU -= before.signer.CPU
	m.receiver.CPU -= before.receiver.CPU
	return m
}

func (m *measure) rate() float64 { return float64(m.signatures) / m.took.Seconds() }

// percentile of the latencies; 0 if there are none.
func (m *measure) percentile(percent int) time.Duration {
	if len(m.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(m.latencies))
	return sorted[(len(sorted)*percent+99)/100-1]
}

// MarshalJSON writes what the table says. What was not measured is 0.
func (m *measure) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"signatures": m.signatures, "rate": m.rate(), "latency_p50_ns": m.percentile(50), "latency_p99_ns": m.percentile(99),
		"requests": m.requests, "requested_signatures": m.requested,
		"signer_cpu_ms": m.cpuEach(m.signer), "receiver_cpu_ms": m.cpuEach(m.receiver),
		"signer_rss_bytes": m.signer.RSS, "receiver_rss_bytes": m.receiver.RSS,
	})
}

func (m *measure) requestsEach() string {
	if m.requests == nil {
		return "-"
	}
	all := 0
	for _, count := range m.requests {
		all += count
	}
	return fmt.Sprintf("%.2f", float64(all)/float64(m.requested))
}

// kinds says which requests a signature costs.
func (m *measure) kinds() string {
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(m.requests)) {
		if m.requests[kind] > 0 {
			kinds = append(kinds, fmt.Sprintf("%s %.2f", kind, float64(m.requests[kind])/float64(m.requested)))
		}
	}
	return strings.Join(kinds, ", ")
}

// cpuEach is in milliseconds.
func (m *measure) cpuEach(u harness.Usage) float64 {
	return float64(u.CPU.Microseconds()) / 1000 / float64(m.signatures)
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// backlog pushes and queues images while the signer is away, and measures how it catches up.
func (b *bench) backlog(ctx context.Context, n int) (*measure, error) {
	b.say("pushing and queueing %d images", n)
	signer := b.system.Signers[0]
	// It was there for its first sweep, which would look at everything otherwise.
	if err := b.idle(ctx); err != nil {
		return nil, err
	}
	if err := signer.Process.Stop(); err != nil {
		return nil, err
	}
	if err := b.silence(ctx, true); err != nil {
		return nil, err
	}
	if err := b.each(ctx, n, func(ctx context.Context, p harness.Pushed) error { return b.report(ctx, p) }); err != nil {
		return nil, err
	}
	if err := b.silence(ctx, false); err != nil {
		return nil, err
	}
	b.say("signing them")
	// Requests are counted from before the start to after the end. The start of the program and the reading of its key are
	// left out of time and CPU: they run from the first signatures on.
	zero, err := b.requests(ctx)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	if err := b.system.StartProgram(ctx, signer); err != nil {
		return nil, err
	}
	b.ready = time.Since(started)
	first, err := b.await(ctx, 1)
	if err != nil {
		return nil, err
	}
	last, err := b.await(ctx, n)
	if err != nil {
		return nil, err
	}
	m := last.since(first)
	if m.requests, err = b.requests(ctx); err != nil {
		return nil, err
	}
	for kind, count := range zero {
		m.requests[kind] -= count
	}
	m.requested = n
	return m, b.idle(ctx)
}

// live pushes images while the signer works.
func (b *bench) live(ctx context.Context, n int) (*measure, error) {
	b.say("pushing %d images while they are signed", n)
	before, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	pushed := make(chan harness.Pushed, n)
	if err := b.each(ctx, n, func(_ context.Context, p harness.Pushed) error { pushed <- p; return nil }); err != nil {
		return nil, err
	}
	close(pushed)
	after, err := b.await(ctx, before.signed+n)
	if err != nil {
		return nil, err
	}
	m := after.since(before)
	if err := b.idle(ctx); err != nil {
		return nil, err
	}
	rows, err := b.system.Report().Rows(ctx, map[string][]string{"limit": {"1000"}})
	if err != nil {
		return nil, err
	}
	live := make(map[string]bool, n)
	for p := range pushed {
		live[p.Digest] = true
	}
	for _, row := range rows {
		if live[row.Digest] && row.SignedAt != nil && row.ReceivedAt != nil {
			m.latencies = append(m.latencies, row.SignedAt.Sub(*row.ReceivedAt))
		}
	}
	if len(m.latencies) != n {
		return nil, fmt.Errorf("%d of %d images are signed in the report", len(m.latencies), n)
	}
	return m, nil
}

// each pushes images, as many at once as there are slots, and calls f for each.
func (b *bench) each(ctx context.Context, n int, f func(context.Context, harness.Pushed) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.slots)
	first := b.images
	b.images += n
	for i := range n {
		g.Go(func() error {
			img, err := harness.NewImage(false)
			if err != nil {
				return err
			}
			p, err := b.developer.Push(ctx, fmt.Sprintf("%s/app%d", project, i%b.slots), fmt.Sprintf("v%d", first+i), img)
			if err != nil {
				return err
			}
			return f(ctx, p)
		})
	}
	return g.Wait()
}

// await waits until the signer's process has made so many signatures.
func (b *bench) await(ctx context.Context, signatures int) (snapshot, error) {
	var now snapshot
	err := harness.Until(ctx, limit, func(ctx context.Context) error {
		var err error
		if now, err = b.look(ctx); err == nil && now.signed < signatures {
			err = fmt.Errorf("%d of %d signatures are made", now.signed, signatures)
		}
		return err
	})
	return now, err
}

func (b *bench) look(ctx context.Context) (snapshot, error) {
	signer := b.system.Signers[0]
	m, err := b.system.Metrics(ctx, signer)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{at: time.Now(), signed: int(m.Sum("harborseal_signing_outcomes_total", `how="made"`, `outcome="signed"`))}
	if s.signer, err = signer.Process.Usage(); err != nil {
		return snapshot{}, err
	}
	s.receiver, err = b.system.Receiver.Process.Usage()
	return s, err
}

// requests counts what came to the registry and its token service so far, by kind. What this process asks of Harbor's API
// is left out.
func (b *bench) requests(ctx context.Context) (map[string]int, error) {
	stats, err := b.harbor.Stats(ctx)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(stats.Requests, func(kind string, _ int) bool {
		return strings.HasSuffix(kind, " other") || strings.HasSuffix(kind, " api")
	})
	return stats.Requests, nil
}

// idle waits until no webhook is on its way and nothing is in work.
func (b *bench) idle(ctx context.Context) error {
	return harness.Until(ctx, limit, func(ctx context.Context) error {
		stats, err := b.harbor.Stats(ctx)
		if err != nil {
			return err
		}
		m, err := b.system.Metrics(ctx, b.system.Signers[0])
		if err == nil && (stats.Webhooks.Pending > 0 || m.InFlight() > 0) {
			err = errors.New("webhooks or requests are in work")
		}
		return err
	})
}

// silence lets Harbor report nothing, so that requests are made by this program alone.
func (b *bench) silence(ctx context.Context, silent bool) error {
	b.webhook.Disabled = silent
	return b.harbor.UpdateWebhook(ctx, b.webhook)
}

// report tells the receiver of a push, as Harbor would.
func (b *bench) report(ctx context.Context, p harness.Pushed) error {
	_, repository, _ := strings.Cut(p.Repository, "/")
	body := harness.Delivery(project, repository, p.Digest, p.Tag)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.system.WebhookAddress(project), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("reporting a push: %w", err)
	}
	req.Header.Set("Authorization", b.system.WebhookAuth)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("reporting a push: %w", err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("reporting a push: the answer is %d, %w", resp.StatusCode, err)
	}
	return nil
}
