package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/digitorus/timestamp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	defaultTimeout = 10 * time.Second
	// maxResponse bounds a timestamp, in bytes: one with a chain of long RSA keys has some thousand.
	maxResponse = 16 << 10
	// nonceBytes makes it sure that no two requests have the same nonce.
	nonceBytes = 16

	// A fresh timestamp is refused if its time is farther from the local clock than this: somebody's clock is plainly wrong,
	// and a time is all that a timestamp says.
	maxSkew = 5 * time.Minute
	// A probe complains earlier.
	probeSkew = 30 * time.Second
)

// Config is what an Authority needs.
type Config struct {
	// Name is what the configuration calls the authority.
	Name string
	// URL is where requests are posted, with its path: https://tsa.example.com/api/v1/timestamp.
	URL string
	// Chain is one chain of certificates in PEM, in order: the one that stamps first, if it is there, and the trusted one
	// last. With the one that stamps, no other may.
	Chain []byte
	// Transport carries the requests and decides what is dialled and trusted. It is required.
	Transport http.RoundTripper
	// Timeout bounds one request; 0 stands for 10 s.
	Timeout time.Duration
	// UserAgent is what the client calls itself; empty stands for [egress.DefaultUserAgent].
	UserAgent  string
	Registerer prometheus.Registerer // nil for none
	// Now is the clock; nil stands for time.Now.
	Now func() time.Time
}

// Authority is one timestamp authority. It is safe for concurrent use.
type Authority struct {
	name      string
	url       *url.URL
	chain     chain
	transport http.RoundTripper
	timeout   time.Duration
	userAgent string
	now       func() time.Time
	seconds   *prometheus.HistogramVec
	// seen is when the certificate expires that the last timestamp was signed with; nil before the first.
	seen atomic.Pointer[time.Time]
}

