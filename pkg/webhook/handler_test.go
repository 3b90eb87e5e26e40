package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// planted is a secret of a stranger: like the configured one, it must come out nowhere.
const planted = "Bearer stranger-secret-2"

func TestAnswers(t *testing.T) {
	full := fault.New(fault.Transient, fault.QueueFull, errors.New("stream is full"))
	away := errors.New("no responders")
	media := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Content-Type", value) }
	}
	auth := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Authorization"] = values }
	}
	tests := []struct {
		name    string
		project string // in the path; demo if empty
		payload payload
		body    string // instead of payload
		config  func(*webhook.Config)
		queue   *queue
		request func(*http.Request)

		status  int
		answer  string // status and reason of a 202
		field   string // of a 400
		detail  string // part of a refusal's detail
		outcome string
		calls   string
	}{
		{name: "push", status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{name: "charset", request: media("application/json; charset=utf-8"), status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{name: "push by digest", payload: payload{tag: digestA}, status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{name: "image of our own robot", payload: payload{operator: ownRobot}, status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{
			name: "one is waiting", queue: &queue{requests: []artifact.Request{{Ref: ref("demo/app")}}},
			status: 202, answer: "duplicate ", outcome: "duplicate", calls: "record enqueue",
		},
		{name: "another event", payload: payload{kind: "PULL_ARTIFACT"}, status: 202, answer: "ignored not_a_push", outcome: "ignored"},
		{name: "another event, policies not loaded", payload: payload{kind: "PULL_ARTIFACT"}, config: notLoaded, status: 202, answer: "ignored not_a_push", outcome: "ignored"},
		{
			name: "mode observe", config: func(c *webhook.Config) { c.Policies = policies{enabled: []string{"demo"}, mode: policy.ModeObserve} },
			status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue",
		},
		{
			name: "another project stands under the name", config: func(c *webhook.Config) { c.Policies = policies{enabled: []string{"demo"}, suspendedFor: 7} },
			status: 202, answer: "ignored project_suspended", outcome: "ignored",
		},
		{
			name: "repository out of scope", config: excluding("team/**"), payload: payload{repository: "demo/team/app"},
			status: 202, answer: "ignored repository_out_of_scope", outcome: "ignored",
		},
		{name: "repository beside what is out of scope", config: excluding("team/**"), status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{name: "project not enabled", project: "other", payload: payload{repository: "other/app"}, status: 202, answer: "ignored project_not_enabled", outcome: "ignored"},
		{name: "signature tag", payload: payload{tag: accessoryTag(".sig")}, status: 202, answer: "ignored accessory", outcome: "ignored"},
		{name: "attestation tag", payload: payload{tag: accessoryTag(".att")}, status: 202, answer: "ignored accessory", outcome: "ignored"},
		{name: "sbom tag", payload: payload{tag: accessoryTag(".sbom")}, status: 202, answer: "ignored accessory", outcome: "ignored"},
		{name: "nearly a signature tag", payload: payload{tag: accessoryTag(".sig2")}, status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{name: "our own signature", payload: payload{operator: ownRobot, tag: digestA}, status: 202, answer: "ignored own_signature", outcome: "ignored"},

		{name: "no authorization", request: auth(), status: 401, outcome: "unauthorized"},
		{name: "wrong authorization", request: auth(planted), status: 401, outcome: "unauthorized"},
		{name: "part of the authorization", request: auth(authorization[:10]), status: 401, outcome: "unauthorized"},
		{name: "empty authorization", request: auth(""), status: 401, outcome: "unauthorized"},
		{name: "two authorizations", request: auth(planted, authorization), status: 401, outcome: "unauthorized"},
		{name: "two authorizations, the right one first", request: auth(authorization, planted), status: 401, outcome: "unauthorized"},
		{name: "unauthorized and all else wrong", request: func(r *http.Request) { auth(planted)(r); media("x")(r) }, body: "{", status: 401, outcome: "unauthorized"},
		{name: "no media type", request: func(r *http.Request) { r.Header.Del("Content-Type") }, status: 415, outcome: "unsupported_media_type"},
		{name: "another media type", request: media("text/json"), status: 415, outcome: "unsupported_media_type"},
		{name: "batched cloud events", request: media("application/cloudevents-batch+json"), status: 415, outcome: "unsupported_media_type"},
		{name: "compressed", request: func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, status: 415, outcome: "unsupported_media_type"},
		{name: "too large", body: strings.Repeat(" ", 256<<10+1), status: 413, outcome: "too_large"},
		{
			name: "too large, not announced", body: strings.Repeat(" ", 256<<10+1),
			request: func(r *http.Request) { r.ContentLength = -1 }, status: 413, outcome: "too_large",
		},
		{name: "as large as allowed", body: payload{}.encode(t, webhook.Default) + strings.Repeat(" ", 255<<10), status: 202, answer: "queued ", outcome: "queued", calls: "record enqueue"},
		{name: "a field is wrong", payload: payload{digest: "sha256:x"}, status: 400, field: "event_data.resources[0].digest", outcome: "invalid"},
		{name: "other format than announced", request: media("application/cloudevents+json"), status: 400, field: "specversion", outcome: "invalid"},
		{name: "no JSON", body: "x", status: 400, outcome: "invalid"},
		{name: "path of another project", project: "other", status: 400, field: "event_data.repository.namespace", detail: `"other"`, outcome: "invalid"},
		{
			name: "body of another project", payload: payload{namespace: "demo", repository: "other/app"},
			status: 400, field: "event_data.repository.namespace", detail: `"other/app"`, outcome: "invalid",
		},
		{name: "policies not loaded", config: notLoaded, status: 503, detail: "policies", outcome: "unavailable"},
		{name: "event not recorded", queue: &queue{record: func(context.Context, artifact.Event) error { return away }}, status: 503, detail: "did not acknowledge", outcome: "unavailable", calls: "record"},
		{name: "request not queued", queue: &queue{enqueue: func(context.Context, artifact.Request) error { return away }}, status: 503, detail: "did not acknowledge", outcome: "unavailable", calls: "record enqueue"},
		{name: "queue full", queue: &queue{enqueue: func(context.Context, artifact.Request) error { return full }}, status: 503, detail: "full", outcome: "unavailable", calls: "record enqueue"},
		{
			name: "permanent fault of the queue", queue: &queue{record: func(context.Context, artifact.Event) error { return fault.New(fault.Permanent, fault.Denied, away) }},
			status: 503, outcome: "unavailable", calls: "record",
		},
		{name: "panic", queue: &queue{record: func(context.Context, artifact.Event) error { panic("boom") }}, status: 500, outcome: "panic", calls: "record"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.queue == nil {
				tt.queue = &queue{}
			}
			d := newDoor(t, func(c *webhook.Config) {
				c.Queue = tt.queue
				if tt.config != nil {
					tt.config(c)
				}
			})
			project, body := tt.project, tt.body
			if project == "" {
				project = "demo"
			}
			if body == "" {
				body = tt.payload.encode(t, webhook.Default)
			}
			r := post(t, project, body)
			if tt.request != nil {
				tt.request(r)
			}
			rec := d.do(r)

			if rec.Code != tt.status {
				t.Errorf("status = %d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			if got := strings.Join(tt.queue.calls, " "); got != tt.calls {
				t.Errorf("calls of the queue = %q, want %q", got, tt.calls)
			}
			checkBody(t, rec, tt.answer, tt.field, tt.detail)
			checkHeaders(t, rec)
			checkCounted(t, d, tt.outcome)
			checkNoSecret(t, d, rec)
			if lines := strings.Count(d.log.String(), `"outcome":`); tt.status != 500 && lines != 1 {
				t.Errorf("%d decisions in the log, want 1:\n%s", lines, d.log)
			}
		})
	}
}

func excluding(glob string) func(*webhook.Config) {
	return func(c *webhook.Config) {
		c.Policies = policies{enabled: []string{"demo"}, repositories: policy.Globs{Exclude: []string{glob}}}
	}
}

func notLoaded(c *webhook.Config) { c.Policies = policies{err: errors.New("bucket not read yet")} }

func accessoryTag(suffix string) string { return "sha256-" + strings.Repeat("c", 64) + suffix }

// ref names digestA in the repository.
func ref(repository string) artifact.Ref {
	r, err := artifact.NewRef(repository, digestA)
	if err != nil {
		panic(err)
	}
	return r
}

func checkBody(t *testing.T, rec *httptest.ResponseRecorder, answer, field, detail string) {
	t.Helper()
	if answer != "" {
		if got := answerOf(t, rec); got.Status+" "+got.Reason != answer || (got.CorrelationID == "") != (got.Status == "ignored") {
			t.Errorf("answer = %+v, want %q", got, answer)
		}
		return
	}
	var got problem.Document
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Header().Get("Content-Type") != problem.ContentType {
		t.Fatalf("answer %q of type %q is no problem document: %v", rec.Body, rec.Header().Get("Content-Type"), err)
	}
	if got.Status != rec.Code || got.Field != field || got.Detail == "" || !strings.Contains(got.Detail, detail) {
		t.Errorf("problem = %+v, want status %d, field %q, detail with %q", got, rec.Code, field, detail)
	}
}

func checkHeaders(t *testing.T, rec *httptest.ResponseRecorder) {
	t.Helper()
	for name, statuses := range map[string][]int{
		"WWW-Authenticate": {401}, "Retry-After": {503}, "Connection": {401, 413, 415},
	} {
		if got, want := rec.Header().Get(name) != "", slices.Contains(statuses, rec.Code); got != want {
			t.Errorf("%s = %q with status %d, want it there: %t", name, rec.Header().Get(name), rec.Code, want)
		}
	}
}

func checkCounted(t *testing.T, d *door, outcome string) {
	t.Helper()
	families, err := d.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	var timed uint64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "harborseal_webhook_requests_total":
				if n := m.GetCounter().GetValue(); n != 0 {
					counted[m.GetLabel()[0].GetValue()] = n
				}
			case "harborseal_webhook_seconds":
				timed = m.GetHistogram().GetSampleCount()
			}
		}
	}
	if len(counted) != 1 || counted[outcome] != 1 || timed != 1 {
		t.Errorf("counted %v and %d times, want one %q and 1", counted, timed, outcome)
	}
}

func checkNoSecret(t *testing.T, d *door, rec *httptest.ResponseRecorder) {
	t.Helper()
	var header strings.Builder
	if err := rec.Header().Write(&header); err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{"header": header.String(), "body": rec.Body.String(), "log": d.log.String()} {
		for _, secret := range []string{"hook-secret-1", "stranger-secret-2"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds the secret %q:\n%s", place, secret, text)
			}
		}
	}
}

func TestMetricsArePublishedBeforeTheFirstDelivery(t *testing.T) {
	d := newDoor(t, nil)
	if n, err := testutil.GatherAndCount(d.gather, "harborseal_webhook_requests_total"); err != nil || n != 12 {
		t.Errorf("series of harborseal_webhook_requests_total = %d, %v; want 12", n, err)
	}
}

// untouchable fails the test when somebody reads it.
type untouchable struct{ t *testing.T }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (u untouchable) Close() error { return nil }

func TestTheBodyOfAStrangerIsNotRead(t *testing.T) {
	for _, tt := range []struct {
		name, header, value string
		length              int64
		status              int
	}{
		{"wrong secret", "Authorization", planted, 100, http.StatusUnauthorized},
		{"wrong media type", "Content-Type", "text/plain", 100, http.StatusUnsupportedMediaType},
		{"announced too large", "X-Any", "x", 256<<10 + 1, http.StatusRequestEntityTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := post(t, "demo", "")
			r.Body, r.ContentLength = untouchable{t}, tt.length
			r.Header.Set(tt.header, tt.value)
			if rec := newDoor(t, nil).do(r); rec.Code != tt.status {
				t.Errorf("status = %d, want %d", rec.Code, tt.status)
			}
		})
	}
}

