package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/problem"
	exported "github.com/harborseal/harborseal/pkg/report"
)

// inspected is package inspect with one answer.
type inspected struct {
	result inspect.Result
	report inspect.Report
	err    error
	hold   chan struct{} // what Verify waits for, once it has said so in arrived; nil for nothing

	arrived chan struct{}

	mu    sync.Mutex
	asked []inspect.Question // guarded by mu
}

func (i *inspected) Verify(ctx context.Context, q inspect.Question) (inspect.Result, error) {
	i.mu.Lock()
	i.asked = append(i.asked, q)
	i.mu.Unlock()
	if i.hold != nil {
		i.arrived <- struct{}{}
		select {
		case <-i.hold:
		case <-ctx.Done():
			return inspect.Result{}, ctx.Err()
		}
	}
	return i.result, i.err
}

func (i *inspected) Evidence(ctx context.Context, ref artifact.Ref) (inspect.Report, error) {
	if i.hold != nil {
		i.arrived <- struct{}{}
		select {
		case <-i.hold:
		case <-ctx.Done():
			return inspect.Report{}, ctx.Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, inspect.Of(ref))
	return i.report, i.err
}

func (i *inspected) questions() []inspect.Question {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// reportOf is a report about a manifest with one good legacy signature.
func reportOf(ref artifact.Ref, children ...string) inspect.Report {
	return inspect.Report{
		Repository: ref.Repository(), Digest: ref.Digest(), Verified: true, Problems: []inspect.Problem{}, Missing: []artifact.Format{}, Owed: []artifact.Format{},
		Signatures: []inspect.Signature{{
			Format: artifact.Legacy, Manifest: ref.Digest(), Blob: ref.Digest(), Verified: true, Key: &inspect.Key{ID: "1", Name: "images", State: "active"},
			Log: &inspect.LogEntry{Verified: true, Log: "rekor", Index: 7},
		}},
		Children: append([]string{}, children...), ChildrenTotal: len(children), CheckedAt: noon,
	}
}

// shown is what was recorded: who was shown what.
type shown []string

func (s *shown) Read(r exported.Reading) {
	*s = append(*s, strings.TrimSpace(r.Actor+" "+r.Project+" "+r.Path+" "+r.Parameters.Get("image")))
}

func (*shown) Exported(exported.Reading, exported.Format, exported.Result) {}

func withImages(i *inspected) func(*api.Config) {
	return func(cfg *api.Config) { cfg.Images = i }
}

func TestVerify(t *testing.T) {
	ref := ledgertest.Ref("demo/app", 1)
	digest := ref.Digest()
	byDigest := `{"image":"harbor.example.com/demo/app@` + digest + `"}`
	tests := []struct {
		name   string
		header http.Header
		body   string
		err    error
		status int
		field  string
		want   inspect.Question // what a signer is asked; zero for nothing
	}{
		{"by digest", as("ann"), byDigest, nil, 200, "", inspect.Of(ref)},
		{"by tag", as("ann"), `{"image":"harbor.example.com/demo/app:v1"}`, nil, 200, "", inspect.Question{Repository: "demo/app", Reference: "v1"}},
		{"by tag and digest", as("ann"), `{"image":"harbor.example.com/demo/app:v1@` + digest + `"}`, nil, 200, "", inspect.Of(ref)},
		{
			"with options", as("root"), `{"image":"harbor.example.com/demo/app:v1","formats":["legacy"],"key":"images"}`, nil, 200, "",
			inspect.Question{Repository: "demo/app", Reference: "v1", Formats: []artifact.Format{"legacy"}, Key: "images"},
		},
		{"a robot that may pull", as("robot$ci"), byDigest, nil, 200, "", inspect.Of(ref)},
		{"a robot that may not", as("robot$ci"), `{"image":"harbor.example.com/app/app:v1"}`, nil, 404, "", inspect.Question{}},
		{"a member of nothing", as("out"), byDigest, nil, 404, "", inspect.Question{}},
		{"a project that is not there", as("ann"), `{"image":"harbor.example.com/nothing/app:v1"}`, nil, 404, "", inspect.Question{}},
		{"nobody", nil, byDigest, nil, 401, "", inspect.Question{}},
		{"another host", as("root"), `{"image":"evil.example.com/demo/app:v1"}`, nil, 400, "image", inspect.Question{}},
		{"a host with a port", as("root"), `{"image":"harbor.example.com:8443/demo/app:v1"}`, nil, 400, "image", inspect.Question{}},
		{"no host", as("root"), `{"image":"demo/app:v1"}`, nil, 400, "image", inspect.Question{}},
		{"no image", as("root"), `{}`, nil, 400, "image", inspect.Question{}},
		{"an unknown format", as("root"), `{"image":"harbor.example.com/demo/app:v1","formats":["x"]}`, nil, 400, "formats", inspect.Question{}},
		{"a format twice", as("root"), `{"image":"harbor.example.com/demo/app:v1","formats":["legacy","legacy"]}`, nil, 400, "formats", inspect.Question{}},
		{"a long key", as("root"), `{"image":"harbor.example.com/demo/app:v1","key":"` + strings.Repeat("k", 300) + `"}`, nil, 400, "key", inspect.Question{}},
		{"an unknown field", as("root"), `{"image":"harbor.example.com/demo/app:v1","url":"http://evil"}`, nil, 400, "url", inspect.Question{}},
		{"no JSON", as("root"), `x`, nil, 400, "body", inspect.Question{}},
		{"not there", as("ann"), byDigest, fault.Newf(fault.Gone, fault.NotFound, "gone"), 404, "", inspect.Of(ref)},
		{"no signer answers", as("ann"), byDigest, fault.Newf(fault.Transient, fault.QueueUnavailable, "secret path"), 503, "", inspect.Of(ref)},
		{"Harbor is away", as("ann"), byDigest, fault.Newf(fault.Transient, fault.Unreachable, "secret path"), 503, "", inspect.Of(ref)},
		{"Harbor refuses the signer", as("ann"), byDigest, fault.Newf(fault.Permanent, fault.Denied, "denied"), 502, "", inspect.Of(ref)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			images := &inspected{result: inspect.Result{Verified: true, Complete: true, Manifests: []inspect.Report{reportOf(ref)}}, err: tt.err}
			var seen shown
			record := func(cfg *api.Config) { cfg.Reads = &seen }
			rec := open(t, &report{}, withImages(images), record).send(t, http.MethodPost, "/api/v1/verify", tt.header, tt.body)
			if rec.Code != tt.status {
				t.Fatalf("%d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			asked := append(images.questions(), inspect.Question{})[0]
			if got, want := text(t, asked), text(t, tt.want); got != want {
				t.Errorf("a signer was asked %s, want %s", got, want)
			}
			if tt.status == 200 != (len(seen) == 1) || len(seen) == 1 && !strings.HasSuffix(seen[0], " demo /api/v1/verify harbor.example.com/demo/app@"+digest) {
				t.Errorf("recorded is %q with %d", seen, tt.status)
			}
			if tt.status != 200 {
				var doc problem.Document
				if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || doc.Field != tt.field || strings.Contains(doc.Detail, "secret") {
					t.Errorf("%s, %v; want a problem about %q", rec.Body, err, tt.field)
				}
				return
			}
			var answer struct {
				Image, Tag string
				Verified   bool
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || answer.Image != "harbor.example.com/demo/app@"+digest || !answer.Verified {
				t.Errorf("%s, %v", rec.Body, err)
			}
			if want := strings.TrimPrefix(asked.Reference, digest); answer.Tag != want {
				t.Errorf("tag %q, want %q", answer.Tag, want)
			}
		})
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Without signers, from another origin, and as no JSON.
func TestVerifyDoors(t *testing.T) {
	body := `{"image":"harbor.example.com/demo/app:v1"}`
	if rec := open(t, &report{}).send(t, http.MethodPost, "/api/v1/verify", as("ann"), body); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("without anybody to ask: %d %s, want 503", rec.Code, rec.Body)
	}
	images := &inspected{}
	d := open(t, &report{}, withImages(images))
	foreign := as("ann")
	foreign.Set("Sec-Fetch-Site", "cross-site")
	if rec := d.send(t, http.MethodPost, "/api/v1/verify", foreign, body); rec.Code != http.StatusForbidden {
		t.Errorf("from another origin: %d, want 403", rec.Code)
	}
	form := as("ann")
	form.Set("Content-Type", "text/plain")
	if rec := d.send(t, http.MethodPost, "/api/v1/verify", form, body); rec.Code != http.StatusUnsupportedMediaType {
		t.Errorf("as text: %d, want 415", rec.Code)
	}
	if n := len(images.questions()); n > 0 {
		t.Errorf("signers were asked %d times", n)
	}
}

// A caller who asks for much at once is told to wait, and others are not.
func TestVerifyAtOnce(t *testing.T) {
	ref := ledgertest.Ref("demo/app", 1)
	images := &inspected{result: inspect.Result{Manifests: []inspect.Report{reportOf(ref)}}, hold: make(chan struct{}), arrived: make(chan struct{}, 10)}
	d := open(t, &report{}, withImages(images))
	body := `{"image":"harbor.example.com/demo/app:v1"}`
	codes := make(chan int, 5)
	ask := func(who string) {
		req := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, "/api/v1/verify", strings.NewReader(body))
		req.Header = as(who)
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		d.handler.ServeHTTP(rec, req)
		codes <- rec.Code
	}
	for range 5 {
		go ask("ann")
	}
	select {
	case code := <-codes:
		if code != http.StatusTooManyRequests {
			t.Errorf("the fifth of a caller gets %d, want 429", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("all of five wait")
	}
	go ask("root")
	for n := range 5 {
		select {
		case <-images.arrived:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d are being verified, want four of one caller and one of another", n)
		}
	}
	close(images.hold)
	for range 5 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one that had a place gets %d", code)
		}
	}
	if rec := d.send(t, http.MethodPost, "/api/v1/verify", as("ann"), body); rec.Code != http.StatusOK {
		t.Errorf("when all are answered: %d, want 200", rec.Code)
	}
}

// FuzzVerify sends any body: signers are asked about images of this host alone, and everything else is a 4xx that says why.
func FuzzVerify(f *testing.F) {
	for _, seed := range []string{
		`{"image":"harbor.example.com/demo/app:v1"}`, `{"image":"harbor.example.com/demo/app@sha256:x","formats":["legacy"],"key":"k"}`, `{"image":"evil/demo/app"}`,
		`{"image":"harbor.example.com//app"}`, `{"image":"harbor.example.com/demo/../app:v1"}`, `{"image":"HARBOR.example.com/demo/app"}`, `[]`, ``,
	} {
		f.Add(seed)
	}
	path := f.TempDir() + "/tokens"
	writeTokens(f, path, "ann:"+hashed(token))
	images := &inspected{err: errors.New("away")}
	cfg := config(f, &ledgertest.Memory{}, path, httptest.NewRecorder().Body)
	cfg.Images = images
	a, err := api.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	f.Fuzz(func(t *testing.T, body string) {
		images.asked = nil
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/verify", strings.NewReader(body))
		req.Header = with(token)
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		engine.ServeHTTP(rec, req)
		var doc problem.Document
		if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || doc.Detail == "" || (rec.Code == http.StatusServiceUnavailable) != (len(images.asked) == 1) {
			t.Fatalf("%q: %d %s, asked %v", body, rec.Code, rec.Body, images.asked)
		}
		for _, q := range images.asked {
			if err := q.Validate(); err != nil || !strings.Contains(strings.ToLower(body), "harbor.example.com") {
				t.Errorf("%q was asked as %+v: %v", body, q, err)
			}
		}
	})
}
