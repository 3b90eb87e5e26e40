package harbortest_test

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// recording is one request to a real Harbor and its answer.
type recording struct {
	Request struct {
		Method    string            `json:"method"`
		Path      string            `json:"path"`
		URL       string            `json:"url"` // Instead of Path, in the recordings of the pull policy.
		As        string            `json:"as"`
		Auth      string            `json:"auth"`
		UserAgent string            `json:"user_agent"`
		Headers   map[string]string `json:"headers"`
		Body      json.RawMessage   `json:"body"`
	} `json:"request"`
	Response struct {
		Status  int             `json:"status"`
		Headers [][2]string     `json:"headers"`
		Body    json.RawMessage `json:"body"`
	} `json:"response"`
}

func (r *recording) path() string {
	if r.Request.Path != "" {
		return r.Request.Path
	}
	return r.Request.URL
}

func (r *recording) header(name string) (string, bool) {
	for _, h := range r.Response.Headers {
		if h[0] == name {
			return h[1], true
		}
	}
	return "", false
}

// replayed collects which recordings were compared.
type replayed struct {
	mu    sync.Mutex
	files map[string]bool // Guarded by mu.
}

func (r *replayed) add(file string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[file] = true
}

// stage is one emulator with what a group of recordings needs.
type stage struct {
	*client
	done    *replayed
	logins  map[string]login
	digests map[string]string // Recorded digest to the one here.
	bodies  map[string][]byte // Manifests pushed here, by recorded digest.
	config  harbortest.Config
}

func newStage(t *testing.T, done *replayed) *stage {
	t.Helper()
	return newStageWith(t, done, harbortest.Config{DeliveryDelayScale: 0.001, RetryScale: 0.0001, Seed: 1})
}

func newStageWith(t *testing.T, done *replayed, cfg harbortest.Config) *stage {
	t.Helper()
	return &stage{
		client: newClient(t, harbortest.New(t, cfg)), done: done, config: cfg,
		logins:  map[string]login{"admin": admin(), "": {}},
		digests: make(map[string]string), bodies: make(map[string][]byte),
	}
}

func load(t *testing.T, file string) *recording {
	t.Helper()
	r := new(recording)
	loadInto(t, file, r)
	return r
}

func loadInto(t *testing.T, file string, into any) {
	t.Helper()
	raw := loadRaw(t, file)
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("decoding %s: %v", file, err)
	}
}

func loadRaw(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := fs.ReadFile(os.DirFS("testdata"), file)
	if err != nil {
		t.Fatalf("reading a recording: %v", err)
	}
	return raw
}

// here rewrites recorded digests to those of the stage.
func (s *stage) here(text string) string {
	return regexp.MustCompile(`\b[0-9a-f]{64}\b`).ReplaceAllStringFunc(text, func(hex string) string {
		if mine, ok := s.digests["sha256:"+hex]; ok {
			return strings.TrimPrefix(mine, "sha256:")
		}
		return hex
	})
}

// replay sends a recorded request and compares status, the headers that mean something, and the body.
func (s *stage) replay(t *testing.T, file string) {
	t.Helper()
	s.replayTo(t, file, "")
}

// replayTo is replay with another path, where ids or times in it cannot be as recorded.
func (s *stage) replayTo(t *testing.T, file, path string) {
	t.Helper()
	r := load(t, file)
	if path == "" {
		path = s.here(r.path())
	}
	who, ok := s.logins[r.Request.As]
	if !ok {
		t.Fatalf("%s: nobody is %q here", file, r.Request.As)
	}
	s.t = t
	got := s.do(s.credentials(t, r, who, path), r.Request.Method, path, requestBody(t, r), s.requestHeaders(t, r, who, path)...)
	s.done.add(file)
	if got.status != r.Response.Status {
		t.Fatalf("%s: got status %d, want %d; body %s", file, got.status, r.Response.Status, got.body)
	}
	s.compareHeaders(t, file, r, got)
	want := r.Response.Body
	var text string
	if json.Unmarshal(want, &text) == nil {
		want = []byte(text) // Bodies that are no JSON, or were kept verbatim.
	}
	s.compareBody(t, file, got.body, want)
}

func (s *stage) compareBody(t *testing.T, file string, got, want []byte) {
	t.Helper()
	g := newNormalizer(s.h.Host()).render(t, got)
	w := newNormalizer(recordedHost).render(t, want)
	if strings.TrimSpace(g) != strings.TrimSpace(w) {
		t.Errorf("%s: body differs at %s", file, firstDifference(g, w))
	}
}

// comparedHeaders lists the headers that a client may rely on.
func comparedHeaders() []string {
	return []string{
		"Content-Type", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Etag", "Link", "Location",
		"Transfer-Encoding", "Www-Authenticate", "X-Content-Type-Options", "X-Total-Count",
	}
}