func TestAPathOfAnotherProjectNamesTheFieldOfItsFormat(t *testing.T) {
	r := post(t, "other", payload{}.encode(t, webhook.CloudEvents))
	r.Header.Set("Content-Type", "application/cloudevents+json")
	rec := newDoor(t, nil).do(r)
	if rec.Code != http.StatusBadRequest {
		t.Errorf("status = %d, want 400", rec.Code)
	}
	checkBody(t, rec, "", "data.repository.namespace", `"demo"`)
}

func TestWhatIsPublished(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) {
		c.Policies = policies{enabled: []string{"demo"}, rate: policy.Rate{PerSecond: 1e-9, Burst: 1}}
	})
	d.do(post(t, "demo", payload{}.encode(t, webhook.Default))) // uses the project's budget up
	d.queue.events, d.queue.requests = nil, nil
	d.queue.events = []artifact.Event{{ID: "earlier"}}
	pushedAt := now.Add(-3 * time.Second)
	rec := d.do(post(t, "demo", payload{repository: "demo/team/app", operator: "dev", at: pushedAt}.encode(t, webhook.Default)))
	id := artifact.EventID(artifact.Received, ref("demo/team/app"), "main", "v1", "dev", "1795323597")
	if got := answerOf(t, rec); got.CorrelationID != id {
		t.Errorf("correlation id = %q, want %q", got.CorrelationID, id)
	}
	event := d.queue.events[1]
	if event.PushedAt == nil || !event.PushedAt.Equal(pushedAt) {
		t.Errorf("event has pushed_at %v, want %s", event.PushedAt, pushedAt)
	}
	event.PushedAt = nil
	wantEvent := artifact.Event{
		Version: artifact.Version, ID: id, Kind: artifact.Received, Ref: ref("demo/team/app"), Time: now, Actor: "dev",
		Origin: artifact.OriginWebhook, CorrelationID: id, Tag: "v1", Pusher: "dev",
	}
	if !reflect.DeepEqual(event, wantEvent) {
		t.Errorf("event = %+v, want %+v", event, wantEvent)
	}
	wantRequest := artifact.Request{
		Version: artifact.Version, Ref: ref("demo/team/app"), Lane: artifact.Bulk, Origin: artifact.OriginWebhook, Actor: "dev",
		CorrelationID: id, RequestedAt: now, ReceivedSeq: 2,
	}
	if got := d.queue.requests[0]; got != wantRequest {
		t.Errorf("request = %+v, want %+v", got, wantRequest)
	}
	// Both must survive their own encoding: what the queue refuses would never get in.
	if _, err := artifact.EncodeEvent(d.queue.events[1]); err != nil {
		t.Error(err)
	}
	if _, err := artifact.EncodeRequest(d.queue.requests[0]); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"project":"demo"`, `"repository":"demo/team/app"`, `"digest":"` + digestA, `"outcome":"queued"`, id} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("log has no %s:\n%s", want, d.log)
		}
	}
}

