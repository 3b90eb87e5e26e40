package harness

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Variables that name the servers of transparency logs; make sets them.
const (
	EnvRekor       = "HARBORSEAL_TEST_REKOR"
	EnvTrillianLog = "HARBORSEAL_TEST_TRILLIAN_LOG_SERVER"
	EnvTrillianSeq = "HARBORSEAL_TEST_TRILLIAN_LOG_SIGNER"
	EnvRekorTiles  = "HARBORSEAL_TEST_REKOR_TILES"
)

// Rekor is a real transparency log on the loopback interface, with a key of its own. Its methods are for one goroutine.
type Rekor struct {
	// Type is rekor-v1 or rekor-v2, as the configuration calls it.
	Type string
	// Address is the host and port where entries are taken, and URL the same with the scheme.
	Address, URL string
	// TilesURL is where a log of Rekor v2 is read; empty for Rekor v1.
	TilesURL string
	// Origin is the name that a log of Rekor v2 signs by; empty for Rekor v1.
	Origin string
	// PublicKey is a PEM file.
	PublicKey string

	server  Command // the one that takes entries
	process *Process
	// others are what it needs, in the order in which they were started.
	others []func() error
}

// RekorOptions are what a log may differ in. The zero value is good.
type RekorOptions struct {
	// Checkpoint is how often Rekor v2 publishes a checkpoint: 1 s if it is 0. No entry is answered sooner.
	Checkpoint time.Duration
	// Hostname is the origin of Rekor v2: 127.0.0.1 if it is empty, so that verifiers find it by its address.
	Hostname string
}

// program gives the path of a program that a variable names.
func program(variable string) (string, error) {
	path := os.Getenv(variable)
	if _, err := os.Stat(path); path == "" || err != nil { //nolint:gosec // the variable is there to name any program
		return "", fmt.Errorf("%s names no program (%q): run make tools, and call this by make", variable, path)
	}
	return path, nil
}

// writeLogKey makes the key of a log: files name.key and name.pub.
func writeLogKey(dir, name string) (private, public string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("making the key of %s: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("making the key of %s: %w", name, err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", fmt.Errorf("making the key of %s: %w", name, err)
	}
	private, public = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	for path, block := range map[string]*pem.Block{private: {Type: "PRIVATE KEY", Bytes: pkcs8}, public: {Type: "PUBLIC KEY", Bytes: spki}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return "", "", fmt.Errorf("making the key of %s: %w", name, err)
		}
	}
	return private, public, nil
}

// StartRekorV2 starts a log of Rekor v2 that keeps its tiles in dir, and a server of files for those. It takes less than a
// second; programs that verify what it signed need its Hostname in its address.
func StartRekorV2(ctx context.Context, dir string, o RekorOptions) (_ *Rekor, err error) {
	path, err := program(EnvRekorTiles)
	if err != nil {
		return nil, err
	}
	if o.Checkpoint == 0 {
		o.Checkpoint = time.Second
	}
	if o.Hostname == "" {
		o.Hostname = "127.0.0.1"
	}
	private, public, err := writeLogKey(dir, "rekor-v2")
	if err != nil {
		return nil, err
	}
	tiles := filepath.Join(dir, "rekor-v2")
	if err := os.MkdirAll(tiles, 0o700); err != nil {
		return nil, fmt.Errorf("starting Rekor v2: %w", err)
	}
	addresses, err := FreePorts(ctx, 3)
	if err != nil {
		return nil, err
	}
	r := &Rekor{Type: "rekor-v2", Address: addresses[0], URL: "http://" + addresses[0], Origin: o.Hostname, PublicKey: public}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.TilesURL, err = r.serveFiles(ctx, tiles); err != nil {
		return nil, err
	}
	r.server = Command{
		Name: "Rekor v2", Path: path, Log: filepath.Join(dir, "rekor-v2.log"), Env: []string{"HOME=" + dir},
		Args: append([]string{
			"serve", "--hostname", o.Hostname, "--signer-filepath", private, "--storage-dir", tiles, "--persistent-antispam",
			"--checkpoint-interval", o.Checkpoint.String(), "--log-level", "warn",
		}, ports("--http", addresses[0], "--grpc", addresses[1], "--http-metrics", addresses[2])...),
	}
	return r, r.Start(ctx)
}

// portOf gives the port of an address that [FreePorts] gave.
func portOf(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return port
}

// ports gives flags of ports, from pairs of what stands before "-port" and an address that [FreePorts] gave.
func ports(pairs ...string) (flags []string) {
	for pair := range slices.Chunk(pairs, 2) {
		flags = append(flags, pair[0]+"-port", portOf(pair[len(pair)-1]))
	}
	return flags
}

// serveFiles serves a folder.
func (r *Rekor) serveFiles(ctx context.Context, dir string) (url string, err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serving the tiles: %w", err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // It ends with Close.
	}()
	r.others = append(r.others, func() error {
		err := server.Close()
		<-done
		return wrap("serving the tiles", err)
	})
	return "http://" + listener.Addr().String(), nil
}

// Start starts the log after a Stop, where and with what it was before.
func (r *Rekor) Start(ctx context.Context) error {
	process, err := Launch(ctx, r.server)
	if err != nil {
		return err
	}
	r.process = process
	path := "/api/v1/log"
	if r.Type == "rekor-v2" {
		path = "/healthz"
	}
	return process.answers(ctx, func(ctx context.Context) error { return answersOK(ctx, r.URL+path) })
}

// Stop ends the log at once. What it has answered stays.
func (r *Rekor) Stop() error {
	if r.process == nil {
		return nil
	}
	return r.process.Kill()
}

// Close ends the log and all that it needs.
func (r *Rekor) Close() error {
	errs := []error{r.Stop()}
	for _, end := range slices.Backward(r.others) {
		errs = append(errs, end())
	}
	r.others = nil
	return errors.Join(errs...)
}

// answersOK makes one request.
func answersOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s: status %d", url, resp.StatusCode)
	}
	return nil
}
