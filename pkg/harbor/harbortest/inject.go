package harbortest

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// faultState holds what goes wrong and the locks that stand for Harbor's quota rows.
type faultState struct {
	mu        sync.Mutex
	injected  map[string]*injected     // By name. Guarded by mu.
	dice      map[string]*dice         // By name; they outlive the faults. Guarded by mu.
	quotaRows map[string]chan struct{} // By project; a full channel is a locked row. Guarded by mu.
}

// injected is one set of faults in force. Guarded by faultState.mu.
type injected struct {
	Faults

	dice *dice
}

// dice decide whom rates hit: one source for requests and one for pushes, so that neither disturbs the other. Each request and
// each push takes the same number of throws, whatever the rates are.
type dice struct{ requests, pushes *rand.Rand }

func newDice(seed uint64, name string) *dice {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // It never fails.
	source := func(stream uint64) *rand.Rand {
		return rand.New(rand.NewPCG(seed, h.Sum64()^stream)) //nolint:gosec // fault rates, nothing secret
	}
	return &dice{requests: source(2), pushes: source(3)}
}

// SetFaults replaces all faults at once, those with names too; the zero value heals the emulator.
func (h *Harbor) SetFaults(f Faults) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	h.faults.injected = nil
	h.setFault("", f)
}

// SetFault replaces the faults of one name and leaves the others: faults of several names are in force side by side, and a
// request meets them in the order of their names, until one of them answers it. The zero value ends those of the name.
func (h *Harbor) SetFault(name string, f Faults) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	h.setFault(name, f)
}

// setFault is called under faultState.mu.
func (h *Harbor) setFault(name string, f Faults) {
	if f == (Faults{}) {
		delete(h.faults.injected, name)
		return
	}
	if h.faults.injected == nil {
		h.faults.injected = make(map[string]*injected)
	}
	if h.faults.dice == nil {
		h.faults.dice = make(map[string]*dice)
	}
	if h.faults.dice[name] == nil {
		h.faults.dice[name] = newDice(h.cfg.Seed, name)
	}
	h.faults.injected[name] = &injected{Faults: f, dice: h.faults.dice[name]}
}

// CurrentFaults returns the faults without a name, counts as far as they have come.
func (h *Harbor) CurrentFaults() Faults { return h.CurrentFault("") }

// CurrentFault returns the faults of a name, counts as far as they have come; the zero value if there are none.
func (h *Harbor) CurrentFault(name string) Faults {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	if i := h.faults.injected[name]; i != nil {
		return i.Faults
	}
	return Faults{}
}

// fate is what faults do to one request, in this order.
type fate struct {
	latency    time.Duration
	drop       bool
	status     int // 0 for none
	retryAfter string
	cut        bool
}

// meet decides what one set of faults does to a request. It is called under faultState.mu.
func (i *injected) meet(r *http.Request, route string) fate {
	selected := (i.Method == "" || i.Method == r.Method) && (i.Route == "" || i.Route == route) &&
		strings.HasPrefix(r.URL.Path, i.PathPrefix) && (i.Project == "" || i.Project == projectNamed(r))
	if !selected {
		return fate{}
	}
	refuse, drop, cut := i.dice.requests.Float64(), i.dice.requests.Float64(), i.dice.requests.Float64()
	f := fate{latency: i.Latency, drop: drop < i.DropConnections, cut: cut < i.CutAnswers}
	if i.Status == 0 || i.Rate != 0 && refuse >= i.Rate {
		return f
	}
	f.status, f.retryAfter = i.Status, i.RetryAfter
	if i.Count > 0 {
		i.Count--
		if i.Count == 0 {
			i.Status = 0
		}
	}
	return f
}

// fates is meet for all faults.
func (h *Harbor) fates(r *http.Request, route string) []fate {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	var all []fate
	for _, name := range slices.Sorted(maps.Keys(h.faults.injected)) {
		all = append(all, h.faults.injected[name].meet(r, route))
	}
	return all
}

