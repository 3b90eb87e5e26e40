package httpserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/httpserver"
)

// limit is above what one address may hold beyond it.
const limit = 20

// holder is a handler that keeps the requests for /hold until it is let go.
type holder struct {
	entered, leave chan struct{}
	mu             sync.Mutex
	now            map[string]int // requests in hand, by connection
	most           int            // of them at most
}

func newHolder() *holder {
	return &holder{entered: make(chan struct{}, 1000), leave: make(chan struct{}), now: map[string]int{}}
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hold" {
		h.count(r, 1)
		defer h.count(r, -1)
		h.entered <- struct{}{}
		<-h.leave
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *holder) count(r *http.Request, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now[r.RemoteAddr] += n
	h.most = max(h.most, h.now[r.RemoteAddr])
}

func (h *holder) mostAtOnce() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.most
}

// answer is what a client is told; its zero value is a connection that ended.
type answer struct {
	status     int
	retryAfter string
	closes     bool
}

// ask sends a request over a connection.
func ask(t *testing.T, conn net.Conn) answer {
	t.Helper()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"); err != nil {
		return answer{}
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{}
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return answer{}
	}
	return answer{response.StatusCode, response.Header.Get("Retry-After"), response.Close}
}

// from opens a connection from an address of the loopback.
func from(t *testing.T, s *httpserver.Server, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// fill takes all places by requests in hand.
func fill(t *testing.T, s *httpserver.Server, h *holder) {
	t.Helper()
	for range limit {
		if _, err := io.WriteString(dial(t, s), "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-h.entered
	}
}

func TestBeyondTheLimitIsAnAnswer(t *testing.T) {
	h, registry := newHolder(), prometheus.NewRegistry()
	s := serve(t, httpserver.Config{MaxConnections: limit, Handler: h, Registerer: registry})
	defer close(h.leave)
	fill(t, s, h)
	start := time.Now()
	for range 1100 { // more than are turned away at once: each gives its place back
		conn := dial(t, s)
		got := ask(t, conn)
		if want := (answer{http.StatusServiceUnavailable, "5", true}); got != want {
			t.Fatalf("the answer to one too many is %+v, want %+v", got, want)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("after the answer: %d bytes, %v; want the end of the connection", n, err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("1,100 connections were turned away within %s, want it at once", took)
	}
	// One address that takes all places does not shut out another one: as many as Harbor needs, and not more.
	for i := range 17 {
		want := http.StatusNoContent
		if i == 16 {
			want = http.StatusServiceUnavailable
		}
		if got := ask(t, from(t, s, "127.0.0.2")); got.status != want {
			t.Errorf("connection %d from another address: status %d, want %d", i+1, got.status, want)
		}
	}
	want := `
# HELP harborseal_http_connections Connections that are served.
# TYPE harborseal_http_connections gauge
harborseal_http_connections{listener="test"} 36
# HELP harborseal_http_connections_refused_total Connections that were turned away with 503, because too many were open.
# TYPE harborseal_http_connections_refused_total counter
harborseal_http_connections_refused_total{listener="test"} 1101
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "harborseal_http_connections", "harborseal_http_connections_refused_total"); err != nil {
		t.Error(err)
	}
}

// TestWhoIsTurnedAwayIsCutOff, whatever the timeouts of the others are.
func TestWhoIsTurnedAwayIsCutOff(t *testing.T) {
	h := newHolder()
	s := serve(t, httpserver.Config{MaxConnections: limit, Handler: h})
	defer close(h.leave)
	fill(t, s, h)
	texts, start := []string{"", "GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"}, time.Now()
	var conns []net.Conn
	for _, sent := range texts {
		conn := from(t, s, "127.0.0.1")
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for i, sent := range texts {
		_, _ = io.Copy(io.Discard, conns[i])
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%q: the connection was held for %s, want about three seconds", sent, took)
		}
	}
}

// TestTheLongestIdleGivesWay: a flood that is over shuts nobody out.
func TestTheLongestIdleGivesWay(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := serve(t, httpserver.Config{MaxConnections: limit, Registerer: registry})
	idle := make([]net.Conn, limit)
	for i := range idle {
		idle[i] = dial(t, s)
		if i == 1 {
			continue // this one says nothing at all
		}
		if got := ask(t, idle[i]); got.status != http.StatusNoContent {
			t.Fatalf("status = %d, want 204", got.status)
		}
	}
	if got := ask(t, dial(t, s)); got.status != http.StatusServiceUnavailable {
		t.Errorf("status while the others may still have a request on its way = %d, want 503", got.status)
	}
	deadline := time.Now().Add(5 * time.Second)
	for _, gone := range idle[:2] {
		for {
			conn := dial(t, s)
			if ask(t, conn).status == http.StatusNoContent {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no idle connection gives way")
			}
		}
		if n, err := gone.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the longest idle connection is open: %d bytes, %v", n, err)
		}
	}
	if got := ask(t, idle[limit-1]); got.status != http.StatusNoContent {
		t.Errorf("status over the connection that was idle for the shortest = %d, want 204", got.status)
	}
	if n, err := testutil.GatherAndCount(registry, "harborseal_http_connections_evicted_total"); err != nil || n != 1 {
		t.Errorf("%d series of evicted connections, %v; want 1", n, err)
	}
}

// TestPlacesAreGivenBack, by those that were served and by those that were turned away.
func TestPlacesAreGivenBack(t *testing.T) {
	s := serve(t, httpserver.Config{MaxConnections: limit})
	for i := range 20 * limit { // more than the limit and the reserve
		conn := dial(t, s)
		if got := ask(t, conn); got.status != http.StatusNoContent {
			t.Fatalf("connection %d: status %d, want 204", i+1, got.status)
		}
		_ = conn.Close()
		if i%limit == limit-1 {
			// The server learns of the end of a connection a moment later.
			fresh := dial(t, s)
			for deadline := time.Now().Add(5 * time.Second); ask(t, fresh).status != http.StatusNoContent && time.Now().Before(deadline); {
				fresh = dial(t, s)
			}
			_ = fresh.Close()
		}
	}
}

// secondClients gives clients that each have one connection of HTTP/2.
func secondClients(t *testing.T, n int) []*http.Client {
	t.Helper()
	clients := make([]*http.Client, n)
	for i := range clients {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, MaxConnsPerHost: 1} //nolint:gosec // a test's certificate
		t.Cleanup(transport.CloseIdleConnections)
		clients[i] = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	}
	return clients
}

func TestStreamsOfOneConnectionAreBounded(t *testing.T) {
	h := newHolder()
	s := serve(t, httpserver.Config{TLS: new(tlsFiles(t, newPair(t, 1))), Handler: h})
	client := secondClients(t, 1)[0]
	if _, err := get(t, client, s.URL()); err != nil { // from here on the limit is known to the client
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if got, err := get(t, client, s.URL()+"/hold"); err != nil || got != http.StatusNoContent {
				t.Errorf("GET = %d, %v; want 204", got, err)
			}
		})
	}
	for range 32 {
		<-h.entered
	}
	for more := true; more; {
		select {
		case <-h.entered: // the client may open another connection
		case <-time.After(300 * time.Millisecond): // long enough for one that is there already
			more = false
		}
	}
	if most := h.mostAtOnce(); most != 32 {
		t.Errorf("%d requests of one connection are in hand, want 32", most)
	}
	close(h.leave)
	wg.Wait()
}

func TestRequestsOfAllConnectionsAreBounded(t *testing.T) {
	h := newHolder()
	s := serve(t, httpserver.Config{TLS: new(tlsFiles(t, newPair(t, 1))), Handler: h, MaxConnections: 1})
	var wg sync.WaitGroup
	var mu sync.Mutex
	counted := map[int]int{}
	for _, client := range secondClients(t, 9) {
		if _, err := get(t, client, s.URL()); err != nil {
			t.Fatal(err)
		}
		for range 32 {
			wg.Go(func() {
				got, err := get(t, client, s.URL()+"/hold")
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				counted[got]++
			})
		}
	}
	for range 257 {
		<-h.entered
	}
	refused := func() int {
		mu.Lock()
		defer mu.Unlock()
		return counted[http.StatusServiceUnavailable]
	}
	for deadline := time.Now().Add(10 * time.Second); refused() < 9*32-257 && time.Now().Before(deadline); {
		<-time.After(5 * time.Millisecond)
	}
	close(h.leave)
	wg.Wait()
	if counted[http.StatusNoContent] != 257 || counted[http.StatusServiceUnavailable] != 9*32-257 {
		t.Errorf("answers %v, want 257 of 204 and the others 503", counted)
	}
}

// TestAClientThatDoesNotReadIsCutOff: an answer that nobody takes holds its handler no longer than the timeout.
func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	for name, files := range map[string]*httpserver.TLS{"plain": nil, "encrypted": new(tlsFiles(t, newPair(t, 1)))} {
		ended := make(chan error, 1)
		s := serve(t, httpserver.Config{TLS: files, Timeouts: httpserver.Timeouts{Write: 200 * time.Millisecond}, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 1<<20)
			for range 256 {
				if _, err := w.Write(chunk); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		})})
		conn := dial(t, s)
		if files != nil {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's certificate
		}
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s: the answer was written though nobody read it", name)
			}
		case <-ctx.Done():
			t.Errorf("%s: the handler still writes", name)
		}
		cancel()
	}
}
