package httpserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/httpserver"
)

func TestNewRefuses(t *testing.T) {
	taken := bind(t, httpserver.Config{}).Addr().String()
	files, other := tlsFiles(t, newPair(t, 1)), tlsFiles(t, newPair(t, 2))
	missing := filepath.Join(t.TempDir(), "none")
	tests := []struct {
		name   string
		change func(*httpserver.Config)
		want   string
	}{
		{"plain HTTP by accident", func(c *httpserver.Config) { c.AllowPlainHTTP = false }, "plain HTTP is not allowed"},
		{"no name", func(c *httpserver.Config) { c.Name = "" }, "no name"},
		{"no handler", func(c *httpserver.Config) { c.Handler = nil }, "no handler"},
		{"no port", func(c *httpserver.Config) { c.Listen = "127.0.0.1" }, "want host:port"},
		{"taken port", func(c *httpserver.Config) { c.Listen = taken }, "address already in use"},
		{"negative timeout", func(c *httpserver.Config) { c.Timeouts.Idle = -1 }, "negative"},
		{"negative header", func(c *httpserver.Config) { c.MaxHeaderBytes = -1 }, "negative"},
		{"certificate without key", func(c *httpserver.Config) { c.TLS = &httpserver.TLS{CertFile: files.CertFile} }, "both a certificate file and a key file"},
		{"missing file", func(c *httpserver.Config) { c.TLS = &httpserver.TLS{CertFile: missing, KeyFile: files.KeyFile} }, missing},
		{"key of another certificate", func(c *httpserver.Config) { c.TLS = &httpserver.TLS{CertFile: files.CertFile, KeyFile: other.KeyFile} }, "does not match"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := httpserver.Config{Name: "public", Listen: "127.0.0.1:0", AllowPlainHTTP: true, Handler: http.NotFoundHandler()}
			tt.change(&cfg)
			s, err := httpserver.New(cfg)
			if err == nil {
				t.Error(s.Stop(t.Context()))
				t.Fatalf("New() succeeded, want an error with %q", tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) || tt.name != "no name" && !strings.Contains(err.Error(), `"public"`) {
				t.Errorf("New() error = %q, want one that names the listener and says %q", err, tt.want)
			}
		})
	}
}

func get(t *testing.T, client *http.Client, url string) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, errors.Join(err, response.Body.Close())
	}
	return response.StatusCode, response.Body.Close()
}

// newClient makes a client that keeps no connection.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
}

func TestServesPlainHTTPWhereAllowed(t *testing.T) {
	s := serve(t, httpserver.Config{})
	if want := "http://" + s.Addr().String(); s.URL() != want {
		t.Errorf("URL() = %q, want %q", s.URL(), want)
	}
	if status, err := get(t, newClient(), s.URL()); err != nil || status != http.StatusNoContent {
		t.Errorf("GET = %d, %v; want 204", status, err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err() of a running server = %v, want nil", err)
	}
}

func TestSlowClientsAreCutOff(t *testing.T) {
	tests := []struct {
		name     string
		timeouts httpserver.Timeouts
		sent     string
		want     string // of the answer, if there is one
	}{
		{"half a header", httpserver.Timeouts{ReadHeader: 50 * time.Millisecond}, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", ""},
		{"nothing at all", httpserver.Timeouts{ReadHeader: 50 * time.Millisecond}, "", ""},
		{"half a body", httpserver.Timeouts{Read: 50 * time.Millisecond}, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", "408"},
		{"nothing after a request", httpserver.Timeouts{Idle: 50 * time.Millisecond}, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "204"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, httpserver.Config{Timeouts: tt.timeouts, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					w.WriteHeader(http.StatusRequestTimeout)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})})
			conn := dial(t, s)
			if _, err := io.WriteString(conn, tt.sent); err != nil {
				t.Fatal(err)
			}
			// The server closes: ReadAll ends long before the deadline of the connection, which would be an error.
			answer, err := io.ReadAll(conn)
			if err != nil {
				t.Fatalf("reading until the server closes: %v", err)
			}
			if !strings.Contains(string(answer), tt.want) || tt.want == "" && len(answer) != 0 {
				t.Errorf("answer = %q, want one with %q", answer, tt.want)
			}
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	s := serve(t, httpserver.Config{})
	for _, tt := range []struct {
		size, want int
	}{{8 << 10, http.StatusNoContent}, {32 << 10, http.StatusRequestHeaderFieldsTooLarge}} {
		conn := dial(t, s)
		if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", tt.size)); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		if response.StatusCode != tt.want {
			t.Errorf("status with a header of %d bytes = %d, want %d", tt.size, response.StatusCode, tt.want)
		}
	}
}

// busy is a server with one request in hand.
func busy(t *testing.T) (s *httpserver.Server, release func(), answer <-chan error) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	s = serve(t, httpserver.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		w.WriteHeader(http.StatusNoContent)
	})})
	done := make(chan error, 1)
	go func() {
		status, err := get(t, newClient(), s.URL())
		if err == nil && status != http.StatusNoContent {
			err = fmt.Errorf("status = %d, want 204", status)
		}
		done <- err
	}()
	<-entered
	return s, func() { close(leave) }, done
}

func TestStopLetsRequestsFinish(t *testing.T) {
	s, release, answer := busy(t)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(t.Context()) }()
	// Wait for the listener to close: from then on the server drains.
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr().String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("Stop() = %v before the request in hand was answered", err)
	default:
	}
	release()
	if err := <-answer; err != nil {
		t.Errorf("request in hand: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Stop() error = %v, want none", err)
	}
	<-s.Done()
	if err := s.Err(); err != nil {
		t.Errorf("Err() after Stop = %v, want nil", err)
	}
}

func TestStopCutsOffWhenItsTimeIsUp(t *testing.T) {
	s, release, answer := busy(t)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Stop() error = %v, want one that says that requests were cut off", err)
	}
	err := <-answer
	if waited, ok := errors.AsType[net.Error](err); err == nil || ok && waited.Timeout() {
		t.Errorf("the request in hand ended with %v, want its connection closed", err)
	}
}

func TestStopWithoutStart(t *testing.T) {
	s := bind(t, httpserver.Config{})
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Errorf("Stop() error = %v, want none", err)
		}
	}
	s.Start()
	<-s.Done()
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr().String()); err == nil {
		t.Errorf("the port is still open: %v", conn.Close())
	}
}

func TestErrorsOfTheServerGoIntoTheLog(t *testing.T) {
	log := &output{}
	s := serve(t, httpserver.Config{Logger: zerolog.New(log), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		w.WriteHeader(http.StatusOK)
	})})
	if _, err := get(t, newClient(), s.URL()); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, `"detail":"http: superfluous`) || !strings.Contains(got, `"listener":"test"`) {
		t.Errorf("log = %s, want the server's complaint, with the listener's name", got)
	}
}
