package harbortest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"
)

const (
	hookWorkers  = 10
	hookAttempts = 3
	// wakeBelow is the longest idle sleep, after scaling, that is replaced by waking the workers at once.
	wakeBelow       = 50 * time.Millisecond
	maxHookResponse = 64 << 10
)

// idleSleeps is how long a worker sleeps after finding its queue empty for the first, second, ... time; the last one
// repeats. It is what makes a webhook after a quiet time late and one in a busy time quick.
//
// SPEC: gocraft/work, the job library of Harbor's jobservice, polls with back-off: 0, 10, 100, 1000, then 5000 ms. The
// last one is 10 s here, because ten workers out of step then give the delays that were recorded after quiet times: 0.1
// to 3.6 s, 0.6 s in the middle, nine of ten under 2.1 s. In a busy time the first ones give 0.04 to 0.08 s.
func idleSleeps() []time.Duration {
	return []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second}
}

var errRefusedHook = errors.New("abnormal response code")

// delivery is one event on its way to one receiver.
type delivery struct {
	target      webhookTarget
	body        []byte // The same for all attempts, the id of a CloudEvent included.
	contentType string
	execution   *execution
	fails       int // Written by the worker that has the delivery.
}

// deliverer is Harbor's jobservice: ten workers on one queue.
type deliverer struct {
	h       *Harbor
	clients map[bool]*http.Client // By SkipCertVerify.
	wake    chan struct{}
	running sync.WaitGroup // Workers, and deliveries that wait for their next attempt.

	mu    sync.Mutex
	queue []*delivery   // Guarded by mu.
	open  int           // Deliveries neither delivered nor given up. Guarded by mu.
	idle  chan struct{} // Closed while open is 0. Guarded by mu.
}

func newDeliverer(h *Harbor) *deliverer {
	d := &deliverer{
		h: h, wake: make(chan struct{}, hookWorkers), idle: make(chan struct{}), clients: make(map[bool]*http.Client),
	}
	close(d.idle)
	for _, skip := range []bool{false, true} {
		d.clients[skip] = &http.Client{
			Timeout: h.cfg.WebhookTimeout,
			Transport: &http.Transport{
				MaxIdleConnsPerHost: hookWorkers,
				TLSClientConfig:     &tls.Config{InsecureSkipVerify: skip}, //nolint:gosec // the policy asks for it
			},
		}
	}
	return d
}

func (d *deliverer) start() {
	for range hookWorkers {
		d.running.Go(d.work)
	}
}

// wait returns when all workers have ended; Harbor.ctx must be cancelled before.
func (d *deliverer) wait() {
	d.running.Wait()
	for _, client := range d.clients {
		client.CloseIdleConnections()
	}
}

// enqueue takes a new delivery. It does not block.
func (d *deliverer) enqueue(item *delivery) {
	d.h.counters.webhook(func(w *WebhookStats) { w.Events++; w.Pending++ })
	d.mu.Lock()
	if d.open == 0 {
		d.idle = make(chan struct{})
	}
	d.open++
	d.mu.Unlock()
	d.put(item)
}

func (d *deliverer) put(item *delivery) {
	d.mu.Lock()
	d.queue = append(d.queue, item)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default: // As many wake-ups are waiting as there are workers, and each worker empties the queue.
	}
}

func (d *deliverer) take() *delivery {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return nil
	}
	item := d.queue[0]
	d.queue[0] = nil
	d.queue = d.queue[1:]
	return item
}

// work is one worker.
func (d *deliverer) work() {
	sleeps := idleSleeps()
	longest := sleeps[len(sleeps)-1]
	scaled := func(sleep time.Duration) time.Duration {
		return time.Duration(float64(sleep) * d.h.cfg.DeliveryDelayScale)
	}
	// The workers of a Harbor that runs for a while sleep out of step.
	if scaled(longest) >= wakeBelow && !d.h.pause(d.h.ctx, scaled(time.Duration(float64(longest)*d.h.random()))) {
		return
	}
	misses := len(sleeps) - 1
	for d.h.ctx.Err() == nil {
		if item := d.take(); item != nil {
			misses = 0
			d.attempt(item)
			continue
		}
		if scaled(longest) < wakeBelow {
			select {
			case <-d.wake:
			case <-d.h.ctx.Done():
			}
			continue
		}
		if !d.h.pause(d.h.ctx, scaled(sleeps[min(misses, len(sleeps)-1)])) {
			return
		}
		misses++
	}
}

