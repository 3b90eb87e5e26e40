package hooks_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/hooks"
)

// server answers by the number in the body, and counts connections.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	got    []int // guarded by mu
	opened int   // guarded by mu
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Listener = &counting{Listener: s.Listener, s: s}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	number, convErr := strconv.Atoi(string(body))
	if err != nil || convErr != nil || r.Header.Get("Authorization") != "Bearer x" || r.URL.Path != "/webhooks/harbor/p" {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	s.mu.Lock()
	s.got = append(s.got, number)
	s.mu.Unlock()
	switch number % 5 {
	case 1:
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(http.StatusServiceUnavailable)
	case 2:
		w.WriteHeader(http.StatusServiceUnavailable) // without telling when
	case 3:
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"status":"queued"}`)
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	webhooks := make([]int, 50)
	for i := range webhooks {
		webhooks[i] = 100 + i
	}
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart %t", apart), func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			to, err := hooks.NewTarget(s.URL+"/webhooks/harbor/p", "Bearer x")
			if err != nil {
				t.Fatal(err)
			}
			a, err := hooks.Send(t.Context(), to, hooks.Order{
				Webhooks: webhooks, Body: func(i int) []byte { return []byte(strconv.Itoa(i)) }, AtOnce: 4, Apart: apart,
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]int{"status 503": 10, "connection broken": 10}; !maps.Equal(a.Broken, want) || a.Others() != 20 {
				t.Errorf("broken: got %v, want %v", a.Broken, want)
			}
			if a.Sent != 50 || a.Accepted != 20 || a.Retryable != 10 || a.All.Count != 50 || a.Acceptance.Count != 20 || a.Rate() <= 0 {
				t.Errorf("got %+v, want 50 sent, 20 accepted, 10 retryable", a)
			}
			slices.Sort(a.Left)
			var want []int
			for _, w := range webhooks {
				if w%5 != 0 && w%5 != 4 {
					want = append(want, w)
				}
			}
			if !slices.Equal(a.Left, want) {
				t.Errorf("left: got %v, want %v", a.Left, want)
			}
			s.judge(t, webhooks, apart)
		})
	}
}

// judge looks at what has arrived, and on how many connections.
func (s *server) judge(t *testing.T, webhooks []int, apart bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.got)
	if !slices.Equal(s.got, webhooks) {
		t.Errorf("arrived: %v, want each once", s.got)
	}
	// Four that are kept, and another one for each that the server broke.
	if most := 4 + 10; !apart && s.opened > most || apart && s.opened != len(webhooks) {
		t.Errorf("%d connections were opened for %d webhooks", s.opened, len(webhooks))
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	to, err := hooks.NewTarget(s.URL+"/", "")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	a, err := hooks.Send(t.Context(), to, hooks.Order{Webhooks: []int{7}, Body: func(int) []byte { return nil }, AtOnce: 3})
	if err != nil || a.Broken["connection refused"] != 1 || len(a.Left) != 1 || a.Took > 10*time.Second {
		t.Errorf("got %+v, %v; want one refused connection", a, err)
	}
}

func TestNewTarget(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "https://127.0.0.1:1/x", "http://localhost/x", "127.0.0.1:80"} {
		if _, err := hooks.NewTarget(address, ""); err == nil {
			t.Errorf("address %q: got no error", address)
		}
	}
}
