package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Accounts and users of the servers: signers are owners, receivers are given no more than they need.
const (
	natsOwner    = "signer"
	natsReceiver = "receiver"
)

// NATSOptions are what servers are made of. Program and Dir are required.
type NATSOptions struct {
	// Program is the built server; see BuildNATS.
	Program string
	// Dir is a folder for configurations, logs and streams; it is made.
	Dir string
	// Nodes is how many servers there are, 1 or 3; 0 means 1.
	Nodes int
	// OneAccount puts everybody into one account and connects without TLS, as releases did that know no other. Otherwise the
	// configuration is that of deploy/nats, and receivers have an account that imports what they need.
	OneAccount bool
	// MaxStore is the limit of a server's streams in the server's own units, such as 64MB. Empty means 1GB.
	MaxStore string
	// Filler adds a user by whom Fill and Empty work. It takes accounts.
	Filler bool
	// Volume, unless it is 0, puts the store of each node on a volume of its own of so many bytes, if this process may mount
	// one; see NATS.Volumes.
	Volume int64
}

// NATS are NATS servers of their own, one or a cluster, on the loopback interface. Nodes reach each other, and programs the
// nodes, through proxies that can be cut. Every write is synced.
//
// It is for one goroutine, but for Kill, Cut, Heal and what only asks, which are safe beside the rest.
type NATS struct {
	Nodes []*Node

	options   NATSOptions
	authority *authority        // of the servers' certificates; nil without TLS
	passwords map[string]string // by user
	client    *http.Client

	// links are by who dials and who is dialled; not changed any more once StartNATS returns.
	links map[[2]*Node]*TCPProxy

	// volumes are those of the nodes, in their order; empty without. Not changed any more once StartNATS returns.
	volumes []*Volume

	mu    sync.Mutex
	doors []*Door // guarded by mu
}

// Node is one server, whether it runs at the moment or not.
type Node struct {
	Name string
	// Client is the address (host:port) for clients without a proxy, Monitor that of the server's health.
	Client, Monitor string

	cluster, config string

	mu      sync.Mutex
	process *Process // guarded by mu
}

// Door is how one program reaches the servers: through a proxy of its own for each.
type Door struct {
	// Proxies are in the order of NATS.Nodes.
	Proxies []*TCPProxy
	scheme  string
}

// URLs are what the program is told to connect to.
func (d *Door) URLs() []string {
	urls := make([]string, len(d.Proxies))
	for i, p := range d.Proxies {
		urls[i] = d.scheme + p.Addr()
	}
	return urls
}

// Set does the same to all of its proxies.
func (d *Door) Set(flow Flow) {
	for _, p := range d.Proxies {
		p.Set(flow)
	}
}

// BuildNATS builds the server that this module depends on into dir, and gives its path.
func BuildNATS(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "nats-server")
	_, err := goCommand(ctx, ".", "build", "-o", path, "github.com/nats-io/nats-server/v2")
	return path, err
}

// StartNATS starts servers and waits until all of them are healthy. Close ends them.
func StartNATS(ctx context.Context, o NATSOptions) (*NATS, error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.MaxStore == "" {
		o.MaxStore = "1GB"
	}
	n := &NATS{
		options: o, passwords: make(map[string]string), links: make(map[[2]*Node]*TCPProxy),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second},
	}
	err := n.prepare(ctx)
	for _, node := range n.Nodes {
		if err == nil {
			err = n.Launch(ctx, node)
		}
	}
	if err == nil {
		err = n.AwaitHealthy(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting NATS: %w\n%s", err, n.Tails()), n.Close()) //nolint:contextcheck // what is there is ended also if ctx has
	}
	return n, nil
}

