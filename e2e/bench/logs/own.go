package logs

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

// own puts entries into a log as fast as it takes them, and does nothing else.
type own struct {
	log       *tlog.Log
	transport *http.Transport
	waiting   int
	key       *ecdsa.PrivateKey
	public    []byte
}

// newOwn asks the log at an address; ca are files with authorities of its certificate.
func newOwn(log *harness.Rekor, url string, waiting int, ca ...string) (*own, error) {
	public, err := os.ReadFile(log.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("reading the log's key: %w", err)
	}
	pool := x509.NewCertPool()
	for _, path := range ca {
		pem, err := os.ReadFile(path) //nolint:gosec // a file of the harness
		if err != nil {
			return nil, fmt.Errorf("reading the authorities: %w", err)
		}
		pool.AppendCertsFromPEM(pem)
	}
	o := &own{waiting: waiting, transport: &http.Transport{
		MaxIdleConns: waiting, MaxIdleConnsPerHost: waiting, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}
	if o.log, err = tlog.New(tlog.Config{
		Name: log.Type, Type: policy.LogType(log.Type), URL: url, PublicKey: public, Origin: log.Origin, TilesURL: log.TilesURL,
		Transport: o.transport,
	}); err != nil {
		return nil, err
	}
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	if o.public, err = x509.MarshalPKIXPublicKey(o.key.Public()); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return o, nil
}

func (o *own) close() { o.transport.CloseIdleConnections() }

// measure puts n entries into the log, and adds what it has seen.
func (o *own) measure(ctx context.Context, n int, to *Own) error {
	signatures := make(chan artifact.Signature, n)
	for range n {
		s, err := o.sign()
		if err != nil {
			return err
		}
		signatures <- s
	}
	close(signatures)
	before := newLoad()
	g, ctx := errgroup.WithContext(ctx)
	for range o.waiting {
		g.Go(func() error {
			for s := range signatures {
				if _, err := o.log.Submit(ctx, s); err != nil {
					return fmt.Errorf("putting an entry into the log: %w", err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	used := before.since()
	to.add(Own{Entries: n, Took: used.took, CPU: used.started, Client: used.self})
	return nil
}

// sign makes a bundle's signature, of something.
func (o *own) sign() (s artifact.Signature, err error) {
	const kind = "application/vnd.in-toto+json"
	subject := sha256.Sum256([]byte(rand.Text()))
	s = artifact.Signature{Format: artifact.Bundle, PublicKey: o.public, Payload: fmt.Appendf(nil,
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"image","digest":{"sha256":"%x"}}],`+
			`"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, subject)}
	// SPEC: DSSE, protocol: the signature is over the pre-authentication encoding of type and payload.
	message := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(s.Payload), s.Payload))
	if s.Bytes, err = ecdsa.SignASN1(rand.Reader, o.key, message[:]); err != nil {
		return s, fmt.Errorf("signing: %w", err)
	}
	return s, nil
}

// size is how many entries a log has: all that it has answered with are counted.
func size(ctx context.Context, log *harness.Rekor) (int, error) {
	url := log.URL + "/api/v1/log"
	if log.TilesURL != "" {
		url = log.TilesURL + "/checkpoint"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("asking for the size of the log: %w", err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}).Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking for the size of the log: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if log.TilesURL == "" {
		var info struct {
			Size int `json:"treeSize"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
			return 0, fmt.Errorf("reading the size of the log: %w", err)
		}
		return info.Size, nil
	}
	// SPEC: C2SP tlog-checkpoint, note text: the origin, the size and the root hash, a line each.
	lines := bufio.NewScanner(resp.Body)
	for range 2 {
		if !lines.Scan() {
			return 0, errors.New("reading the size of the log: its checkpoint is too short")
		}
	}
	n, err := strconv.Atoi(lines.Text())
	if err != nil {
		return 0, fmt.Errorf("reading the size of the log: %w", err)
	}
	return n, nil
}
