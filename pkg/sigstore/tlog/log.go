package tlog

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/pubkey"
)

// defaultTimeout is longer than Rekor v2 takes to publish its next checkpoint by default, which is 10 s.
const defaultTimeout = 30 * time.Second

// Config says which log this is.
type Config struct {
	// Name is what the configuration calls the log. It stands in entries, metrics and errors.
	Name string
	Type policy.LogType
	// URL is the log's address, without "/api/…".
	URL string
	// PublicKey is the log's, in PEM: ECDSA P-256 for Rekor v1, also Ed25519, P-384 or RSA for Rekor v2.
	PublicKey []byte
	// Origin is the name by which a log of Rekor v2 signs its checkpoints: the host of URL if it is empty. Verifiers take it
	// from the address in their trusted root.
	Origin string
	// TilesURL is where the checkpoint and the tiles of a log of Rekor v2 are read: URL with "/api/v2" if it is empty.
	TilesURL string
	// Transport carries all requests. It pools connections, and allows as many to the log as submissions wait there: each holds
	// one for as long as Rekor v2 takes, and the time that it waits for one counts too.
	Transport http.RoundTripper
	// Timeout bounds each request: 30 s if it is 0. Rekor v2 answers with its next checkpoint.
	Timeout   time.Duration
	UserAgent string
	// Registerer gets the metrics, with the name as a label; nil for none.
	Registerer prometheus.Registerer
	// Now is the time, for what Retry-After means; nil is time.Now.
	Now func() time.Time
}

// Log is one transparency log. It is immutable and safe for concurrent use.
type Log struct {
	name      string
	kind      policy.LogType
	base      *url.URL
	tiles     *url.URL // nil for Rekor v1
	key       logKey
	transport http.RoundTripper
	timeout   time.Duration
	userAgent string
	now       func() time.Time
	metrics   *metrics
}

// New checks the configuration, with all errors at once. It asks the log nothing.
func New(c Config) (*Log, error) {
	l := &Log{
		name: c.Name, kind: c.Type, transport: c.Transport, timeout: c.Timeout, userAgent: c.UserAgent, now: c.Now,
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		wrong("it has no name")
	}
	if c.Transport == nil {
		wrong("it has no transport")
	}
	if c.Timeout < 0 {
		wrong("timeout %s: want none or a positive one", c.Timeout)
	}
	var err error
	if l.base, err = parseAddress(c.URL); err != nil {
		wrong("url: %w", err)
	}
	switch c.Type {
	case policy.RekorV1:
		if c.Origin != "" || c.TilesURL != "" {
			wrong("a log of Rekor v1 has no origin and no tiles")
		}
	case policy.RekorV2:
		if l.base != nil {
			l.tiles = l.base.JoinPath("api/v2")
		}
		if c.TilesURL != "" {
			if l.tiles, err = parseAddress(c.TilesURL); err != nil {
				wrong("tiles_url: %w", err)
			}
		}
	default:
		wrong("type %.32q: want one of %s, %s", string(c.Type), policy.RekorV1, policy.RekorV2)
	}
	if l.key, err = newLogKey(c, l.base); err != nil {
		errs = append(errs, err)
	}
	if l.timeout == 0 {
		l.timeout = defaultTimeout
	}
	if l.now == nil {
		l.now = time.Now
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("the log %.64q: %w", c.Name, errors.Join(errs...))
	}
	if l.metrics, err = newMetrics(c.Registerer, c.Name); err != nil {
		return nil, fmt.Errorf("the log %.64q: %w", c.Name, err)
	}
	return l, nil
}

// parseAddress reads an address without credentials: those would stand in errors.
func parseAddress(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("it cannot be read")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("want http:// or https:// and a host")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("want no credentials, query or fragment")
	}
	return u, nil
}

