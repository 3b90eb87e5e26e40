package enroll_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// The real adapters are what the ports ask for.
var (
	_ enroll.Queue             = (*queue.Client)(nil)
	_ enroll.Journal           = (*queue.Client)(nil)
	_ enroll.Harbor            = (*harbor.Client)(nil)
	_ enroll.Caller            = (*harbor.Client)(nil)
	_ preflight.SignerHarbor   = (*harbor.Client)(nil)
	_ preflight.ReceiverHarbor = (*harbor.Client)(nil)
	_ preflight.Asker          = (*queue.Client)(nil)
)

// basic is the header of the emulator's admin.
func basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+harbortest.DefaultAdminPassword))
}

// call asks the emulator's own API.
func call(t *testing.T, h *harbortest.Harbor, method, path, body string, want int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.URL()+"/api/v2.0"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", basic())
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // a test
	if answer.StatusCode != want {
		text, _ := io.ReadAll(answer.Body)
		t.Fatalf("%s %s = %d %s, want %d", method, path, answer.StatusCode, text, want)
	}
}

type oneKey struct{}

func (oneKey) KeyID(string) (string, bool) { return "id", true }

// real is a receiver on the emulator and an embedded queue, with a signer that answers.
type real struct {
	harbor  *harbortest.Harbor
	client  *harbor.Client
	queue   *queue.Client
	book    *book.Book
	service *enroll.Service
}

