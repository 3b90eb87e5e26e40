package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// Proxy is an HTTP proxy on the loopback interface that lets nothing through and remembers who was asked for. Go's
// programs pass loopback addresses by their proxy, so whatever comes here is a destination elsewhere. It is safe for
// concurrent use.
type Proxy struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}

	mu    sync.Mutex
	asked []string // guarded by mu
}

// StartProxy starts a recording proxy.
func StartProxy(ctx context.Context) (*Proxy, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the recording proxy: %w", err)
	}
	p := &Proxy{listener: listener, done: make(chan struct{})}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(p.done)
		_ = p.server.Serve(listener) // It ends when Close is called.
	}()
	return p, nil
}

// ServeHTTP refuses.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if r.URL.Host != "" {
		host = r.URL.Host
	}
	p.mu.Lock()
	if !slices.Contains(p.asked, host) {
		p.asked = append(p.asked, host)
	}
	p.mu.Unlock()
	http.Error(w, "no program of the test may go there", http.StatusForbidden)
}

// Asked gives the destinations that somebody wanted to reach.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// Env are the variables that send a program's requests here.
func (p *Proxy) Env() []string {
	address := "http://" + p.listener.Addr().String()
	return []string{
		"HTTP_PROXY=" + address, "HTTPS_PROXY=" + address, "http_proxy=" + address, "https_proxy=" + address,
	}
}

// Close stops the proxy.
func (p *Proxy) Close() error {
	err := p.server.Close()
	<-p.done
	return err
}

// Foreign gives the destinations in a program's record that are not among the configured ones (host:port each). A record
// that is not there has none.
func Foreign(record string, configured []string) ([]string, error) {
	f, err := os.Open(record) //nolint:gosec // a file of the harness's own
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of destinations: %w", err)
	}
	defer func() { _ = f.Close() }()
	var foreign []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var line struct {
			Address string `json:"address"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Address == "" {
			return nil, fmt.Errorf("reading the record of destinations: line %.100q is none", lines.Text())
		}
		if !slices.Contains(configured, line.Address) && !slices.Contains(foreign, line.Address) {
			foreign = append(foreign, line.Address)
		}
	}
	return foreign, lines.Err()
}
