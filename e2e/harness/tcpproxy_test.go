package harness_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// echo starts a server that says its name to each connection and then what it hears.
func echo(t *testing.T, name string) (address string, stop func()) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop = func() { _ = l.Close() }
	t.Cleanup(stop)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				if _, err := io.WriteString(c, name); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	return l.Addr().String(), stop
}

func startProxy(t *testing.T, targets ...string) *harness.TCPProxy {
	t.Helper()
	p, err := harness.StartTCPProxy(t.Context(), "", targets...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return p
}

func dial(t *testing.T, p *harness.TCPProxy) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// read gives what a connection says next, of a known length.
func read(c net.Conn, n int, within time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	text := make([]byte, n)
	got, err := io.ReadFull(c, text)
	return string(text[:got]), err
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func wantText(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got, err := read(c, len(want), 10*time.Second); got != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// wantSilence says that nothing comes, which nothing but time can show.
func wantSilence(t *testing.T, c net.Conn) {
	t.Helper()
	if got, err := read(c, 1, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %q, %v, want silence", got, err)
	}
}

func wantBroken(t *testing.T, c net.Conn) {
	t.Helper()
	if got, err := read(c, 1, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %q, %v, want a broken connection", got, err)
	}
}

// wantRefused says that a new connection breaks, while it is made or as soon as it is.
func wantRefused(t *testing.T, p *harness.TCPProxy) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	wantBroken(t, c)
}

func TestTCPProxy(t *testing.T) {
	t.Parallel()
	target, _ := echo(t, "a")
	p := startProxy(t, target)
	first := dial(t, p)
	wantText(t, first, "a")

	p.Set(harness.Swallow)
	say(t, first, "hidden")
	second := dial(t, p)
	wantSilence(t, first)
	wantSilence(t, second)
	p.Set(harness.Pass)
	wantText(t, first, "hidden")
	wantText(t, second, "a")

	p.Reset()
	wantBroken(t, first)
	third := dial(t, p)
	wantText(t, third, "a")

	p.Set(harness.Refuse)
	wantBroken(t, third)
	wantRefused(t, p)
	p.Set(harness.Pass)
	fourth := dial(t, p)
	wantText(t, fourth, "a")
	if got := p.Accepted(); got != 5 {
		t.Errorf("%d connections were made, want 5", got)
	}

	// One end has no more to say and still hears the other one.
	say(t, fourth, "last words")
	if half, ok := fourth.(*net.TCPConn); !ok || half.CloseWrite() != nil {
		t.Fatal("half of the connection cannot be closed")
	}
	if rest, err := io.ReadAll(fourth); string(rest) != "last words" {
		t.Errorf("read %q, %v, want the last words", rest, err)
	}
}

// A proxy that ends while it swallows leaves nobody waiting.
func TestTCPProxyEnds(t *testing.T) {
	t.Parallel()
	target, _ := echo(t, "a")
	p := startProxy(t, target)
	open := dial(t, p)
	wantText(t, open, "a")
	p.Set(harness.Swallow)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wantBroken(t, open)
	if err := p.Close(); err != nil {
		t.Errorf("the second Close is %v, want nothing", err)
	}
}

// Connections go to the targets in turn, and past one that is not there.
func TestTCPProxyBalances(t *testing.T) {
	t.Parallel()
	a, stop := echo(t, "a")
	b, _ := echo(t, "b")
	p := startProxy(t, a, b)
	met := func(n int) map[string]int {
		names := make(map[string]int)
		for range n {
			name, err := read(dial(t, p), 1, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			names[name]++
		}
		return names
	}
	if got := met(6); got["a"] != 3 || got["b"] != 3 {
		t.Errorf("six connections met %v, want each three times", got)
	}
	stop()
	if got := met(4); got["b"] != 4 {
		t.Errorf("four connections met %v, want the one that is there", got)
	}
	wantRefused(t, startProxy(t, a))
}
