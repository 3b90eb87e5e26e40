package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/status"
)

// standing is a status, and a door, with one answer. It keeps what it was asked.
type standing struct {
	answer status.Answer
	found  bool
	err    error
	// during is called while somebody waits, unless it is nil.
	during func(ctx context.Context)
	reason policy.Reason

	mu        sync.Mutex
	questions []status.Question // guarded by mu
	wishes    []string          // guarded by mu
}

func (s *standing) Parse(image string) (status.Image, error) {
	return status.ParseImage("harbor.example.com", image)
}

func (s *standing) Ask(ctx context.Context, q status.Question) (status.Answer, error) {
	s.mu.Lock()
	s.questions = append(s.questions, q)
	s.mu.Unlock()
	if s.during != nil {
		s.during(ctx)
	}
	return s.answer, s.err
}

func (s *standing) Find(_ context.Context, image status.Image) (artifact.Ref, bool, error) {
	if !s.found || s.err != nil {
		return artifact.Ref{}, false, s.err
	}
	ref, err := image.Ref(ledgertest.Ref("demo/app", 1).Digest())
	return ref, true, err
}

// wishing is the door of the same.
type wishing struct{ s *standing }

func (w wishing) Ask(_ context.Context, ref artifact.Ref, tag, actor string) (string, policy.Reason, string, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.wishes = append(w.s.wishes, ref.String()+" "+tag+" "+actor)
	if w.s.reason != "" {
		return "ignored", w.s.reason, "", nil
	}
	return "queued", "", "0123", nil
}

// stands opens a door with a status behind it.
func stands(t *testing.T, s *standing, tokens ...string) door {
	t.Helper()
	d := open(t, &report{}, func(c *api.Config) { c.Status, c.Door = s, wishing{s} })
	if len(tokens) > 0 {
		writeTokens(t, d.tokens, strings.Join(tokens, "\n")+"\n")
	}
	return d
}

const someImage = "harbor.example.com/demo/app:v1"

func statusOf(image string) string { return "/api/v1/status?image=" + url.QueryEscape(image) }

func TestStatusAnswers(t *testing.T) {
	at := ledgertest.Epoch()
	digest := ledgertest.Ref("demo/app", 1).Digest()
	for _, tt := range []struct {
		name   string
		answer status.Answer
		err    error
		code   int
		retry  string
	}{
		{"signed", status.Answer{Outcome: status.Signed, State: "signed", Digest: digest, CheckedAt: &at, Signatures: []artifact.Evidence{{Format: artifact.Legacy, KeyID: "k", Digest: digest}}}, nil, 200, ""},
		{"an index", status.Answer{Outcome: status.Signed, State: "signed", Digest: digest, CheckedAt: &at, Children: &status.ChildrenSum{Total: 2, Signed: 2, Unsigned: []status.Child{}}}, nil, 200, ""},
		{"pending", status.Answer{Outcome: status.Pending, State: "pending", Digest: digest, Reason: status.Queued, Lane: artifact.Live, Place: &status.Place{Since: at}}, nil, 202, "2"},
		{"refused", status.Answer{Outcome: status.Refused, State: "dead", Digest: digest, Reason: "too_old", WhatToDo: "replay it"}, nil, 409, ""},
		{"missing", status.Answer{Outcome: status.Missing, Image: someImage}, nil, 404, ""},
		{"crowded", status.Answer{}, &status.CrowdedError{RetryAfter: time.Second}, 503, "1"},
		{"too many of one", status.Answer{}, &status.CrowdedError{Caller: true, RetryAfter: time.Second}, 429, "1"},
		{"harbor away", status.Answer{}, fault.Newf(fault.Transient, fault.Unreachable, "secret address"), 503, "5"},
		{"the account has no right", status.Answer{}, fault.Newf(fault.Permanent, fault.Denied, "harbor answers 403"), 503, "5"},
		{"too many children", status.Answer{}, fault.Newf(fault.Permanent, fault.TooManyChildren, "many"), 500, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &standing{answer: tt.answer, err: tt.err}
			rec := stands(t, s).get(t, statusOf(someImage)+"&wait=30s", as("ann"))
			if rec.Code != tt.code || rec.Header().Get("Retry-After") != tt.retry {
				t.Fatalf("GET = %d, Retry-After %q, %s; want %d, %q", rec.Code, rec.Header().Get("Retry-After"), rec.Body, tt.code, tt.retry)
			}
			if strings.Contains(rec.Body.String(), "secret") {
				t.Errorf("answer %s tells what is inside", rec.Body)
			}
			want := status.Question{Image: status.Image{Repository: "demo/app", Tag: "v1"}, Wait: 30 * time.Second, Caller: "ann"}
			if len(s.questions) != 1 || s.questions[0] != want {
				t.Errorf("asked %+v, want %+v", s.questions, want)
			}
		})
	}
}