// prepare makes the files and the proxies between the nodes.
func (n *NATS) prepare(ctx context.Context) error {
	if err := os.MkdirAll(n.options.Dir, 0o700); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	if err := n.mount(ctx); err != nil {
		return err
	}
	if err := n.secrets(); err != nil {
		return err
	}
	addresses, err := FreePorts(ctx, 3*n.options.Nodes)
	if err != nil {
		return err
	}
	for i := range n.options.Nodes {
		name := nodeName(i)
		n.Nodes = append(n.Nodes, &Node{
			Name: name, Client: addresses[3*i], Monitor: addresses[3*i+1], cluster: addresses[3*i+2],
			config: filepath.Join(n.options.Dir, name+".conf"),
		})
	}
	for _, from := range n.Nodes {
		for _, to := range n.Nodes {
			if from == to {
				continue
			}
			if n.links[[2]*Node{from, to}], err = StartTCPProxy(ctx, "", to.cluster); err != nil {
				return err
			}
		}
	}
	for _, node := range n.Nodes {
		if err := n.configure(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func nodeName(i int) string { return "n" + strconv.Itoa(i+1) }

// Door makes a way to the servers for one program. It ends with the servers.
func (n *NATS) Door(ctx context.Context) (*Door, error) {
	d := &Door{scheme: n.scheme()}
	n.mu.Lock()
	n.doors = append(n.doors, d)
	n.mu.Unlock()
	for _, node := range n.Nodes {
		p, err := StartTCPProxy(ctx, "", node.Client)
		if err != nil {
			return nil, err
		}
		d.Proxies = append(d.Proxies, p)
	}
	return d, nil
}

// URL is where all servers are without proxies, separated by commas.
func (n *NATS) URL() string {
	var urls []string
	for _, node := range n.Nodes {
		urls = append(urls, n.scheme()+node.Client)
	}
	return strings.Join(urls, ",")
}

func (n *NATS) scheme() string {
	if n.authority != nil {
		return "tls://"
	}
	return "nats://"
}

// Replicas is how many servers keep each stream.
func (n *NATS) Replicas() int { return len(n.Nodes) }

// PasswordFile is the file with a user's password.
func (n *NATS) PasswordFile(user string) string {
	return filepath.Join(n.options.Dir, user+".password")
}

// Connect connects to the servers without proxies, as the user whose account owns the streams; to one of them if nodes are named.
func (n *NATS) Connect(nodes ...*Node) (*nats.Conn, error) {
	address := n.URL()
	if len(nodes) > 0 {
		address = n.scheme() + nodes[0].Client
	}
	return n.connectAs(natsOwner, address)
}

// Launch starts a node that does not run, on its store, and does not wait.
func (n *NATS) Launch(ctx context.Context, node *Node) error {
	env, err := n.env(node)
	if err != nil {
		return err
	}
	p, err := Launch(ctx, Command{
		Env: env, Name: node.Name, Path: n.options.Program, Args: []string{"--config", node.config}, Log: filepath.Join(n.options.Dir, node.Name+".log"),
	})
	if err == nil {
		node.mu.Lock()
		node.process = p
		node.mu.Unlock()
	}
	return err
}

// Process is the node's last process; nil before the first.
func (n *Node) Process() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Running says whether the node's process runs.
func (n *Node) Running() bool {
	p := n.Process()
	return p != nil && p.Running()
}

// Start starts a node and waits until it is healthy: it has what the others have.
func (n *NATS) Start(ctx context.Context, node *Node) error {
	if err := n.Launch(ctx, node); err != nil {
		return err
	}
	return n.AwaitHealthy(ctx, node)
}

// Kill sends a node SIGKILL and waits for its end.
func (n *NATS) Kill(node *Node) error {
	if p := node.Process(); p != nil {
		return p.Kill()
	}
	return nil
}

// Tails gives the last lines of all servers' output.
func (n *NATS) Tails() string {
	var all strings.Builder
	for _, node := range n.Nodes {
		if p := node.Process(); p != nil {
			all.WriteString(p.Tail())
		}
	}
	return all.String()
}

// Close ends all servers and proxies.
func (n *NATS) Close() error {
	var errs []error
	for _, node := range n.Nodes {
		if p := node.Process(); p != nil {
			errs = append(errs, p.Kill())
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, link := range n.links {
		errs = append(errs, link.Close())
	}
	for _, p := range slices.Concat(proxiesOf(n.doors)...) {
		errs = append(errs, p.Close())
	}
	for _, v := range n.volumes {
		errs = append(errs, v.Close())
	}
	n.volumes = nil
	return errors.Join(errs...)
}

func proxiesOf(doors []*Door) [][]*TCPProxy {
	all := make([][]*TCPProxy, len(doors))
	for i, d := range doors {
		all[i] = d.Proxies
	}
	return all
}