func (s *stage) compareHeaders(t *testing.T, file string, r *recording, got answer) {
	t.Helper()
	for _, name := range comparedHeaders() {
		if name == "Transfer-Encoding" {
			continue // Depends on the size of masked parts.
		}
		want, wanted := r.header(name)
		have := got.header.Get(name)
		if name == "Content-Type" && r.Request.Method == http.MethodHead {
			continue // net/http guesses none for an answer without a body.
		}
		g := maskIDs(newNormalizer(s.h.Host()).text(have))
		w := maskIDs(newNormalizer(recordedHost).text(want))
		if g != w || wanted != (have != "") {
			t.Errorf("%s: header %s: got %q, want %q", file, name, g, w)
		}
	}
	if _, ok := r.header("X-Request-Id"); ok && got.header.Get("X-Request-Id") == "" {
		t.Errorf("%s: header X-Request-Id is missing", file)
	}
}

// maskIDs masks the id at the end of a Location.
func maskIDs(location string) string {
	return regexp.MustCompile(`/\d+$`).ReplaceAllString(location, "/ID")
}

func requestBody(t *testing.T, r *recording) any {
	t.Helper()
	if len(r.Request.Body) == 0 || string(r.Request.Body) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(r.Request.Body, &text) == nil {
		return text
	}
	return []byte(r.Request.Body)
}

// credentials gives the basic credentials of a recorded request, or none where it used a token.
func (s *stage) credentials(t *testing.T, r *recording, who login, _ string) login {
	t.Helper()
	if strings.HasPrefix(r.Request.Auth, "bearer") {
		return login{}
	}
	return who
}

func (s *stage) requestHeaders(t *testing.T, r *recording, who login, path string) []string {
	t.Helper()
	var headers []string
	for name, value := range r.Request.Headers {
		headers = append(headers, name, value)
	}
	if r.Request.UserAgent != "" {
		headers = append(headers, "User-Agent", r.Request.UserAgent)
	}
	if strings.Contains(path, "/manifests/") {
		headers = append(headers, "Accept", allManifestTypes)
	}
	if actions, ok := strings.CutPrefix(r.Request.Auth, "bearer "); ok {
		repo, _, _ := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/manifests/")
		headers = append(headers, "Authorization", "Bearer "+s.token(t, who, "repository:"+repo+":"+actions))
	}
	return headers
}

const allManifestTypes = "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json," +
	"application/vnd.docker.distribution.manifest.v2+json,application/vnd.docker.distribution.manifest.list.v2+json"

func (s *stage) token(t *testing.T, who login, scope string) string {
	t.Helper()
	var out struct{ Token string }
	s.want(http.StatusOK, who, http.MethodGet, "/service/token?service=harbor-registry&scope="+scope, nil).decode(t, &out)
	return out.Token
}

// TestRecordings replays the recordings of a real Harbor, and fails for any that is neither replayed nor listed, with
// the reason why not, in testdata/not-replayed.txt.
func TestRecordings(t *testing.T) {
	t.Parallel()
	done := &replayed{files: make(map[string]bool)}
	t.Run("scenes", func(t *testing.T) {
		t.Parallel()
		for name, scene := range scenes() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				scene(t, done)
			})
		}
	})
	t.Cleanup(func() { checkComplete(t, done) })
}

func checkComplete(t *testing.T, done *replayed) {
	t.Helper()
	if t.Failed() {
		return // What failed may not have come to its recordings.
	}
	listed := notReplayed(t)
	var found []string
	for _, root := range []string{"api", "webhooks"} {
		err := filepath.WalkDir(filepath.Join("testdata", root), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				found = append(found, filepath.ToSlash(strings.TrimPrefix(path, "testdata"+string(filepath.Separator))))
			}
			return err
		})
		if err != nil {
			t.Fatalf("walking the recordings: %v", err)
		}
	}
	for _, file := range found {
		switch {
		case done.files[file] && listed[file] != "":
			t.Errorf("%s is replayed and listed as not replayed", file)
		case !done.files[file] && listed[file] == "":
			t.Errorf("%s is neither replayed nor listed", file)
		}
	}
	for file := range listed {
		if !slices.Contains(found, file) {
			t.Errorf("%s is listed but does not exist", file)
		}
	}
	if len(done.files)+len(listed) != len(found) {
		t.Errorf("recordings: replayed %d and listed %d, found %d", len(done.files), len(listed), len(found))
	}
	t.Logf("recordings: %d found, %d replayed, %d listed as not replayed", len(found), len(done.files), len(listed))
}

// notReplayed reads the golden list: a path, a space, a reason.
func notReplayed(t *testing.T) map[string]string {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "not-replayed.txt"))
	if err != nil {
		t.Fatalf("opening the list: %v", err)
	}
	defer func() { _ = file.Close() }()
	out := make(map[string]string)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		path, reason, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("the list has no reason for %s", path)
		}
		out[path] = reason
	}
	return out
}
