package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/problem"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode) // or Gin prints each route
	goleak.VerifyTestMain(m)
}

const token = "6b3f0b1e8d5a4c2799e1c0ffee123456" //nolint:gosec // of these tests alone

func TestStatuses(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		target string
		header http.Header
		status int
		field  string
	}{
		{"all is well", nil, "/api/v1/signatures", with(token), 200, ""},
		{"scheme in another case", nil, "/api/v1/signatures", http.Header{"Authorization": {"bEARER " + token}}, 200, ""},
		{"no token", nil, "/api/v1/signatures", nil, 401, ""},
		{"wrong token", nil, "/api/v1/signatures", with("x" + token), 401, ""},
		{"the hash is no token", nil, "/api/v1/signatures", with(hashed(token)), 401, ""},
		{"empty token", nil, "/api/v1/signatures", with(""), 401, ""},
		{"other scheme", nil, "/api/v1/signatures", http.Header{"Authorization": {"Basic " + token}}, 401, ""},
		{"token alone", nil, "/api/v1/signatures", http.Header{"Authorization": {token}}, 401, ""},
		{"two tokens", nil, "/api/v1/signatures", http.Header{"Authorization": {"Bearer " + token, "Bearer " + token}}, 401, ""},
		{"token in the address", nil, "/api/v1/signatures?access_token=" + token, nil, 401, ""},
		{"no token and a bad parameter", nil, "/api/v1/signatures?limit=x", nil, 401, ""},
		{"unknown parameter", nil, "/api/v1/signatures?repo=x", with(token), 400, "repo"},
		{"parameter in another case", nil, "/api/v1/signatures?Project=demo", with(token), 400, "Project"},
		{"parameter twice", nil, "/api/v1/signatures?limit=1&limit=1", with(token), 400, "limit"},
		{"empty parameter", nil, "/api/v1/signatures?state=", with(token), 400, "state"},
		{"bad encoding", nil, "/api/v1/signatures?project=%zz", with(token), 400, "query"},
		{"semicolon", nil, "/api/v1/signatures?project=demo;limit=1", with(token), 400, "query"},
		{"project", nil, "/api/v1/signatures?project=De%20mo", with(token), 400, "project"},
		{"repository", nil, "/api/v1/signatures?repository=app", with(token), 400, "repository"},
		{"digest", nil, "/api/v1/signatures?digest=abc", with(token), 400, "digest"},
		{"state", nil, "/api/v1/signatures?state=fine", with(token), 400, "state"},
		{"since", nil, "/api/v1/signatures?since=yesterday", with(token), 400, "since"},
		{"unescaped plus", nil, "/api/v1/signatures?since=2026-01-31T12:00:00+01:00", with(token), 400, "since"},
		{"until", nil, "/api/v1/signatures?until=1", with(token), 400, "until"},
		{"until before since", nil, "/api/v1/signatures?since=2026-02-01&until=2026-01-01", with(token), 400, "until"},
		{"what owes nothing", nil, "/api/v1/signatures?log_owed=false", with(token), 400, "log_owed"},
		{"limit zero", nil, "/api/v1/signatures?limit=0", with(token), 400, "limit"},
		{"limit", nil, "/api/v1/signatures?limit=1001", with(token), 400, "limit"},
		{"cursor", nil, "/api/v1/signatures?cursor=x", with(token), 400, "cursor"},
		{"storage down", fault.New(fault.Transient, fault.StorageUnavailable, errors.New("secret path")), "/api/v1/signatures", with(token), 503, ""},
		{"storage broken", fault.New(fault.Permanent, fault.StorageUnavailable, errors.New("secret path")), "/api/v1/signatures", with(token), 500, ""},
		{"too slow", fault.New(fault.Transient, fault.StorageUnavailable, context.DeadlineExceeded), "/api/v1/signatures", with(token), 503, ""},
		{"client gone", context.Canceled, "/api/v1/signatures", with(token), 503, ""},
		{"keys need no token", nil, "/api/v1/keys", nil, 200, ""},
		{"keys need no valid token", nil, "/api/v1/keys", with("x"), 200, ""},
		{"unknown path", nil, "/api/v1/nothing", with(token), 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, &report{page: ledger.Page{Items: []ledger.Row{}}, err: tt.err})
			rec := d.get(t, tt.target, tt.header)
			if rec.Code != tt.status {
				t.Fatalf("GET %s = %d %s, want %d", tt.target, rec.Code, rec.Body, tt.status)
			}
			if tt.status == 404 { // the engine's own
				return
			}
			if got := rec.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options = %q, want nosniff", got)
			}
			if tt.status == 200 {
				if got := rec.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
					t.Errorf("Content-Type = %q, want JSON", got)
				}
				return
			}
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil {
				t.Fatalf("%s is no problem document: %v", rec.Body, err)
			}
			if rec.Header().Get("Content-Type") != problem.ContentType || doc.Status != tt.status || doc.Field != tt.field || doc.Detail == "" {
				t.Errorf("%s %+v, want a problem of %d with a detail about %q", rec.Header().Get("Content-Type"), doc, tt.status, tt.field)
			}
			if strings.Contains(rec.Body.String(), "secret path") {
				t.Errorf("answer %s tells what is inside", rec.Body)
			}
			if got := rec.Header().Get("Retry-After"); (got != "") != (tt.status == 503 && !errors.Is(tt.err, context.Canceled)) {
				t.Errorf("Retry-After = %q with %d", got, tt.status)
			}
			if got := rec.Header().Get("WWW-Authenticate"); (got != "") != (tt.status == 401) || got != "" && !strings.HasPrefix(got, "Bearer realm=") {
				t.Errorf("WWW-Authenticate = %q with %d", got, tt.status)
			}
		})
	}
}