// TestStatusThatIsRepeated is for clients that take every 2xx for good.
func TestStatusThatIsRepeated(t *testing.T) {
	pending := status.Answer{Outcome: status.Pending, State: "pending", Reason: status.SigningPaused}
	rec := stands(t, &standing{answer: pending}).get(t, statusOf(someImage)+"&pending=503", as("ann"))
	if rec.Code != 503 || rec.Header().Get("Retry-After") != "2" || !strings.Contains(rec.Body.String(), "not signed yet: paused") {
		t.Errorf("pending: %d, Retry-After %q, %s; want 503 after 2 s with the reason", rec.Code, rec.Header().Get("Retry-After"), rec.Body)
	}
	signed := status.Answer{Outcome: status.Signed, State: "signed", Digest: "sha256:" + strings.Repeat("ab", 32)}
	if rec := stands(t, &standing{answer: signed}).get(t, statusOf(someImage)+"&pending=503", as("ann")); rec.Code != 200 {
		t.Errorf("signed: %d, want 200", rec.Code)
	}
	if rec := stands(t, &standing{answer: signed}).get(t, statusOf(someImage)+"&pending=202", as("ann")); rec.Code != 400 || !strings.Contains(rec.Body.String(), `"pending"`) {
		t.Errorf("pending=202: %d %s, want 400 that names it", rec.Code, rec.Body)
	}
}

func TestStatusRefusesWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name, target string
		header       http.Header
		code         int
		field        string
	}{
		{"nobody", statusOf(someImage), nil, 401, ""},
		{"no image", "/api/v1/status", as("ann"), 400, "image"},
		{"another host", statusOf("docker.io/demo/app:v1"), as("ann"), 400, "image"},
		{"two images", statusOf(someImage) + "&image=x", as("ann"), 400, "image"},
		{"long wait", statusOf(someImage) + "&wait=61s", as("ann"), 400, "wait"},
		{"negative wait", statusOf(someImage) + "&wait=-1s", as("ann"), 400, "wait"},
		{"wait without a unit", statusOf(someImage) + "&wait=60", as("ann"), 400, "wait"},
		{"endless wait", statusOf(someImage) + "&wait=9999999999h", as("ann"), 400, "wait"},
		{"unknown parameter", statusOf(someImage) + "&timeout=1s", as("ann"), 400, "timeout"},
		{"no member", statusOf(someImage), as("out"), 404, ""},
		{"another project", statusOf("harbor.example.com/none/app:v1"), as("ann"), 404, ""},
		{"a robot elsewhere", statusOf("harbor.example.com/demo/other:v1"), as("robot$ci"), 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &standing{answer: status.Answer{Outcome: status.Signed}}
			rec := stands(t, s).get(t, tt.target, tt.header)
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != tt.code || doc.Field != tt.field {
				t.Errorf("GET %s = %d %s, want %d about %q", tt.target, rec.Code, rec.Body, tt.code, tt.field)
			}
			if len(s.questions) != 0 {
				t.Errorf("it was asked: %+v", s.questions)
			}
		})
	}
	// Who may pull may ask: a robot, and a token.
	for _, header := range []http.Header{as("robot$ci"), as("ann"), as("root"), with(token)} {
		s := &standing{answer: status.Answer{Outcome: status.Missing}}
		if rec := stands(t, s).get(t, statusOf(someImage), header); rec.Code != 404 || len(s.questions) != 1 {
			t.Errorf("%v: %d %s, want that it is asked", header, rec.Code, rec.Body)
		}
	}
}

