package harness

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// nobody is an address on which nobody listens: what nodes tell each other about themselves would lead past the proxies.
const nobody = "127.0.0.1:1"

// users are those of deploy/nats, and one more that only copies for tests have.
func (n *NATS) users() []string {
	return []string{natsOwner, natsReceiver, "operator", "backup", "restore", "admin", natsFiller}
}

// secrets writes the passwords of all users, and certificates where they are needed.
func (n *NATS) secrets() error {
	for _, user := range n.users() {
		n.passwords[user] = rand.Text()
		if err := os.WriteFile(n.PasswordFile(user), []byte(n.passwords[user]+"\n"), 0o600); err != nil {
			return fmt.Errorf("writing a secret: %w", err)
		}
	}
	if n.options.OneAccount {
		return nil
	}
	authority, err := newAuthority(n.options.Dir, "nats")
	if err != nil {
		return err
	}
	n.authority = authority
	return authority.issue(n.options.Dir, "nats")
}

// env is what the configuration of deploy/nats takes from the environment: passwords as hashes, which cost little here.
func (n *NATS) env(node *Node) ([]string, error) {
	if n.options.OneAccount {
		return nil, nil
	}
	env := []string{
		"NATS_SERVER_NAME=" + node.Name, "NATS_STORE_DIR=" + filepath.Join(n.options.Dir, node.Name),
		"NATS_TLS_CERT=" + filepath.Join(n.options.Dir, "nats.crt"), "NATS_TLS_KEY=" + filepath.Join(n.options.Dir, "nats.key"),
		"NATS_TLS_CA=" + n.authority.File,
	}
	for _, user := range n.users() {
		hash, err := bcrypt.GenerateFromPassword([]byte(n.passwords[user]), bcrypt.MinCost)
		if err != nil {
			return nil, fmt.Errorf("hashing a password: %w", err)
		}
		env = append(env, "NATS_"+strings.ToUpper(user)+"_PASSWORD="+string(hash))
	}
	for i, other := range n.Nodes {
		address := other.cluster // its own, which it knows for itself
		if link := n.links[[2]*Node{node, other}]; link != nil {
			address = link.Addr()
		}
		env = append(env, "NATS_ROUTE_"+strconv.Itoa(i+1)+"=nats-route://"+address)
	}
	return env, nil
}

// configure writes the configuration of a node: that of deploy/nats, but for addresses and the limit of the store.
func (n *NATS) configure(ctx context.Context, node *Node) error {
	if n.options.OneAccount {
		return writeText(node.config, n.oneAccount(node))
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	file := "nats-server.conf"
	if len(n.Nodes) == 1 {
		file = "single.conf"
	}
	// Files that are included lie beside, and have addresses as well.
	dir := filepath.Join(n.options.Dir, node.Name+"-conf")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	node.config = filepath.Join(dir, file)
	for _, one := range []struct {
		name    string
		changes [][2]string
	}{
		{"accounts.conf", n.moreUsers()},
		{"common.conf", [][2]string{
			{`listen: "0.0.0.0:4222"`, "listen: " + strconv.Quote(node.Client)},
			{`http: "127.0.0.1:8222"`, "http: " + strconv.Quote(node.Monitor)},
			{"max_file_store: 40GB", "max_file_store: " + n.options.MaxStore},
		}},
		{"nats-server.conf", [][2]string{
			{`listen: "0.0.0.0:6222"`, "listen: " + strconv.Quote(node.cluster) + "\n  advertise: " + strconv.Quote(nobody)},
		}},
		{"single.conf", nil},
	} {
		raw, err := os.ReadFile(filepath.Join(root, "deploy", "nats", one.name)) //nolint:gosec // a file of this repository
		if err != nil {
			return fmt.Errorf("reading the servers' configuration: %w", err)
		}
		text := string(raw)
		for _, change := range one.changes {
			if strings.Count(text, change[0]) != 1 {
				return fmt.Errorf("reading the servers' configuration: %s has not just one %q", one.name, change[0])
			}
			text = strings.Replace(text, change[0], change[1], 1)
		}
		if err := writeText(filepath.Join(dir, one.name), text); err != nil {
			return err
		}
	}
	return nil
}

// moreUsers puts the filler beside the operator.
func (n *NATS) moreUsers() [][2]string {
	const operator = "{ user: operator, password: $NATS_OPERATOR_PASSWORD, permissions: $OPERATOR_RIGHTS }"
	if !n.options.Filler {
		return nil
	}
	return [][2]string{{operator, operator + fillerUser}}
}

// oneAccount is a configuration of former releases: everybody in one account, and no TLS.
func (n *NATS) oneAccount(node *Node) string {
	var b strings.Builder
	q := strconv.Quote
	fmt.Fprintf(&b, "server_name: %s\nlisten: %s\nhttp: %s\n", node.Name, q(node.Client), q(node.Monitor))
	fmt.Fprintf(&b, "jetstream { store_dir: %s, sync_interval: always, max_file_store: %s }\n",
		q(filepath.Join(n.options.Dir, node.Name)), n.options.MaxStore)
	b.WriteString("accounts {\n  HARBORSEAL { jetstream: enabled, users: [\n")
	for _, user := range []string{natsOwner, natsReceiver} {
		fmt.Fprintf(&b, "    { user: %s, password: %s }\n", user, q(n.passwords[user]))
	}
	b.WriteString("  ] }\n  SYS {}\n}\nsystem_account: SYS\n")
	if len(n.Nodes) == 1 {
		return b.String()
	}
	fmt.Fprintf(&b, "cluster {\n  name: harborseal\n  listen: %s\n  advertise: %s\n  no_advertise: true\n  routes: [\n", q(node.cluster), q(nobody))
	for _, other := range n.Nodes {
		if link := n.links[[2]*Node{node, other}]; link != nil {
			fmt.Fprintf(&b, "    %s\n", q("nats-route://"+link.Addr()))
		}
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

func writeText(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil { //nolint:gosec // a file of the harness's own
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// tls is how this process reaches the servers; nil for plainly.
func (n *NATS) tls() *tls.Config {
	if n.authority == nil {
		return nil
	}
	return &tls.Config{RootCAs: n.authority.pool, MinVersion: tls.VersionTLS12}
}

// errNoDeploy cannot happen in a checkout of this repository.
var errNoDeploy = errors.New("this is no module's folder")

// moduleRoot is the folder of this module.
func moduleRoot(ctx context.Context) (string, error) {
	file, err := goCommand(ctx, ".", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	if file = strings.TrimSpace(file); filepath.Base(file) != "go.mod" {
		return "", errNoDeploy
	}
	return filepath.Dir(file), nil
}