// newLogKey reads the log's public key.
//
// SPEC: the log of Rekor v1 signs its entries with ECDSA and SHA-256, the only way that cosign and sigstore-go verify.
func newLogKey(c Config, base *url.URL) (logKey, error) {
	parsed, err := pubkey.Parse(c.PublicKey)
	if err != nil {
		return logKey{}, fmt.Errorf("public key: %w", err)
	}
	if ec, ok := parsed.Public.(*ecdsa.PublicKey); c.Type == policy.RekorV1 && (!ok || ec.Curve != elliptic.P256()) {
		return logKey{}, errors.New("public key: a log of Rekor v1 has an ECDSA key on P-256")
	}
	verifier, err := signature.LoadDefaultVerifier(parsed.Public)
	if err != nil {
		return logKey{}, fmt.Errorf("public key: %w", err)
	}
	k := logKey{verifier: verifier, public: parsed.Public}
	if c.Type == policy.RekorV2 {
		if k.origin = c.Origin; k.origin == "" && base != nil {
			k.origin = base.Hostname()
		}
		if _, err := rekornote.NewNoteVerifier(k.origin, verifier); err != nil {
			return logKey{}, fmt.Errorf("origin: %w", err)
		}
	}
	if _, k.id, err = rekornote.KeyHash(k.origin, parsed.Public); err != nil {
		return logKey{}, fmt.Errorf("public key: %w", err)
	}
	return k, nil
}

// Name is what the configuration calls the log.
func (l *Log) Name() string { return l.name }

// Type is the log's protocol.
func (l *Log) Type() policy.LogType { return l.kind }

// ID is what entries name the log by: 32 bytes, see [artifact.LogEntry].
func (l *Log) ID() []byte { return slices.Clone(l.key.id) }

// Origin is the name by which a log of Rekor v2 signs its checkpoints; empty for Rekor v1.
func (l *Log) Origin() string { return l.key.origin }

// Submit makes the entry of a signature and gives it with its proof: with one POST, or, where the log has the entry already,
// by reading it. Rekor v2 answers with its next checkpoint, seconds later. The signature must be valid and have a public key
// or certificates; its entry and timestamp are not looked at.
//
// Faults: Unverifiable where nobody could verify such an entry (see [Log.Accepts]), Unreachable, Timeout, RateLimited,
// LogUnavailable, BadAnswer, Unauthorized, Denied, ForeignOrigin, ProofInvalid and Rejected. All of them are transient.
//
// A crash after the POST leaves an entry that the next Submit of the same signature finds.
func (l *Log) Submit(ctx context.Context, s artifact.Signature) (artifact.LogEntry, error) {
	e, err := l.submit(ctx, s)
	if err != nil {
		return artifact.LogEntry{}, fmt.Errorf("putting a signature into the log %s: %w", l.name, err)
	}
	return e, nil
}

func (l *Log) submit(ctx context.Context, s artifact.Signature) (artifact.LogEntry, error) {
	if l.kind == policy.RekorV2 {
		return l.submitV2(ctx, s)
	}
	return l.submitV1(ctx, s)
}

// Verify says whether an entry is this log's and about this very signature, its payload and its key or certificate; an error
// is a transient fault, ProofInvalid, or Unverifiable as Submit gives it. It asks nobody. Which log the entry names is not
// looked at.
func (l *Log) Verify(e artifact.LogEntry, s artifact.Signature) error {
	if err := l.verify(e, s); err != nil {
		return fmt.Errorf("verifying an entry of the log %s: %w", l.name, err)
	}
	return nil
}

func (l *Log) verify(e artifact.LogEntry, s artifact.Signature) error {
	body, err := l.body(s)
	if err != nil {
		return err
	}
	if err := l.prove(e, body, s.Format); err != nil {
		return fault.New(fault.Transient, fault.ProofInvalid, err)
	}
	return nil
}

// Accepts says whether the log can have entries, which verifiers accept, of signatures with this key (SubjectPublicKeyInfo in
// DER) and format; an error is a transient fault, Unverifiable. It asks nobody.
func (l *Log) Accepts(format artifact.Format, publicKey []byte) error {
	_, err := l.body(artifact.Signature{Format: format, PublicKey: publicKey, Bytes: []byte{0}})
	return err
}

// Probe asks the log for its newest signed tree head and verifies it. It does not show that the log takes entries. Faults are
// those of Submit, and never permanent.
func (l *Log) Probe(ctx context.Context) error {
	var err error
	if l.kind == policy.RekorV2 {
		err = l.probeV2(ctx)
	} else {
		err = l.probeV1(ctx)
	}
	if err != nil {
		return fmt.Errorf("asking the log %s: %w", l.name, err)
	}
	return nil
}

// endpoint gives an address of the log's own.
func (l *Log) endpoint(path ...string) *url.URL { return l.base.JoinPath(strings.Join(path, "/")) }