func TestParametersReachTheReport(t *testing.T) {
	from := &report{page: ledger.Page{Items: []ledger.Row{}}}
	d := open(t, from)
	day := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	digest := ledgertest.Ref("demo/app", 1).Digest()
	tests := []struct {
		query string
		want  ledger.Query
	}{
		{"", ledger.Query{}},
		{"project=demo&repository=team%2Fapp&state=dead&limit=7", ledger.Query{Project: "demo", Repository: "team/app", State: ledger.Dead, Limit: 7}},
		{"digest=" + digest, ledger.Query{Digest: digest}},
		{"log_owed=true", ledger.Query{LogOwed: true}},
		{"since=2026-01-31&until=2026-01-31T13:30:00%2B01:00", ledger.Query{Since: day, Until: day.Add(12*time.Hour + 30*time.Minute)}},
		{"pushed_since=2026-01-31&pushed_until=2026-02-01", ledger.Query{PushedSince: day, PushedUntil: day.Add(24 * time.Hour)}},
		{"signed_since=2026-01-31&signed_until=2026-02-01&sort=signed", ledger.Query{SignedSince: day, SignedUntil: day.Add(24 * time.Hour), Sort: "signed"}},
		{
			"tag=v1&key=k&format=both&pusher=robot%24ci&pusher_source=none&signed_only_by=k2&sort=-pushed",
			ledger.Query{Tag: "v1", Key: "k", Format: ledger.Both, Pusher: "robot$ci", PusherSource: ledger.PusherNone, SignedOnlyBy: "k2", Sort: "-pushed"},
		},
		{"repository=shop%2F**", ledger.Query{Repository: "shop/**"}},
	}
	for _, tt := range tests {
		rec := d.get(t, "/api/v1/signatures?"+tt.query, with(token))
		tt.want.Total = true // on the first page
		from.mu.Lock()
		got := from.last
		from.mu.Unlock()
		if rec.Code != http.StatusOK || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("?%s: %d %s, asked for %+v; want %+v", tt.query, rec.Code, rec.Body, got, tt.want)
		}
	}
}

