package queue_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/crypto/bcrypt"

	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// deployed are servers that run the configuration of deploy/nats, but for their addresses and folders.
type deployed struct {
	nodes []*node
	urls  []string
	ca    string
	dir   string // of password files
}

// deployedUsers are those of accounts.conf.
func deployedUsers() []string {
	return []string{"signer", "operator", "backup", "restore", "receiver", "admin"}
}

// deploy starts one server or three. change, which may be nil, makes the configuration another one before they start.
// The configuration reads the environment, so that a test that calls this cannot be parallel to others.
func deploy(t *testing.T, nodes int, change func(*server.Options)) *deployed {
	t.Helper()
	authority := newAuthority(t)
	d := &deployed{ca: authority.file, dir: t.TempDir()}
	for _, user := range deployedUsers() {
		if err := os.WriteFile(filepath.Join(d.dir, user), []byte(user+"-secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		hash, err := bcrypt.GenerateFromPassword([]byte(user+"-secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NATS_"+strings.ToUpper(user)+"_PASSWORD", string(hash))
	}
	cert, key := authority.issue(t, leaf())
	t.Setenv("NATS_TLS_CERT", cert)
	t.Setenv("NATS_TLS_KEY", key)
	t.Setenv("NATS_TLS_CA", authority.file)
	ports := freePorts(t, 2*nodes)
	var routes []*url.URL
	for i := range 3 {
		port := ports[nodes+min(i, nodes-1)]
		t.Setenv(fmt.Sprintf("NATS_ROUTE_%d", i+1), fmt.Sprintf("nats-route://127.0.0.1:%d", port))
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	file := map[int]string{1: "single.conf", 3: "nats-server.conf"}[nodes]
	for i := range nodes {
		t.Setenv("NATS_SERVER_NAME", fmt.Sprintf("nats-%d", i))
		t.Setenv("NATS_STORE_DIR", t.TempDir())
		opts, err := server.ProcessConfigFile(filepath.Join("..", "..", "deploy", "nats", file))
		if err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
		if nodes > 1 && fmt.Sprint(opts.Routes) != fmt.Sprint(routes) {
			t.Errorf("routes are %v, want %v", opts.Routes, routes)
		}
		opts.Host, opts.Port, opts.HTTPPort = "127.0.0.1", ports[i], 0
		opts.NoSigs, opts.NoLog = true, true
		if nodes > 1 {
			opts.Cluster.Host, opts.Cluster.Port = "127.0.0.1", ports[nodes+i]
		}
		if change != nil {
			change(opts)
		}
		n := &node{opts: opts}
		n.start(t)
		t.Cleanup(n.stop)
		d.nodes = append(d.nodes, n)
		d.urls = append(d.urls, "tls://"+net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[i])))
	}
	return d
}

// config is that of a program with a user.
func (d *deployed) config(user string) queue.Config {
	return queue.Config{
		URLs: d.urls, Username: user, PasswordFile: filepath.Join(d.dir, user), TLS: queue.ClientTLS{CAFile: d.ca},
		Imported: user == "receiver", Replicas: len(d.nodes),
	}
}

// connect connects a program and waits until it is set up.
func (d *deployed) connect(t *testing.T, user string) *queue.Client {
	t.Helper()
	return d.connectAs(t, d.config(user))
}

func (d *deployed) connectAs(t *testing.T, cfg queue.Config) *queue.Client {
	t.Helper()
	cfg.Logger = queuetest.NewLogger(t)
	client := queuetest.Connect(t, cfg)
	if cfg.Username == "signer" || cfg.Username == "receiver" {
		if err := client.Setup(t.Context()); err != nil {
			t.Fatalf("setting up as %s: %v", cfg.Username, err)
		}
	}
	return client
}

// raw connects without this package's client. Denials come to the channel.
func (d *deployed) raw(t *testing.T, user string) (*nats.Conn, <-chan error) {
	t.Helper()
	denials := make(chan error, 100)
	connection, err := nats.Connect(strings.Join(d.urls, ","), nats.UserInfo(user, user+"-secret"), nats.RootCAs(d.ca),
		nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denials <- err }))
	if err != nil {
		t.Fatalf("connecting as %s: %v", user, err)
	}
	t.Cleanup(connection.Close)
	return connection, denials
}
