package fulcio

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
)

const defaultTimeout = 10 * time.Second

// Config is what an Identity needs.
type Config struct {
	// Name is what the configuration calls the key that this identity stands for.
	Name string
	// URL is Fulcio's base URL, such as https://fulcio.example.com.
	URL string
	// Roots are certificates in PEM: the self-signed ones are trusted, the others may stand between them and a certificate.
	Roots []byte
	// TokenFile holds the OpenID Connect token. It is read for each certificate.
	TokenFile string
	// Issuer is who made the token, as certificates say it, and Subject whom it names: the one alternative name of their
	// subject, such as https://kubernetes.io/namespaces/harborseal/serviceaccounts/signer.
	Issuer, Subject string
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

// Identity signs in somebody's name. It is safe for concurrent use.
type Identity struct {
	name      string
	keyID     string
	url       *url.URL
	trust     trust
	tokenFile string
	transport http.RoundTripper
	timeout   time.Duration
	userAgent string
	now       func() time.Time
	metrics   *metrics

	// renewals is what Close waits for.
	renewals sync.WaitGroup

	mu      sync.Mutex
	current *credential // guarded by mu; nil before the first one
	running *renewal    // guarded by mu; nil while none runs
	// failed is the last renewal that did not work, and nil after one that did; guarded by mu.
	failed *failure
	closed bool // guarded by mu
}

// New validates the configuration, all of it at once; it connects to nothing and reads no token.
func New(cfg Config) (*Identity, error) {
	var problems []error
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		problems = append(problems, errors.New("url: want https://host[:port] without credentials"))
	}
	t, err := newTrust(cfg.Roots, cfg.Issuer, cfg.Subject)
	if err != nil {
		problems = append(problems, err)
	}
	if cfg.Name == "" {
		problems = append(problems, errors.New("name is required"))
	}
	if cfg.TokenFile == "" {
		problems = append(problems, errors.New("token file is required"))
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
		return nil, fmt.Errorf("fulcio for key %.64q: %w", cfg.Name, err)
	}
	i := &Identity{
		name: cfg.Name, keyID: artifact.IdentityID(cfg.Issuer, cfg.Subject), url: u, trust: t, tokenFile: cfg.TokenFile,
		transport: cfg.Transport, timeout: cfg.Timeout, userAgent: cfg.UserAgent, now: cfg.Now, metrics: newMetrics(cfg.Registerer, cfg.Name),
	}
	if i.timeout == 0 {
		i.timeout = defaultTimeout
	}
	if i.userAgent == "" {
		i.userAgent = egress.DefaultUserAgent
	}
	if i.now == nil {
		i.now = time.Now
	}
	return i, nil
}

// KeyID is the id that stands for the identity: see [artifact.IdentityID].
func (i *Identity) KeyID() string { return i.keyID }

// ID names the configured roots, for whoever has to know that they are other ones.
func (i *Identity) ID() []byte { return slices.Clone(i.trust.id) }

// Sign signs the message with ECDSA on P-256 over its SHA-256. Of the signature it gives Bytes, KeyID, PublicKey and
// Certificates: the whole chain in DER, its own first and the root last, for a certificate whose life goes on for a tenth of
// it at least. No two signatures are alike. Signatures share what they have of a certificate: it must not be changed.
//
// It waits for Fulcio only where there is no usable certificate. Whatever goes wrong then is a transient fault, because none
// of it is the message's doing: Unreachable, Timeout, RateLimited and Unavailable (with the delay that was asked for; nobody is
// asked before), ForeignOrigin for a redirect, BadAnswer, Unauthorized where Fulcio refuses the token, IdentityMissing where
// there is no token to show, ProofInvalid for a certificate that is not what was asked for.
func (i *Identity) Sign(ctx context.Context, message []byte) (artifact.Signature, error) {
	c, err := i.credential(ctx)
	if err != nil {
		return artifact.Signature{}, fmt.Errorf("signing as %s: %w", i.name, err)
	}
	sum := sha256.Sum256(message)
	signature, err := c.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return artifact.Signature{}, fault.Newf(fault.Transient, fault.KeyUnavailable, "signing as %s: %w", i.name, err)
	}
	return artifact.Signature{Bytes: signature, KeyID: i.keyID, PublicKey: c.publicKey, Certificates: c.certificates}, nil
}

// NotAfter is when the certificate in use expires; zero before the first one.
func (i *Identity) NotAfter() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current == nil {
		return time.Time{}
	}
	return i.current.notAfter
}

// TokenExpires is when the token in the file expires, by its own word; zero if it cannot be read.
func (i *Identity) TokenExpires() time.Time {
	t, err := readToken(i.tokenFile)
	if err != nil {
		return time.Time{}
	}
	return t.expires
}

// Probe makes one call that shows whether certificates are to be had: the token has to be there and not be expired, and
// Fulcio has to answer with authorities that the configured roots know. Where a certificate is due, a new one is what it
// asks for; so an identity that is probed has a fresh one even where nothing is signed. Its errors are those of Sign.
func (i *Identity) Probe(ctx context.Context) error {
	if _, err := i.validToken(); err != nil {
		return fmt.Errorf("probing fulcio for %s: %w", i.name, err)
	}
	due, err := i.renewIfDue(ctx)
	if !due {
		err = i.checkAuthorities(ctx)
	}
	if err != nil {
		return fmt.Errorf("probing fulcio for %s: %w", i.name, err)
	}
	return nil
}

// Close ends a renewal that is under way and waits for its end. No certificate is asked for afterwards.
func (i *Identity) Close() {
	i.mu.Lock()
	i.closed = true
	if i.running != nil {
		i.running.cancel()
	}
	i.mu.Unlock()
	i.renewals.Wait()
}