// injectFault delays, refuses or breaks a request. It reports whether that was its answer, and else whether the answer
// that it gets is to be cut.
func (h *Harbor) injectFault(w http.ResponseWriter, r *http.Request, route string) (answered, cut bool) {
	for _, f := range h.fates(r, route) {
		if !h.pause(r.Context(), f.latency) || f.drop {
			panic(http.ErrAbortHandler) // The one way to break a connection; net/http recovers it silently.
		}
		if f.status != 0 {
			h.refuse(w, r, f)
			return true, false
		}
		cut = cut || f.cut
	}
	return false, cut
}

// refuse answers with an injected status.
func (h *Harbor) refuse(w http.ResponseWriter, r *http.Request, f fate) {
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	if f.status == http.StatusUnauthorized && strings.HasPrefix(r.URL.Path, "/v2") {
		challenge := `Basic realm="harbor"`
		if r.Header.Get("Authorization") == "" {
			challenge = fmt.Sprintf(`Bearer realm="http://%s/service/token",service="%s"`, r.Host, tokenAudience)
		}
		w.Header().Set("Www-Authenticate", challenge)
	}
	http.Error(w, http.StatusText(f.status), f.status)
}

// sendHalf sends the header of an answer and half of its body, and breaks the connection.
func sendHalf(w http.ResponseWriter, answer *bufferedResponse) {
	if whole := answer.body.Bytes(); len(whole) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		w.WriteHeader(answer.status)
		_, _ = w.Write(whole[:len(whole)/2]) // Whether the client is still there does not matter.
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

// projectNamed gives the project that a request is about, as far as its path or, for a token, its scope tells; empty if it
// names none.
func projectNamed(r *http.Request) string {
	path := r.URL.Path
	repo := ""
	switch {
	case path == "/service/token":
		scope := strings.SplitN(r.URL.Query().Get("scope"), ":", 3)
		if len(scope) < 3 || scope[0] != "repository" {
			return ""
		}
		repo = scope[1]
	case strings.HasPrefix(path, apiPrefix):
		repo, _ = strings.CutPrefix(path, apiPrefix+"projects/")
		if repo == path {
			return ""
		}
	case strings.HasPrefix(path, "/v2/"):
		_, repo, _ = splitRegistryPath(path)
	}
	name, _, _ := strings.Cut(repo, "/")
	return name
}

// quotaRow gives the row of a project and how long a push holds it; nil if it does not.
func (h *Harbor) quotaRow(project string) (chan struct{}, time.Duration) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	var latency time.Duration
	for _, i := range h.faults.injected {
		if i.Project == "" || i.Project == project {
			latency = max(latency, i.ManifestPutLatency)
		}
	}
	if latency <= 0 {
		return nil, 0
	}
	if h.faults.quotaRows == nil {
		h.faults.quotaRows = make(map[string]chan struct{})
	}
	row := h.faults.quotaRows[project]
	if row == nil {
		row = make(chan struct{}, 1)
		h.faults.quotaRows[project] = row
	}
	return row, latency
}

// lockQuotaRow waits for the project's turn and holds it for ManifestPutLatency.
func (h *Harbor) lockQuotaRow(ctx context.Context, project string) {
	row, latency := h.quotaRow(project)
	if row == nil {
		return
	}
	select {
	case row <- struct{}{}:
	case <-ctx.Done():
		return
	case <-h.ctx.Done():
		return
	}
	h.pause(ctx, latency)
	<-row
}

// webhooksOf says how often each event of a push is delivered: 0 for lost, 1, or 2.
func (h *Harbor) webhooksOf(project string) int {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	times := 1
	for _, name := range slices.Sorted(maps.Keys(h.faults.injected)) {
		i := h.faults.injected[name]
		if i.Project != "" && i.Project != project {
			continue
		}
		lose, double := i.dice.pushes.Float64(), i.dice.pushes.Float64()
		switch {
		case i.LoseWebhooks, lose < i.LoseWebhookRate:
			times = 0
		case i.LoseNextWebhooks > 0:
			i.LoseNextWebhooks--
			times = 0
		case times == 1 && double < i.DoubleWebhookRate:
			times = 2
		}
	}
	return times
}