func TestARepetitionIsTheSameEvent(t *testing.T) {
	d := newDoor(t, nil)
	first := answerOf(t, d.do(post(t, "demo", payload{}.encode(t, webhook.Default))))
	r := post(t, "demo", payload{}.encode(t, webhook.CloudEvents))
	r.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	second := answerOf(t, d.do(r))
	if first.Status != "queued" || second.Status != "duplicate" || first.CorrelationID != second.CorrelationID {
		t.Errorf("answers = %+v and %+v, want queued and duplicate with one correlation id", first, second)
	}
	if len(d.queue.events) != 1 {
		t.Errorf("ledger has %d events, want 1", len(d.queue.events))
	}
	for name, p := range map[string]payload{
		"another tag": {tag: "v2"}, "another digest": {digest: digestB}, "another repository": {repository: "demo/b"},
		"another account": {operator: "dev"}, "another second": {at: now.Add(time.Second)}, "by digest": {tag: digestA},
	} {
		if other := answerOf(t, d.do(post(t, "demo", p.encode(t, webhook.Default)))); other.CorrelationID == first.CorrelationID {
			t.Errorf("%s: has the correlation id of the first push, want its own", name)
		}
	}
}

func TestSeveralResources(t *testing.T) {
	two := func(a, b map[string]any) string {
		return broken(t, webhook.Default, "event_data.resources", []any{a, b})
	}
	image, signature := map[string]any{"digest": digestA, "tag": "v1"}, map[string]any{"digest": digestB, "tag": accessoryTag(".sig")}

	d := newDoor(t, nil)
	got := answerOf(t, d.do(post(t, "demo", two(signature, image))))
	if got.Status != "queued" || len(got.Artifacts) != 2 || got.Artifacts[0].Reason != "accessory" || got.Artifacts[1].Status != "queued" {
		t.Errorf("answer = %+v, want queued, with the signature ignored and the image queued", got)
	}
	if len(d.queue.requests) != 1 || d.queue.requests[0].Ref.Digest() != digestA {
		t.Errorf("requests = %+v, want the image alone", d.queue.requests)
	}

	d = newDoor(t, nil)
	if rec := d.do(post(t, "demo", two(image, map[string]any{"digest": "x"}))); rec.Code != http.StatusBadRequest || d.queue.calls != nil {
		t.Errorf("status = %d, calls %v; want 400 and nothing published, because one of the two is wrong", rec.Code, d.queue.calls)
	}
}