// attempt tries a delivery once and decides what comes after: nothing, another attempt later, or giving up.
func (d *deliverer) attempt(item *delivery) {
	started := storedNow()
	err := d.post(item)
	if d.h.ctx.Err() != nil {
		return
	}
	failed := err != nil
	if failed {
		item.fails++
	}
	final := !failed || item.fails >= hookAttempts
	d.h.record(item, started, err, final)
	d.h.log.Info().Err(err).Str("address", item.target.Address).Int("fails", item.fails).Msg("webhook attempt")
	d.h.counters.webhook(func(w *WebhookStats) {
		w.Attempts++
		switch {
		case !failed:
			w.Delivered++
			w.Pending--
		case final:
			w.GivenUp++
			w.Pending--
		}
	})
	if final {
		d.finish()
		return
	}
	gap := time.Duration(float64(retryGap(item.fails, d.h.random())) * d.h.cfg.RetryScale)
	d.running.Go(func() {
		if d.h.pause(d.h.ctx, gap) {
			d.put(item)
		}
	})
}

func (d *deliverer) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if d.open == 0 {
		close(d.idle)
	}
}

// retryGap is the wait after a failure, for random in [0,1).
//
// SPEC: gocraft/work: fails^4 + 15 + rand(0..29)*(fails+1) seconds: 16 to 74 s, then 31 to 118 s.
func retryGap(fails int, random float64) time.Duration {
	const steps = 30
	s := math.Pow(float64(fails), 4) + 15 + math.Floor(random*steps)*float64(fails+1)
	return time.Duration(s * float64(time.Second))
}

// post makes one HTTP request. Redirects are followed as net/http does: a 302 as a GET without the body.
func (d *deliverer) post(item *delivery) error {
	req, err := http.NewRequestWithContext(d.h.ctx, http.MethodPost, item.target.Address, bytes.NewReader(item.body))
	if err != nil {
		return fmt.Errorf("building the webhook: %w", err)
	}
	if item.target.AuthHeader != "" {
		req.Header.Set("Authorization", item.target.AuthHeader)
	}
	req.Header.Set("Content-Type", item.contentType)
	res, err := d.clients[item.target.SkipCertVerify].Do(req)
	if err != nil {
		return fmt.Errorf("sending the webhook: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxHookResponse)) // Read, too, so that the connection is used again.
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%w: %d, body: %s", errRefusedHook, res.StatusCode, body)
	}
	return nil
}

// record writes an attempt into the execution and its task.
func (h *Harbor) record(item *delivery, started time.Time, failure error, final bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := storedNow()
	e, t := item.execution, item.execution.task
	t.runs++
	t.started, t.updated = started, now
	t.write(started, "INFO", "start to run webhook job")
	t.write(started, "INFO", "send request to remote endpoint, body: %s", item.body)
	if failure != nil {
		t.write(now, "ERROR", "exit webhook job, error: %s", failure)
	} else {
		t.write(now, "INFO", "success to run webhook job")
	}
	if !final {
		return
	}
	e.status = statusSuccess
	if failure != nil {
		e.status = statusError
	}
	t.status, t.finish, e.ended = e.status, now, now
}

// WaitWebhooks returns when every webhook is delivered, lost or given up, or when ctx ends.
func (h *Harbor) WaitWebhooks(ctx context.Context) error {
	h.hooks.mu.Lock()
	idle := h.hooks.idle
	h.hooks.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for webhooks: %w", ctx.Err())
	}
}
