package dependency

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/harborseal/harborseal/pkg/egress"
)

// grace is how long a probe that has run out of time may take to say why.
const grace = 250 * time.Millisecond

// ErrNothingToAsk is what [Probe.Call] returns while there is nothing to ask for, such as before the first project is enabled: it
// tells neither that a dependency is there nor that it is not. An outage that went on ends with it.
var ErrNothingToAsk = errors.New("there is nothing to ask for yet")

// Probe is how one dependency is tried. Fields without a default in their comment are required.
type Probe struct {
	// Name is the dependency's: "harbor_api", "log/rekor". It is a metric label, so there must be few.
	Name string
	// URLs are where it is: https and http (a request for the head of the URL, without credentials, whose answer tells the time),
	// nats and tls (a NATS server, with TLS where it, the scheme or the field TLS wants it), and tcp (a connection). Each probe
	// resolves and connects anew. Where there are several, one of them has to answer. Default: none, Call alone decides.
	URLs []string
	// Transport is how the adapter connects: its dialer, its trust, its proxy. Its pooled connections are not used. Default: one
	// that resolves and trusts as the system does.
	Transport *http.Transport
	// TLS gives the trust and the client's certificate for one look, in place of Transport's: see [Files]. Default: Transport's.
	TLS func() (*tls.Config, error)
	// Call is a real and cheap call whose answer is checked, as the adapter makes it. It MUST return soon after its context has
	// ended, and its errors MUST hold no secret. Default: none, URLs alone decide.
	Call func(ctx context.Context) error
	// Breaker lets the probe's own calls through, and is told of each outcome: an answer closes it, a failure keeps it open, and
	// counts as one failure where it is closed. Default: none.
	Breaker *Breaker
	// Credentials are what expires on the way to this dependency, apart from the certificates at URLs.
	Credentials []Credential
}

// Credential is something that works until some time.
type Credential struct {
	// Name is a metric label: "robot", "fulcio/ci/token".
	Name string
	// Expires says until when; the zero time is never, or not yet known. It MUST return soon after its context has ended.
	Expires func(ctx context.Context) (time.Time, error)
	// Every is how often it is asked; 0 stands for each interval of the monitor. It is for those that make requests.
	Every time.Duration
}

// Files makes [Probe.TLS] of PEM files that are read for each look: the authorities beside those of the system, and the client's
// certificate and key. Each may be empty; if all are, it gives nil.
func Files(authorities, certificate, key string) func() (*tls.Config, error) {
	if authorities == "" && certificate == "" && key == "" {
		return nil
	}
	return func() (*tls.Config, error) {
		roots, err := egress.Authorities(authorities)
		if err != nil {
			return nil, err
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
		if certificate == "" {
			return config, nil
		}
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("reading the client's certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
		return config, nil
	}
}

// Until makes Expires of a function that makes no request.
func Until(at func() time.Time) func(context.Context) (time.Time, error) {
	return func(context.Context) (time.Time, error) { return at(), nil }
}

// finding is the outcome of one probe.
type finding struct {
	sight

	// err is why the dependency counts as down; nil if it does not.
	err error
	// skipped says that there was nothing to ask for.
	skipped bool
	latency time.Duration
}

// tried is a probe with what it keeps between its runs. It belongs to one goroutine.
type tried struct {
	Probe

	looks []*look
	// busy is closed when the last call has returned; nil before the first.
	busy chan struct{}
}

func newTried(p Probe, now func() time.Time) (*tried, error) {
	t := &tried{Probe: p}
	switch {
	case p.Name == "":
		return nil, errors.New("a probe without a name")
	case len(p.URLs) == 0 && p.Call == nil:
		return nil, fmt.Errorf("probe of %s: neither an address nor a call", p.Name)
	}
	for _, address := range p.URLs {
		l, err := newLook(address, p, now)
		if err != nil {
			return nil, fmt.Errorf("probe of %s: %w", p.Name, err)
		}
		t.looks = append(t.looks, l)
	}
	for _, c := range p.Credentials {
		if c.Name == "" || c.Expires == nil {
			return nil, fmt.Errorf("probe of %s: a credential without a name or a function", p.Name)
		}
	}
	return t, nil
}

// run probes once, within a time. If the parent context ends, the finding means nothing.
func (t *tried) run(parent context.Context, limit time.Duration) finding {
	started := time.Now()
	ctx, cancel := context.WithTimeout(asProbe(parent), limit)
	defer cancel()
	called := t.call(ctx)
	f := t.see(ctx)
	f.latency = time.Since(started)
	var err error
	if called != nil {
		err = wait(ctx, called)
		f.latency = time.Since(started)
	}
	switch {
	case f.err != nil: // the look tells best what is wrong with the way
	case errors.Is(err, ErrNothingToAsk):
		f.skipped = len(t.looks) == 0
	case ctx.Err() != nil && (err == nil || CauseOf(err) == Protocol):
		// A server that ends its answer when the client goes away sends half of it, or something empty that looks whole.
		f.err = fmt.Errorf("no answer within %s: %w", limit, context.DeadlineExceeded)
	default:
		f.err = err
	}
	return f
}

// call starts Call; nil without one. A call that still hangs is not made once more.
func (t *tried) call(ctx context.Context) <-chan error {
	if t.Call == nil {
		return nil
	}
	outcome := make(chan error, 1)
	select {
	case <-t.busy:
	default:
		if t.busy != nil {
			outcome <- fmt.Errorf("the last call still hangs: %w", context.DeadlineExceeded)
			return outcome
		}
	}
	busy := make(chan struct{})
	t.busy = busy
	go func() {
		err := t.Call(ctx)
		close(busy) // before anybody hears of the outcome, and calls again
		outcome <- err
	}()
	return outcome
}

// wait gives the outcome of a call, and does not wait for one that ignores its context.
func wait(ctx context.Context, outcome <-chan error) error {
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-outcome:
		return err
	case <-timer.C:
		return ctx.Err()
	}
}

// see looks at all addresses at the same time. It gives the worst of what is good: the certificate that expires first, and the
// largest difference of clocks.
func (t *tried) see(ctx context.Context) finding {
	if len(t.looks) == 0 {
		return finding{}
	}
	type outcome struct {
		sight

		err error
	}
	outcomes := make(chan outcome, len(t.looks))
	for _, l := range t.looks {
		go func() {
			s, err := l.do(ctx)
			outcomes <- outcome{s, err}
		}()
	}
	var (
		f    finding
		errs []error
	)
	for range t.looks {
		o := <-outcomes
		if o.err != nil {
			errs = append(errs, o.err)
		}
		if !o.notAfter.IsZero() && (f.notAfter.IsZero() || o.notAfter.Before(f.notAfter)) {
			f.notAfter = o.notAfter
		}
		if o.dated && max(o.skew, -o.skew) >= max(f.skew, -f.skew) {
			f.skew, f.dated = o.skew, true
		}
	}
	if len(errs) == len(t.looks) {
		f.err = errors.Join(errs...)
	}
	return f
}

// hangs waits for a call that is still on its way.
func (t *tried) hangs() {
	if t.busy != nil {
		<-t.busy
	}
}
