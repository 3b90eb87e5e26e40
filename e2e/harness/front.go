package harness

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // net/http takes a logger of this kind
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Trouble is what a Front does in place of forwarding. Its zero value forwards.
type Trouble struct {
	// Refuse closes the listener: nobody is there.
	Refuse bool
	// Hang takes requests and never answers them.
	Hang bool
	// Status is an answer without the server; 0 for none. Body, Type and RetryAfter (seconds) are the rest of it.
	Status     int
	Body, Type string
	RetryAfter string
	// Expired shows a certificate whose time is over.
	Expired bool
	// Swallow forwards requests that take something new and loses the answers: the connection breaks.
	Swallow bool
}

// Front stands before a server, speaks TLS for it under a name, and causes trouble. It is safe for concurrent use.
type Front struct {
	// Address is its host and port; CAFile has the authority of its certificate.
	Address, CAFile string

	names   []string
	ca      *x509.Certificate
	caKey   *ecdsa.PrivateKey
	proxy   *httputil.ReverseProxy
	good    tls.Certificate
	expired tls.Certificate

	mu       sync.Mutex
	trouble  Trouble       // guarded by mu
	changed  chan struct{} // closed when the trouble changes; guarded by mu
	server   *http.Server  // guarded by mu; nil while nobody listens
	requests int           // guarded by mu; that were taken
	lost     int           // guarded by mu; of them, those whose answers were
}

// StartFront starts a front for a server, with a certificate for the names. Its files are in dir.
func StartFront(ctx context.Context, dir, target string, names ...string) (*Front, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("starting a front: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("starting a front: %w", err)
	}
	f := &Front{names: names, CAFile: filepath.Join(dir, "front-ca.pem"), changed: make(chan struct{})}
	f.proxy = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = to.Host },
		Transport: &http.Transport{MaxIdleConnsPerHost: 512},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	if err := f.makeCertificates(); err != nil {
		return nil, fmt.Errorf("starting a front: %w", err)
	}
	addresses, err := FreePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	f.Address = addresses[0]
	return f, f.listen(ctx)
}

// Port is the port of the address.
func (f *Front) Port() string {
	_, port, _ := net.SplitHostPort(f.Address)
	return port
}

// URL is where it is under one of its names.
func (f *Front) URL(name string) string { return "https://" + net.JoinHostPort(name, f.Port()) }

// Requests is how many requests have come.
func (f *Front) Requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// Lost is how many requests were forwarded and their answers lost.
func (f *Front) Lost() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

// Cause changes what it does, from now on; open connections are closed.
func (f *Front) Cause(ctx context.Context, t Trouble) error {
	f.mu.Lock()
	f.trouble = t
	close(f.changed)
	f.changed = make(chan struct{})
	server := f.server
	f.server = nil
	f.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
	if t.Refuse {
		return nil
	}
	return f.listen(ctx)
}

// Close ends it.
func (f *Front) Close() error { return f.Cause(context.Background(), Trouble{Refuse: true}) }

func (f *Front) listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", f.Address)
	if err != nil {
		return fmt.Errorf("listening for a front: %w", err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(f.serve), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: f.certificate},
	}
	f.mu.Lock()
	f.server = server
	f.mu.Unlock()
	go func() { _ = server.ServeTLS(l, "", "") }() // until it is closed
	return nil
}

func (f *Front) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble.Expired {
		return &f.expired, nil
	}
	return &f.good, nil
}

func (f *Front) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests++
	t, changed := f.trouble, f.changed
	f.mu.Unlock()
	switch {
	case t.Hang:
		select {
		case <-r.Context().Done():
		case <-changed:
		}
		panic(http.ErrAbortHandler)
	case t.Status != 0:
		if t.Type != "" {
			w.Header().Set("Content-Type", t.Type)
		}
		if t.RetryAfter != "" {
			w.Header().Set("Retry-After", t.RetryAfter)
		}
		w.WriteHeader(t.Status)
		_, _ = io.WriteString(w, t.Body)
	case t.Swallow && r.Method == http.MethodPost:
		f.proxy.ServeHTTP(&nowhere{header: http.Header{}}, r)
		f.mu.Lock()
		f.lost++
		f.mu.Unlock()
		panic(http.ErrAbortHandler)
	default:
		f.proxy.ServeHTTP(w, r)
	}
}

// nowhere is a response that nobody gets.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

func (f *Front) makeCertificates() error {
	var err error
	if f.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, f.caKey.Public(), f.caKey)
	if err != nil {
		return err
	}
	if f.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	if err := os.WriteFile(f.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	var goodErr, expiredErr error
	f.good, goodErr = f.issue(now.Add(-time.Hour), now.Add(60*24*time.Hour))
	f.expired, expiredErr = f.issue(now.Add(-48*time.Hour), now.Add(-24*time.Hour))
	return errors.Join(goodErr, expiredErr)
}

func (f *Front) issue(from, until time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "front"}, DNSNames: f.names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.ca, key.Public(), f.caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