// stuck waits until its context ends, as a queue does whose leader is away.
func stuck(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

type stuckPolicies struct{}

func (stuckPolicies) Policy(ctx context.Context, _ string) (policy.Policy, error) {
	return policy.Policy{}, stuck(ctx)
}

func TestNoAnswerTakesThreeSeconds(t *testing.T) {
	slow := func(ctx context.Context, d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tests := []struct {
		name   string
		config func(*webhook.Config)
	}{
		{"policies stuck", func(c *webhook.Config) { c.Policies = stuckPolicies{} }},
		{"record stuck", func(c *webhook.Config) {
			c.Queue = &queue{record: func(ctx context.Context, _ artifact.Event) error { return stuck(ctx) }}
		}},
		{"record slow, enqueue stuck", func(c *webhook.Config) {
			c.Queue = &queue{
				record:  func(ctx context.Context, _ artifact.Event) error { return slow(ctx, 1900*time.Millisecond) },
				enqueue: func(ctx context.Context, _ artifact.Request) error { return stuck(ctx) },
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoor(t, tt.config)
			r := post(t, "demo", payload{}.encode(t, webhook.Default))
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				rec := d.do(r.WithContext(t.Context()))
				if took := time.Since(start); took != 2*time.Second {
					t.Errorf("answer took %s, want the 2s of the publish timeout", took)
				}
				if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
					t.Errorf("status = %d, Retry-After %q; want 503 with a delay", rec.Code, rec.Header().Get("Retry-After"))
				}
			})
		})
	}
}

