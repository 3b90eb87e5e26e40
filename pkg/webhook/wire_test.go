package webhook_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// wire opens a connection to a real server with handler.
func wire(t *testing.T, handler http.Handler) (net.Conn, *bufio.Reader) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// exchange sends one request, whose body may be shorter than its announced length, and reads the answer.
func exchange(t *testing.T, conn net.Conn, answers *bufio.Reader, authorization, body string, length int) (status int, closed bool) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "POST /webhooks/harbor/demo HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		authorization, length, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Close
}

func TestABodyThatDoesNotCome(t *testing.T) {
	for _, tt := range []struct {
		name, authorization string
		status              int
	}{
		{"from a friend", authorization, http.StatusRequestTimeout},
		{"from a stranger", planted, http.StatusUnauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, answers := wire(t, newDoor(t, nil).engine)
			start := time.Now()
			status, closed := exchange(t, conn, answers, tt.authorization, `{"type":`, 500)
			if status != tt.status || !closed {
				t.Errorf("status = %d, connection closed: %t; want %d and closed", status, closed, tt.status)
			}
			if took := time.Since(start); took >= 3*time.Second {
				t.Errorf("answer took %s, want less than 3s", took)
			}
		})
	}
}

// A publication may take longer than a body, and the connection serves further requests.
func TestTheDeadlineOfTheBodyIsNotThatOfTheRequest(t *testing.T) {
	d := newDoor(t, nil)
	d.queue.enqueue = func(context.Context, artifact.Request) error {
		// Longer than a body may take.
		<-time.After(time.Second)
		return nil
	}
	ended := make(chan error, 2)
	conn, answers := wire(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.engine.ServeHTTP(w, r)
		ended <- r.Context().Err()
	}))
	body := payload{}.encode(t, webhook.Default)
	for range 2 {
		if got, _ := exchange(t, conn, answers, authorization, body, len(body)); got != http.StatusAccepted {
			t.Errorf("status = %d, want 202", got)
		}
		if err := <-ended; err != nil {
			t.Errorf("the request's context ended with %v though the client waits", err)
		}
	}
}