// New validates the configuration, all of it at once; it connects to nothing.
func New(cfg Config) (*Authority, error) {
	var problems []error
	if cfg.Name == "" {
		problems = append(problems, errors.New("name is required"))
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.Fragment != "" {
		problems = append(problems, errors.New("url: want https://host[:port]/path without credentials"))
	}
	known, err := parseChain(cfg.Chain)
	if err != nil {
		problems = append(problems, fmt.Errorf("certificate chain: %w", err))
	}
	if cfg.Transport == nil {
		problems = append(problems, errors.New("transport is required"))
	}
	if cfg.Timeout < 0 {
		problems = append(problems, errors.New("timeout: want none below 0"))
	}
	if strings.ContainsFunc(cfg.UserAgent, unicode.IsControl) {
		problems = append(problems, errors.New("user agent: want one without control characters"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("timestamp authority %.64q: %w", cfg.Name, err)
	}
	a := &Authority{
		name: cfg.Name, url: u, chain: known, transport: cfg.Transport, timeout: cfg.Timeout, userAgent: cfg.UserAgent, now: cfg.Now,
		seconds: newMetrics(cfg.Registerer, cfg.Name),
	}
	if a.timeout == 0 {
		a.timeout = defaultTimeout
	}
	if a.userAgent == "" {
		a.userAgent = egress.DefaultUserAgent
	}
	if a.now == nil {
		a.now = time.Now
	}
	return a, nil
}

// Name is what the configuration calls the authority.
func (a *Authority) Name() string { return a.name }

// ID names the chain, for whoever has to know that it is another one.
func (a *Authority) ID() []byte {
	h := sha256.New()
	for _, c := range append(slices.Clone(a.chain.intermediates), a.chain.leaf, a.chain.root) {
		if c != nil {
			h.Write(c.Raw)
		}
	}
	return h.Sum(nil)
}

// NotAfter is when the first certificate expires of those that are configured and the one that stamped last.
func (a *Authority) NotAfter() time.Time {
	first := a.chain.notAfter()
	if seen := a.seen.Load(); seen != nil {
		first = earlier(first, *seen)
	}
	return first
}

// Stamp has the message stamped, which is the raw bytes of a signature, and verifies the answer. The response is a
// TimeStampResp in DER, and at the time in it, in UTC and whole seconds with most authorities.
//
// It makes one request. Whatever goes wrong is a transient fault, because none of it is the message's doing: Unreachable,
// Timeout, RateLimited and Unavailable (with the delay that was asked for), Unauthorized, ForeignOrigin for a redirect,
// BadAnswer for what is no timestamp, Rejected for a refusal in the authority's words, ProofInvalid for a timestamp that does
// not verify. A time that is not plausible is a [SkewError] in a ProofInvalid.
func (a *Authority) Stamp(ctx context.Context, message []byte) (response []byte, at time.Time, err error) {
	return a.stamp(ctx, message, maxSkew)
}

// Probe has a random message stamped, and verifies the answer. Its errors are those of Stamp; a clock that is more than 30 s
// away is one already.
func (a *Authority) Probe(ctx context.Context) error {
	message := make([]byte, sha256.Size)
	if _, err := rand.Read(message); err != nil {
		return fmt.Errorf("probing the timestamp authority %s: %w", a.name, err)
	}
	_, _, err := a.stamp(ctx, message, probeSkew)
	return err
}

func (a *Authority) stamp(ctx context.Context, message []byte, skew time.Duration) (response []byte, at time.Time, err error) {
	started := time.Now()
	defer func() { observe(a.seconds, started, err) }()
	nonce, request, err := newRequest(message)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("asking the timestamp authority %s: %w", a.name, err)
	}
	sent := a.now()
	response, err = a.post(ctx, request)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("asking the timestamp authority %s: %w", a.name, err)
	}
	received := a.now()
	if err := checkStatus(response); err != nil {
		return nil, time.Time{}, fmt.Errorf("asking the timestamp authority %s: %w", a.name, err)
	}
	token, err := a.verify(response, message, nonce)
	if err != nil {
		return nil, time.Time{}, err
	}
	at = token.Time.UTC()
	if off := distance(at, sent, received); off.Abs() > skew {
		return nil, time.Time{}, fault.New(fault.Transient, fault.ProofInvalid,
			fmt.Errorf("asking the timestamp authority %s: %w", a.name, &SkewError{off: off}))
	}
	a.remember(token)
	return response, at, nil
}

// distance is how far the stamped time is from the time between sending and receiving; negative if it is earlier.
func distance(at, sent, received time.Time) time.Duration {
	switch {
	case at.Before(sent):
		return at.Sub(sent)
	case at.After(received):
		return at.Sub(received)
	default:
		return 0
	}
}

// newRequest asks for the certificate too: verifiers that know only the root need it.
func newRequest(message []byte) (nonce *big.Int, request []byte, err error) {
	random := make([]byte, nonceBytes)
	if _, err := rand.Read(random); err != nil {
		return nil, nil, fmt.Errorf("making a nonce: %w", err)
	}
	nonce = new(big.Int).SetBytes(random)
	sum := sha256.Sum256(message)
	request, err = (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, nil, fmt.Errorf("making the request: %w", err)
	}
	return nonce, request, nil
}

// post makes the one request and gives the body of a good answer.
//
// SPEC: RFC 3161, section 3.4: a POST of type application/timestamp-query.
func (a *Authority) post(ctx context.Context, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url.String(), bytes.NewReader(request))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	req.Header.Set("Accept", "application/timestamp-reply")
	req.Header.Set("User-Agent", a.userAgent)
	resp, err := a.transport.RoundTrip(req) // and not a client, which follows redirects
	if err != nil {
		return nil, a.connectionFault(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	switch {
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return nil, a.statusFault(resp, body)
	case err != nil:
		return nil, a.connectionFault(err)
	case len(body) > maxResponse:
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "an answer of more than %d bytes", maxResponse)
	}
	return body, nil
}
