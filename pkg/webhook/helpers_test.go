package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	authorization = "Bearer hook-secret-1"
	ownRobot      = "robot$harborseal"
	digestA       = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB       = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

var now = time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)

// queue is a Queue in memory: a ledger that keeps the first event of an id, and one waiting request for each reference.
type queue struct {
	mu       sync.Mutex
	events   []artifact.Event
	requests []artifact.Request
	calls    []string
	// record and enqueue, where set, are asked first.
	record  func(context.Context, artifact.Event) error
	enqueue func(context.Context, artifact.Request) error
}

func (q *queue) Record(ctx context.Context, e artifact.Event) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, "record")
	if q.record != nil {
		if err := q.record(ctx, e); err != nil {
			return 0, err
		}
	}
	for i, known := range q.events {
		if known.ID == e.ID {
			return uint64(i + 1), nil
		}
	}
	q.events = append(q.events, e)
	return uint64(len(q.events)), nil
}

func (q *queue) Enqueue(ctx context.Context, r artifact.Request) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, "enqueue")
	if q.enqueue != nil {
		if err := q.enqueue(ctx, r); err != nil {
			return false, err
		}
	}
	if slices.ContainsFunc(q.requests, func(known artifact.Request) bool { return known.Ref == r.Ref }) {
		return true, nil
	}
	q.requests = append(q.requests, r)
	return false, nil
}

// policies enables the projects of the list; an error instead means not loaded.
type policies struct {
	enabled      []string
	err          error
	mode         policy.Mode // sign if it is empty
	rate         policy.Rate
	repositories policy.Globs
	suspendedFor int64
}

func (p policies) Policy(_ context.Context, project string) (policy.Policy, error) {
	found := policy.Policy{Project: project, Revision: "r1"}
	if slices.Contains(p.enabled, project) {
		found.Mode, found.Manager = policy.ModeSign, policy.ByAPI
		if p.mode != "" {
			found.Mode = p.mode
		}
	}
	found.Rate, found.Repositories, found.SuspendedFor = p.rate, p.repositories, p.suspendedFor
	return found, p.err
}

// door is a handler behind the engine that it has in production.
type door struct {
	engine  *gin.Engine
	queue   *queue
	log     *bytes.Buffer
	gather  *prometheus.Registry
	handler *webhook.Handler
}

func newDoor(t *testing.T, change func(*webhook.Config)) *door {
	t.Helper()
	d := &door{queue: &queue{}, log: &bytes.Buffer{}, gather: prometheus.NewRegistry()}
	logger := zerolog.New(zerolog.SyncWriter(d.log))
	cfg := webhook.Config{
		SecretFiles:  []string{secretFile(t, authorization)},
		OwnOperators: []string{ownRobot},
		HarborName:   "main",
		Policies:     policies{enabled: []string{"demo"}},
		Queue:        d.queue,
		Now:          func() time.Time { return now },
		Logger:       logger,
		Registerer:   d.gather,
	}
	if change != nil {
		change(&cfg)
	}
	handler, err := webhook.New(cfg)
	if err != nil {
		t.Fatalf("New() error = %v", err)
	}
	d.engine, err = httpserver.NewEngine(logger, d.gather, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.handler = handler
	handler.Register(d.engine)
	return d
}

func secretFile(t *testing.T, value string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	writeSecret(t, path, value)
	return path
}

// writeSecret replaces the file in one step, as an operator should.
func writeSecret(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// do sends r and gives the answer.
func (d *door) do(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	d.engine.ServeHTTP(rec, r)
	return rec
}

// post makes an authorized request in the Default format.
func post(t *testing.T, project, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/harbor/"+project, strings.NewReader(body))
	r.Header.Set("Authorization", authorization)
	r.Header.Set("Content-Type", "application/json")
	return r
}

// payload is what goes into a delivery; its zero value is a valid push of demo/app:v1.
type payload struct {
	kind, operator, namespace, repository, digest, tag string
	at                                                 time.Time
}

func (p payload) withDefaults() payload {
	for _, f := range []struct {
		value    *string
		fallback string
	}{
		{&p.operator, "admin"},
		{&p.repository, "demo/app"},
		{&p.digest, digestA},
		{&p.tag, "v1"},
	} {
		if *f.value == "" {
			*f.value = f.fallback
		}
	}
	if p.namespace == "" {
		p.namespace, _, _ = strings.Cut(p.repository, "/")
	}
	if p.at.IsZero() {
		p.at = now
	}
	return p
}

// encode writes p as Harbor does.
func (p payload) encode(tb testing.TB, format webhook.Format) string {
	tb.Helper()
	p = p.withDefaults()
	_, name, _ := strings.Cut(p.repository, "/")
	data := map[string]any{
		"resources":  []any{map[string]any{"digest": p.digest, "tag": p.tag, "resource_url": "harbor.invalid/" + p.repository}},
		"repository": map[string]any{"date_created": 1, "name": name, "namespace": p.namespace, "repo_full_name": p.repository, "repo_type": "private"},
	}
	kind, document := "PUSH_ARTIFACT", map[string]any{"occur_at": p.at.Unix(), "operator": p.operator, "event_data": data}
	if format == webhook.CloudEvents {
		kind, document = "harbor.artifact.pushed", map[string]any{
			"specversion": "1.0", "id": "x", "source": "/projects/2/webhook/policies/2", "datacontenttype": "application/json",
			"time": p.at.Format(time.RFC3339), "operator": p.operator, "requestid": "y", "data": data,
		}
	}
	document["type"] = kind
	if p.kind != "" {
		document["type"] = p.kind
	}
	raw, err := json.Marshal(document)
	if err != nil {
		tb.Fatal(err)
	}
	return string(raw)
}

func answerOf(t *testing.T, rec *httptest.ResponseRecorder) webhook.Answer {
	t.Helper()
	var a webhook.Answer
	if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
		t.Fatalf("answer %q: %v", rec.Body, err)
	}
	return a
}
