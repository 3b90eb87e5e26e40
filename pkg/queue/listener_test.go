package queue_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func listening(t *testing.T) *queue.Server {
	t.Helper()
	return queuetest.StartServer(t, queue.ServerConfig{
		StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: secretFile(t, "hunter2")}},
	})
}

// dial opens a connection that says nothing.
func dial(t *testing.T, server *queue.Server) net.Conn {
	t.Helper()
	connection, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return connection
}

func TestListenerTakesSoManyConnections(t *testing.T) {
	t.Parallel()
	server := listening(t)
	var all []*bufio.Reader
	for range 520 {
		reader := bufio.NewReader(dial(t, server))
		if line, err := reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "INFO") {
			t.Fatalf("the server says %q, %v", line, err)
		}
		all = append(all, reader)
	}
	// All are cut off in the end, because they do not sign in; what the server says before tells why.
	refused := 0
	for _, reader := range all {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "maximum connections exceeded") {
			refused++
		}
	}
	// On a slow machine some of the first may have gone before the last came.
	if refused == 0 || refused > 8 {
		t.Errorf("%d of 520 connections were refused, want 8 or a few less", refused)
	}
	eventually(t, "there is room again for who signs in", func() bool {
		connection, err := nats.Connect("nats://"+server.Addr(), nats.UserInfo("signer", "hunter2"))
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
}

// Who does not read what it asked for is cut off before it takes the server's memory.
func TestListenerCutsOffWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	server := listening(t)
	slow := dial(t, server)
	if _, err := fmt.Fprint(slow, "CONNECT {\"verbose\":false,\"user\":\"signer\",\"pass\":\"hunter2\"}\r\nSUB flood 1\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	for reader := bufio.NewReader(slow); ; {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "PONG") {
			break
		}
	}
	raw, started := queue.RawConnection(t, server), time.Now()
	if err := raw.Publish("flood", make([]byte, 1<<20+1)); err == nil {
		t.Error("a message of more than 1 MiB was taken")
	}
	for i := range 64 {
		if err := raw.Publish("flood", make([]byte, 1<<20)); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	eventually(t, "the slow one is cut off", func() bool { return server.SlowConsumers() == 1 })
	if took := time.Since(started); took > 8*time.Second {
		t.Errorf("it was cut off after %s, by the time that it took and not by the memory", took)
	}
	if err := raw.FlushTimeout(patience); err != nil {
		t.Errorf("the other connection: %v", err)
	}
}
