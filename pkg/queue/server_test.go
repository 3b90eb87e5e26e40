package queue_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// secretFile writes a password that only its owner may read.
func secretFile(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// logBuffer collects a log that several goroutines write.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestOneServerPerStore(t *testing.T) {
	t.Parallel()
	cfg := queue.ServerConfig{StoreDir: t.TempDir()}
	server := queuetest.StartServer(t, cfg)
	if _, err := queue.StartServer(t.Context(), cfg); err == nil {
		t.Fatal("a second server started on the same store")
	} else {
		wantErrorWith(t, err, "exactly one receiver may run on a store")
	}
	if err := server.Healthy(); err != nil {
		t.Errorf("Healthy = %v after the second one was refused", err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	queuetest.StartServer(t, cfg) // The lock is released.
}

func TestServerRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	readable := secretFile(t, "hunter2")
	if err := os.Chmod(readable, 0o640); err != nil { //nolint:gosec // the mistake that is to be found
		t.Fatal(err)
	}
	good := []queue.User{{Name: "signer", PasswordFile: secretFile(t, "hunter2")}}
	tests := []struct {
		name string
		cfg  queue.ServerConfig
		want string
	}{
		{"no store", queue.ServerConfig{}, "no folder"},
		{"negative limit", queue.ServerConfig{StoreDir: "x", MaxStore: -1}, "negative"},
		{"listener without users", queue.ServerConfig{StoreDir: "x", Listen: "127.0.0.1:0"}, "needs at least one user"},
		{"no port", queue.ServerConfig{StoreDir: "x", Listen: "127.0.0.1", Users: good}, "address of the listener"},
		{"named port", queue.ServerConfig{StoreDir: "x", Listen: "127.0.0.1:nats", Users: good}, "port of the listener"},
		{"password for all to read", queue.ServerConfig{
			StoreDir: "x", Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: readable}},
		}, "mode 0640"},
		{"no password file", queue.ServerConfig{
			StoreDir: "x", Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: "missing"}},
		}, "missing"},
		{"empty password", queue.ServerConfig{
			StoreDir: "x", Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: secretFile(t, "")}},
		}, "is empty"},
		{"long password", queue.ServerConfig{
			StoreDir: "x", Listen: "127.0.0.1:0",
			Users: []queue.User{{Name: "signer", PasswordFile: secretFile(t, strings.Repeat("hunter2", 11))}},
		}, "72 bytes"},
		{"user without a name", queue.ServerConfig{
			StoreDir: "x", Listen: "127.0.0.1:0", Users: []queue.User{{PasswordFile: good[0].PasswordFile}},
		}, "user name"},
		{"no certificate", queue.ServerConfig{
			StoreDir: "x", Listen: "127.0.0.1:0", Users: good, TLS: &queue.TLSConfig{CertFile: "missing", KeyFile: "missing"},
		}, "certificate of the listener"},
		{"address in use", queue.ServerConfig{StoreDir: "x", Listen: taken.Addr().String(), Users: good}, "address already in use"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.cfg.StoreDir != "" {
				tt.cfg.StoreDir = t.TempDir()
			}
			server, err := queue.StartServer(t.Context(), tt.cfg)
			if err == nil {
				_ = server.Shutdown(context.Background())
			}
			wantErrorWith(t, err, tt.want)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestPasswordsAreRequiredAndKeptSecret(t *testing.T) {
	t.Parallel()
	var log logBuffer
	logger := newLogger(&log)
	serverCfg, clientCfg := network(t)
	serverCfg.Logger, clientCfg.Logger = logger, logger
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}

	wrong := clientCfg
	wrong.PasswordFile = secretFile(t, "wrong horse")
	unknown := clientCfg
	unknown.Username = "nobody"
	anonymous := clientCfg
	anonymous.Username, anonymous.PasswordFile = "", ""
	internal := clientCfg
	internal.Username = "in-process"
	for name, cfg := range map[string]queue.Config{
		"wrong password": wrong, "unknown user": unknown, "no user": anonymous, "the user of the process": internal,
	} {
		client, err := queue.Connect(t.Context(), cfg)
		if err == nil {
			client.Close()
		}
		wantFault(t, err, fault.Permanent, fault.Unauthorized)
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: the error holds the password: %v", name, err)
		}
	}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "horse") {
		t.Errorf("the log holds a password: %s", log.String())
	}
}

func TestConnectRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	readable := secretFile(t, "hunter2")
	if err := os.Chmod(readable, 0o604); err != nil { //nolint:gosec // the mistake that is to be found
		t.Fatal(err)
	}
	urls := []string{"nats://127.0.0.1:1"}
	tests := []struct {
		name string
		cfg  queue.Config
		want string
	}{
		{"nothing", queue.Config{}, "either the embedded server or URLs"},
		{"both", queue.Config{Server: server, URLs: urls}, "either the embedded server or URLs"},
		{"credentials for the embedded server", queue.Config{Server: server, Username: "x", PasswordFile: "y"}, "needs no credentials"},
		{"harbor with a dot", queue.Config{Harbor: "a.b", Server: server}, "harbor name"},
		{"password in the URL", queue.Config{URLs: []string{"nats://user:hunter2@127.0.0.1:1"}}, "contains credentials"},
		{"URL that cannot be read", queue.Config{URLs: []string{"nats://user:hunter2@127.0.0.1:x\x00"}}, "cannot be read"},
		{"other scheme", queue.Config{URLs: []string{"http://127.0.0.1:1"}}, "want nats://"},
		{"user without a password", queue.Config{URLs: urls, Username: "x"}, "both a user name and a password"},
		{"two kinds of credentials", queue.Config{URLs: urls, Username: "x", PasswordFile: "y", CredentialsFile: "z"}, "either a user name"},
		{"password for all to read", queue.Config{URLs: urls, Username: "x", PasswordFile: readable}, "mode 0604"},
		{"credentials for all to read", queue.Config{URLs: urls, CredentialsFile: readable}, "mode 0604"},
		{"authorities that are not there", queue.Config{URLs: urls, TLS: queue.ClientTLS{CAFile: "missing"}}, "authorities"},
		{"authorities that are none", queue.Config{URLs: urls, TLS: queue.ClientTLS{CAFile: readable}}, "no certificate"},
		{"credentials that are not there", queue.Config{URLs: urls, CredentialsFile: "missing"}, "credentials file"},
		{"certificate without key", queue.Config{URLs: urls, TLS: queue.ClientTLS{CertFile: "x"}}, "client certificate"},
		{"replicas", queue.Config{Server: server, Replicas: 7}, "replicas"},
		{"ack wait", queue.Config{Server: server, AckWait: -1}, "ack wait"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			client, err := queue.Connect(ctx, tt.cfg)
			if err == nil {
				client.Close()
			}
			wantErrorWith(t, err, tt.want)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	first := queuetest.StartServer(t, serverCfg)
	serverCfg.Listen = first.Addr()
	if err := first.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	clientCfg.URLs = []string{"nats://" + serverCfg.Listen}
	dialled := make(chan string, 1000)
	clientCfg.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled <- address
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}

	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := queue.Connect(short, clientCfg)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Connect = %v, want it to wait until its context ends", err)
	}
	receive(t, dialled, "the dialer")

	connected := make(chan *queue.Client, 1)
	go func() {
		client, err := queue.Connect(t.Context(), clientCfg)
		if err != nil {
			t.Errorf("Connect = %v", err)
		}
		connected <- client
	}()
	if got := receive(t, dialled, "an attempt before the server is there"); got != serverCfg.Listen {
		t.Errorf("dialled %s, want %s", got, serverCfg.Listen)
	}
	queuetest.StartServer(t, serverCfg)
	client := receive(t, connected, "the connection")
	defer client.Close()
	if err := client.Setup(t.Context()); err != nil {
		t.Errorf("Setup = %v", err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	registry := prometheus.NewRegistry()
	clientCfg.URLs, clientCfg.Registerer = []string{"nats://" + server.Addr()}, registry
	client := queuetest.Connect(t, clientCfg)
	if _, err := queue.Connect(t.Context(), clientCfg); err == nil {
		t.Error("two clients share a registerer")
	}
	_, err := client.Enqueue(t.Context(), request(ref(t, "demo/app", 1), artifact.Live))
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	k := consume(t, client, queue.ConsumeConfig{})
	d := k.next(t)
	for name, want := range map[string]float64{
		"harborseal_queue_publish_seconds": 2, "harborseal_queue_publish_errors_total": 1, "harborseal_queue_in_flight": 1,
		"harborseal_queue_connected": 1, "harborseal_queue_reconnects_total": 0, "harborseal_queue_waiting_for_slot": 0,
	} {
		if got := value(t, registry, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if err := d.Retry(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	close(d.finish)
	k.next(t)
	if got := value(t, registry, "harborseal_queue_redeliveries_total"); got != 1 {
		t.Errorf("redeliveries = %v, want 1", got)
	}
	startAgain(t, server, serverCfg)
	eventually(t, "the reconnect is counted", func() bool {
		return value(t, registry, "harborseal_queue_reconnects_total") == 1 && value(t, registry, "harborseal_queue_connected") == 1
	})
}

// value adds up a metric over its labels; of a histogram, the observations.
func value(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
		return sum
	}
	t.Fatalf("metric %s is missing", name)
	return 0
}

// A user can be given the right to listen for its own answers alone.
func TestInboxPrefix(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  func(*queue.Config)
		want string
	}{
		{"of the user", func(*queue.Config) {}, "_INBOX_signer.>"},
		{"configured", func(cfg *queue.Config) { cfg.InboxPrefix = "_MINE" }, "_MINE.>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			serverCfg, clientCfg := network(t)
			server := queuetest.StartServer(t, serverCfg)
			clientCfg.URLs = []string{"nats://" + server.Addr()}
			tt.cfg(&clientCfg)
			client := queuetest.Connect(t, clientCfg)
			raw := queue.RawConnection(t, server)
			mine, shared := make(chan *nats.Msg, 1000), make(chan *nats.Msg, 1000)
			for subject, messages := range map[string]chan *nats.Msg{tt.want: mine, "_INBOX.>": shared} {
				if _, err := raw.ChanSubscribe(subject, messages); err != nil {
					t.Fatal(err)
				}
			}
			if err := raw.FlushTimeout(patience); err != nil {
				t.Fatal(err)
			}
			if err := client.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			receive(t, mine, "an answer on "+tt.want)
			if len(shared) > 0 {
				t.Error("an answer went to the inbox that all clients share by default")
			}
		})
	}
}