func TestARequestFollowsItsEventThoughTheClientIsGone(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	d := newDoor(t, nil)
	d.queue.record = func(context.Context, artifact.Event) error { hangUp(); return nil }
	d.queue.enqueue = func(ctx context.Context, _ artifact.Request) error { return ctx.Err() }
	d.do(post(t, "demo", payload{}.encode(t, webhook.Default)).WithContext(ctx))
	if len(d.queue.requests) != 1 {
		t.Errorf("requests = %d after the client hung up between event and request, want 1", len(d.queue.requests))
	}
}

func TestNewSaysAllThatIsWrong(t *testing.T) {
	_, err := webhook.New(webhook.Config{PublishTimeout: 3 * time.Second, MaxBody: -1, Rate: policy.Rate{Burst: -1}, OwnOperators: []string{""}})
	if err == nil {
		t.Fatal("New() of an empty configuration succeeded")
	}
	for _, want := range []string{"no name", "no policies", "no queue", "publish timeout 3s", "largest body", "rate", "own operator 0", "no webhook secret file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	registry := prometheus.NewRegistry()
	cfg := webhook.Config{SecretFiles: []string{secretFile(t, authorization)}, HarborName: "main", Policies: policies{}, Queue: &queue{}, Registerer: registry}
	if _, err := webhook.New(cfg); err != nil {
		t.Fatalf("New() with defaults: %v", err)
	}
	if _, err := webhook.New(cfg); err == nil {
		t.Error("New() registered its metrics twice without an error")
	}
}