// TestWaitingOutlivesTheServersLimit waits for longer than the server lets others write, and than a reading may take.
func TestWaitingOutlivesTheServersLimit(t *testing.T) {
	s := &standing{
		answer: status.Answer{Outcome: status.Pending, State: "pending", Digest: ledgertest.Ref("demo/app", 1).Digest()},
		during: func(ctx context.Context) {
			timer := time.NewTimer(700 * time.Millisecond)
			defer timer.Stop()
			select {
			case <-ctx.Done():
				t.Error("who waits was cut off by the limit of those who read")
			case <-timer.C:
			}
		},
	}
	a, err := api.New(func() api.Config {
		c := config(t, &report{}, "", &strings.Builder{})
		c.Status, c.Door, c.Timeout = s, wishing{s}, 300*time.Millisecond
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	server := httptest.NewUnstartedServer(engine)
	server.Config.WriteTimeout, server.Config.ReadTimeout = 200*time.Millisecond, 200*time.Millisecond
	server.Start()
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+statusOf(someImage)+"&wait=1s", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = as("ann")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatalf("the server broke the connection: %v", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("GET = %s, want 202", resp.Status)
	}
}

func TestSign(t *testing.T) {
	ref := ledgertest.Ref("demo/app", 1)
	post := func(t *testing.T, s *standing, header http.Header, body string, tokens ...string) *httptest.ResponseRecorder {
		t.Helper()
		return stands(t, s, tokens...).send(t, http.MethodPost, "/api/v1/sign", header, body)
	}
	change := "ci:" + hashed(token) + ":change:demo"
	t.Run("asked for", func(t *testing.T) {
		s := &standing{found: true}
		rec := post(t, s, with(token), `{"image":"`+someImage+`"}`, change)
		want := "/api/v1/status?image=" + url.QueryEscape("harbor.example.com/"+ref.String())
		if rec.Code != 202 || rec.Header().Get("Location") != want || !strings.Contains(rec.Body.String(), `"status":"queued"`) {
			t.Fatalf("POST = %d %q %s, want 202 at %q", rec.Code, rec.Header().Get("Location"), rec.Body, want)
		}
		if want := ref.String() + " v1 token:ci"; len(s.wishes) != 1 || s.wishes[0] != want {
			t.Errorf("asked for %q, want %q", s.wishes, want)
		}
		// A tag beside a digest is nobody's word.
		s = &standing{found: true}
		post(t, s, with(token), `{"image":"`+someImage+"@"+ref.Digest()+`"}`, change)
		if want := ref.String() + "  token:ci"; len(s.wishes) != 1 || s.wishes[0] != want {
			t.Errorf("asked for %q, want %q", s.wishes, want)
		}
	})
	t.Run("ignored", func(t *testing.T) {
		rec := post(t, &standing{found: true, reason: policy.NotEnabled}, with(token), `{"image":"`+someImage+`"}`, change)
		if rec.Code != 202 || !strings.Contains(rec.Body.String(), `"status":"ignored","reason":"project_not_enabled"`) {
			t.Errorf("POST = %d %s, want 202, ignored, and why", rec.Code, rec.Body)
		}
	})
	for _, tt := range []struct {
		name   string
		header http.Header
		body   string
		found  bool
		err    error
		code   int
	}{
		{"nobody", nil, `{"image":"` + someImage + `"}`, true, nil, 401},
		{"a robot that may only pull", as("robot$ci"), `{"image":"` + someImage + `"}`, true, nil, 403},
		{"who may not even pull", as("out"), `{"image":"` + someImage + `"}`, true, nil, 404},
		{"a token that reads", with("read" + token), `{"image":"` + someImage + `"}`, true, nil, 403},
		{"another host", with(token), `{"image":"docker.io/demo/app:v1"}`, true, nil, 400},
		{"no image", with(token), `{}`, true, nil, 400},
		{"unknown field", with(token), `{"image":"` + someImage + `","force":true}`, true, nil, 400},
		{"not in Harbor", with(token), `{"image":"` + someImage + `"}`, false, nil, 404},
		{"Harbor away", with(token), `{"image":"` + someImage + `"}`, true, fault.Newf(fault.Transient, fault.Timeout, "away"), 503},
		{"a page of another origin", http.Header{"Authorization": {"Bearer " + token}, "Sec-Fetch-Site": {"cross-site"}}, `{"image":"` + someImage + `"}`, true, nil, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &standing{found: tt.found, err: tt.err}
			rec := post(t, s, tt.header, tt.body, change, "reader:"+hashed("read"+token)+":read:demo")
			if rec.Code != tt.code || len(s.wishes) != 0 {
				t.Errorf("POST = %d %s, asked for %v; want %d, nothing", rec.Code, rec.Body, s.wishes, tt.code)
			}
		})
	}
}