func TestPages(t *testing.T) {
	view := &ledgertest.Memory{}
	basis := ledgertest.Begin(t, view)
	for i := range 5 {
		ledgertest.Apply(t, view, basis, artifact.Entry{Seq: uint64(i) + 1, Event: ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", i))})
	}
	d := open(t, view)
	var got []string
	target := "/api/v1/signatures?project=demo&limit=2"
	for cursor := ""; ; {
		rec := d.get(t, target+cursor, with(token))
		var answer struct {
			Items []struct {
				Digest string `json:"digest"`
			} `json:"items"`
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK || answer.NextCursor == nil {
			t.Fatalf("GET %s = %d %s, %v; want items and next_cursor", target+cursor, rec.Code, rec.Body, err)
		}
		for _, item := range answer.Items {
			got = append(got, item.Digest)
		}
		if *answer.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(*answer.NextCursor)
	}
	want := make([]string, 0, 5)
	for i := range 5 {
		want = append(want, ledgertest.Ref("demo/app", 4-i).Digest())
	}
	if !slices.Equal(got, want) {
		t.Errorf("digests = %v, want %v", got, want)
	}
}

// TestRow pins the names and forms of a row: clients read them.
func TestRow(t *testing.T) {
	view := &ledgertest.Memory{}
	ref := ledgertest.Ref("demo/app", 1)
	failed := ledgertest.Event(artifact.Failed, ref)
	failed.Reason, failed.Detail, failed.Attempts = "timeout", "no answer", 3
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(failed)...)
	rec := open(t, view).get(t, "/api/v1/signatures", with(token))
	want := `{"registry":"harbor.example.com","items":[{"project":"demo","repository":"demo/app","digest":"` + ref.Digest() + `","media_type":"",` +
		`"parents":[],"parents_total":0,"tags":[],"tags_total":0,"pusher":"","pusher_source":"none","pushed_at":null,` +
		`"first_seen_at":"2026-01-31T12:00:00Z","received_at":null,"state":"failed","reason":"timeout","detail":"no answer",` +
		`"signed_at":null,"verified_at":null,"signatures":[],"key_id":"","format":"","signature_digest":"","how":"","note":"",` +
		`"log_state":"","log_owed":[],"log_owed_since":null,"log_reason":"",` +
		`"attempts":3,"policy_revision":"","ledger_seq":1}],"next_cursor":"","total":{"value":1,"relation":"eq"}}`
	if got := rec.Body.String(); got != want {
		t.Errorf("body =\n%s, want\n%s", got, want)
	}
	if got := rec.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
}

// TestSignedRow pins the names and forms of what a signed row has beside them.
func TestSignedRow(t *testing.T) {
	view := &ledgertest.Memory{}
	signed := ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", 1))
	signed.How, signed.Format, signed.KeyID, signed.SignatureDigest = artifact.Made, artifact.Legacy, "k1", "s1"
	signed.Detail = "one of two was there"
	signed.Signatures = []artifact.Evidence{
		{Format: artifact.Legacy, KeyID: "k1", Digest: "s1"}, {Format: artifact.Bundle, KeyID: "k2", Digest: "s2"},
	}
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(signed)...)
	body := open(t, view).get(t, "/api/v1/signatures", with(token)).Body.String()
	want := `"state":"signed","reason":"","detail":"","signed_at":"2026-01-31T12:00:00Z","verified_at":"2026-01-31T12:00:00Z",` +
		`"signatures":[{"format":"legacy","key_id":"k1","digest":"s1"},{"format":"bundle","key_id":"k2","digest":"s2"}],` +
		`"key_id":"k1","format":"both","signature_digest":"s1","how":"made","note":"one of two was there",`
	if !strings.Contains(body, want) {
		t.Errorf("body =\n%s, want in it\n%s", body, want)
	}
}

func TestHostileTextIsSafeJSON(t *testing.T) {
	for i, text := range ledgertest.HostileTexts() {
		view := &ledgertest.Memory{}
		e := ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", i))
		e.Tag, e.Pusher, e.Detail = text, text, text
		ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(e)...)
		body := open(t, view).get(t, "/api/v1/signatures", with(token)).Body.String()
		if strings.ContainsFunc(body, func(r rune) bool { return r < ' ' || r == 0x7f || r == '<' || r == '\u2028' }) {
			t.Errorf("%q: body %q has characters that should be escaped", text, body)
		}
		var answer struct {
			Items []ledger.Row `json:"items"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%q: body %q: %v", text, body, err)
		}
		want := ledgertest.All(t, view, ledger.Query{})[0]
		if got := answer.Items[0]; got.Pusher != want.Pusher || got.Pusher == "" || !slices.Equal(got.Tags, want.Tags) || got.Detail != want.Detail {
			t.Errorf("%q: row = %+v, want %+v", text, got, want)
		}
	}
}

// slow is a report that answers only when it must.
type slow struct{ ledgertest.Memory }

func (*slow) Signatures(ctx context.Context, _ ledger.Query) (ledger.Page, error) {
	<-ctx.Done()
	return ledger.Page{}, ctx.Err()
}

func TestTimeout(t *testing.T) {
	d := open(t, &slow{}, func(cfg *api.Config) { cfg.Timeout = time.Millisecond })
	rec := d.get(t, "/api/v1/signatures", with(token))
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "longer than 1ms") {
		t.Errorf("a slow report: %d %s, want 503 that tells the limit", rec.Code, rec.Body)
	}
}

func publicKey(t *testing.T) (text, id string) {
	t.Helper()
	text = encoded(t, elliptic.P256())
	block, _ := pem.Decode([]byte(text))
	sum := sha256.Sum256(block.Bytes)
	return text, hex.EncodeToString(sum[:])
}

// encoded makes a public key.
func encoded(t *testing.T, curve elliptic.Curve) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestKeys(t *testing.T) {
	one, oneID := publicKey(t)
	two, twoID := publicKey(t)
	d := open(t, &report{}, func(cfg *api.Config) {
		cfg.Keys = []api.Key{{Name: "new", PEM: "comment\n" + one + "\n"}, {ID: twoID, Name: "old", State: api.KeyVerifyOnly, PEM: two}}
	})
	rec := d.get(t, "/api/v1/keys", nil)
	var got []api.Key
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", rec.Body, err)
	}
	want := []api.Key{{ID: oneID, Name: "new", State: api.KeyActive, PEM: one}, {ID: twoID, Name: "old", State: api.KeyVerifyOnly, PEM: two}}
	if !slices.Equal(got, want) {
		t.Errorf("keys = %+v, want %+v", got, want)
	}
	if got := open(t, &report{}).get(t, "/api/v1/keys", nil).Body.String(); got != "[]" {
		t.Errorf("no keys = %s, want []", got)
	}
}

func TestNewRefuses(t *testing.T) {
	key, id := publicKey(t)
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("private")}))
	keys := func(keys ...api.Key) func(*api.Config) { return func(cfg *api.Config) { cfg.Keys = keys } }
	tests := []struct {
		name   string
		change func(*api.Config)
		says   string
	}{
		{"no ledger", func(cfg *api.Config) { cfg.Ledger = nil }, "Ledger"},
		{"no projects", func(cfg *api.Config) { cfg.Projects = nil }, "Projects"},
		{"no policies", func(cfg *api.Config) { cfg.Policies = nil }, "Policies"},
		{"no access", func(cfg *api.Config) { cfg.Access = nil }, "Access"},
		{"negative timeout", func(cfg *api.Config) { cfg.Timeout = -1 }, "Timeout"},
		{"negative timeout of changes", func(cfg *api.Config) { cfg.ChangeTimeout = -1 }, "Timeout"},
		{"private key", keys(api.Key{PEM: private}), "PUBLIC KEY"},
		{"a key and a private key", keys(api.Key{PEM: key + private}), "one key a file"},
		{"a key that the signer refuses", keys(api.Key{PEM: encoded(t, elliptic.P521())}), "P-256 or P-384"},
		{"no key", keys(api.Key{PEM: "x"}), "keys[0]"},
		{"wrong id", keys(api.Key{PEM: key}, api.Key{ID: strings.Repeat("0", len(id)), PEM: key}), "keys[1]"},
		{"unknown state", keys(api.Key{PEM: key, State: "fine"}), "fine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t, &report{}, "", io.Discard)
			tt.change(&cfg)
			_, err := api.New(cfg)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("New: error %v, want one with %q", err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), "private\n") {
				t.Errorf("New: error %v tells a secret", err)
			}
		})
	}
}

func TestNobodyMayReadWithoutAFileOfTokens(t *testing.T) {
	a, err := api.New(config(t, &report{}, "", io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	for path, want := range map[string]int{"/api/v1/signatures": http.StatusUnauthorized, "/api/v1/keys": http.StatusOK} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		req.Header.Set("Authorization", "Bearer "+strings.Repeat("0", 64))
		answer := httptest.NewRecorder()
		engine.ServeHTTP(answer, req)
		if answer.Code != want {
			t.Errorf("GET %s = %d, want %d", path, answer.Code, want)
		}
	}
}