func newReal(t *testing.T) *real {
	t.Helper()
	r := &real{harbor: harbortest.New(t, harbortest.Config{DeliveryDelayScale: 0.001}), book: book.New(policy.Terms{})}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	var err error
	r.client, err = harbor.New(harbor.Config{URL: r.harbor.URL(), Username: "admin", SecretFile: masterFile(t, harbortest.DefaultAdminPassword), Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	r.queue = queuetest.Connect(t, queue.Config{Server: queuetest.NewServer(t), Harbor: "main"})
	if err := r.queue.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	t.Cleanup(sink.Close)
	signer := preflight.ForSigner{Harbor: r.client, Keys: oneKey{}, Account: "admin"}
	ctx, cancel := context.WithCancel(t.Context())
	loaded, ended := make(chan struct{}), make(chan error, 2)
	go func() {
		ended <- r.queue.WatchPolicies(ctx, r.book.Apply, func() { r.book.Loaded(); close(loaded) }, nil)
	}()
	go func() { ended <- r.queue.Answer(ctx, preflight.Topic, 2, preflight.Handler(signer.Check)) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("watching or answering ended with %v", err)
			}
		}
	})
	select {
	case <-loaded:
	case <-time.After(10 * time.Second):
		t.Fatal("the policies were not loaded within 10s")
	}
	r.service, err = enroll.New(enroll.Config{
		HarborName: "main", Harbor: r.client, Account: "admin", Queue: r.queue, Book: r.book, WebhookURL: sink.URL,
		As: func(authorization string) enroll.Caller { return r.client.As(authorization) }, MasterFiles: []string{masterFile(t, masterText)},
		ThoroughEvery: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// put retries while no signer answers yet.
func (r *real) put(t *testing.T, project string, req enroll.PutRequest, ifMatch string) enroll.View {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		v, err := r.service.Put(t.Context(), enroll.Actor{Name: "admin", From: "192.0.2.1", Authorization: basic()}, project, req, ifMatch)
		if err == nil {
			return v
		}
		if !strings.Contains(err.Error(), "signer") || time.Now().After(deadline) {
			t.Fatalf("Put: %v", err)
		}
	}
}

// events reads the ledger.
func (r *real) events(t *testing.T, want int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var kinds []string
	_ = r.queue.Events(ctx, 0, func(_ context.Context, entries []artifact.Entry) error {
		for _, e := range entries {
			kinds = append(kinds, strings.TrimSpace(string(e.Event.Kind)+" "+e.Event.Reason))
		}
		if len(kinds) >= want {
			cancel()
		}
		return nil
	})
	return kinds
}

func TestWithTheRealQueueAndTheEmulator(t *testing.T) {
	r := newReal(t)
	const project = "2024" // Harbor takes it for an id where one is careless
	call(t, r.harbor, http.MethodPost, "/projects", fmt.Sprintf(`{"project_name":%q}`, project), http.StatusCreated)
	first := r.put(t, project, all(), "")
	if !first.Enabled || !first.Webhook.OK {
		t.Fatalf("Put = %+v, want it enabled with a webhook", first)
	}
	hooks := func() []artifact.Webhook {
		t.Helper()
		all, err := r.client.Webhooks(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := hooks(); len(all) != 1 || all[0].Name != "harborseal" || !all[0].Enabled {
		t.Fatalf("webhooks = %+v, want ours", all)
	}
	wantAccepts(t, r.service, "what Harbor has", project, hooks()[0].AuthHeader, true)

	// Deleted by hand, then repaired.
	if err := r.client.DeleteWebhook(t.Context(), project, hooks()[0].ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.service.Check(t.Context(), project); err != nil {
			t.Fatalf("Check: %v", err)
		}
	}
	if all := hooks(); len(all) != 1 || !all[0].Enabled {
		t.Fatalf("webhooks = %+v, want ours again", all)
	}
	before := hooks()[0].AuthHeader
	if _, err := r.service.Rotate(t.Context(), alice, project); err != nil {
		t.Fatalf("Rotate: %v", err)
	}
	if after := hooks()[0].AuthHeader; after == before {
		t.Error("Harbor has the secret of before the rotation")
	}
	wantAccepts(t, r.service, "the secret of before", project, before, true)

	if _, err := r.service.Block(t.Context(), alice, project, digestA, "CVE-2026-1"); err != nil {
		t.Fatalf("Block: %v", err)
	}
	if err := r.service.Sweep(t.Context(), alice, project); err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	for range 2 {
		if _, err := r.service.Delete(t.Context(), alice, project, ""); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	if all := hooks(); len(all) != 0 {
		t.Errorf("webhooks = %+v, want none", all)
	}
	want := []string{"policy_changed", "drifted webhook_missing", "repaired webhook_missing", "policy_changed", "policy_changed", "policy_changed"}
	if got := r.events(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("ledger = %q, want %q", got, want)
	}
}

func TestTheEmulatorsProjectMadeAnew(t *testing.T) {
	r := newReal(t)
	call(t, r.harbor, http.MethodPost, "/projects", `{"project_name":"demo"}`, http.StatusCreated)
	v := r.put(t, "demo", all(), "")
	call(t, r.harbor, http.MethodDelete, "/projects/demo", "", http.StatusOK)
	if err := r.service.Check(t.Context(), "demo"); err != nil {
		t.Fatalf("Check of a project that is gone: %v", err)
	}
	call(t, r.harbor, http.MethodPost, "/projects", `{"project_name":"demo"}`, http.StatusCreated)
	if err := r.service.Check(t.Context(), "demo"); err != nil {
		t.Fatalf("Check of a project made anew: %v", err)
	}
	got, err := r.service.Get(t.Context(), "demo")
	if err != nil || got.Enabled || got.SuspendedFor == 0 {
		t.Fatalf("Get = %+v, %v; want it suspended", got, err)
	}
	again := r.put(t, "demo", enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeObserve}, Backfill: "none"}, v.ETag)
	if !again.Enabled || again.ProjectID == v.ProjectID || again.SuspendedFor != 0 {
		t.Errorf("Put = %+v, want it enabled for the new project", again)
	}
	want := []string{"policy_changed", "drifted project_gone", "repaired project_gone", "drifted project_replaced", "policy_changed", "repaired project_replaced"}
	if events := r.events(t, len(want)); !slices.Equal(events, want) {
		t.Errorf("ledger = %q, want %q", events, want)
	}
}
