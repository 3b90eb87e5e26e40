package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

// spareConnections are those to a log beside the ones that wait for it: of probes, and for tiles.
const spareConnections = 32

// proofs are what proves a signature beside its key: transparency logs, and timestamp authorities. Those that take something
// new have a breaker.
type proofs struct {
	logs       []*tlog.Log // in the order of the configuration, as are the authorities
	active     map[string]guardedLog
	stamps     []*tsa.Authority
	authority  *guardedAuthority // nil if none is active
	transports []*http.Transport
	probes     []dependency.Probe
}

// guardedLog is a log that takes entries.
type guardedLog struct {
	*tlog.Log
	breaker *dependency.Breaker
}

// guardedAuthority is the authority that makes timestamps.
type guardedAuthority struct {
	*tsa.Authority
	timeout time.Duration // of one request
	breaker *dependency.Breaker
	// hasty is for those who do not wait as long as that: an authority that is too slow for them alone must not be closed to those
	// who cannot do without it.
	hasty *dependency.Breaker
}

func newGuardedAuthority(authority *tsa.Authority, timeout time.Duration, breaker *dependency.Breaker) (*guardedAuthority, error) {
	hasty, err := dependency.NewBreaker(dependency.BreakerConfig{Name: breaker.Name(), CountsStatus: dependency.ServerErrors})
	return &guardedAuthority{authority, timeout, breaker, hasty}, err
}

// build reads public keys and certificates, and dials nobody. It reports all that is wrong at once.
func (p *proofs) build(a *App) error {
	p.active = make(map[string]guardedLog)
	var errs []error
	for _, l := range a.cfg.Logs {
		errs = append(errs, p.addLog(a, l))
	}
	for _, t := range a.cfg.TimestampAuthorities {
		errs = append(errs, p.addAuthority(a, t))
	}
	return errors.Join(errs...)
}

func (p *proofs) addLog(a *App, l config.TransparencyLog) error {
	pem, err := os.ReadFile(l.PublicKeyFile)
	if err != nil {
		return fmt.Errorf("log %q: %w", l.Name, err)
	}
	transport, err := p.transport(a.dialer, l.CAFile)
	if err != nil {
		return fmt.Errorf("log %q: %w", l.Name, err)
	}
	// Waiting for Rekor v2 holds a connection for seconds, of requests and of debts.
	transport.MaxConnsPerHost = max(transport.MaxConnsPerHost, 2*a.cfg.Sign.LogConcurrency+spareConnections)
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns = transport.MaxConnsPerHost, transport.MaxConnsPerHost
	c := tlog.Config{
		Name: l.Name, Type: l.Type, URL: l.URL, PublicKey: pem, Origin: l.Origin, TilesURL: l.TilesURL, Transport: transport,
		Timeout: l.Timeout, UserAgent: egress.DefaultUserAgent, Now: failpoint.Now, Registerer: a.registry,
	}
	log, err := tlog.New(c)
	if err != nil {
		return err
	}
	p.logs = append(p.logs, log)
	if l.State != config.Active {
		return nil
	}
	breaker, err := a.breaker("log/"+l.Name, dependency.ServerErrors)
	if err != nil {
		return err
	}
	p.active[l.Name] = guardedLog{log, breaker}
	p.probes = append(p.probes, dependency.Probe{
		Name: breaker.Name(), URLs: distinct(l.URL, l.TilesURL), Transport: transport, Call: log.Probe, Breaker: breaker,
	})
	return nil
}

func (p *proofs) addAuthority(a *App, t config.TimestampAuthority) error {
	pem, err := os.ReadFile(t.CertificateChainFile)
	if err != nil {
		return fmt.Errorf("timestamp authority %q: %w", t.Name, err)
	}
	transport, err := p.transport(a.dialer, t.CAFile)
	if err != nil {
		return fmt.Errorf("timestamp authority %q: %w", t.Name, err)
	}
	authority, err := tsa.New(tsa.Config{
		Name: t.Name, URL: t.URL, Chain: pem, Transport: transport, Timeout: t.Timeout, Now: failpoint.Now, Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	p.stamps = append(p.stamps, authority)
	if t.State != config.Active {
		return nil
	}
	breaker, err := a.breaker("timestamp_authority/"+t.Name, dependency.ServerErrors)
	if err != nil {
		return err
	}
	if p.authority, err = newGuardedAuthority(authority, t.Timeout, breaker); err != nil {
		return err
	}
	p.probes = append(p.probes, dependency.Probe{
		Name: breaker.Name(), URLs: distinct(t.URL), Transport: transport, Call: authority.Probe, Breaker: breaker,
		Credentials: []dependency.Credential{{Name: "timestamp_chain/" + t.Name, Expires: dependency.Until(authority.NotAfter)}},
	})
	return nil
}

func (p *proofs) transport(dialer *egress.Dialer, caFile string) (*http.Transport, error) {
	transport, err := egress.NewTransport(dialer, caFile)
	if err == nil {
		p.transports = append(p.transports, transport)
	}
	return transport, err
}

// close lets go of connections.
func (p *proofs) close() {
	for _, t := range p.transports {
		t.CloseIdleConnections()
	}
}

// trust is what counts of logs and authorities, the retired ones included.
func (p *proofs) trust() sigstore.Trust {
	var t sigstore.Trust
	for _, l := range p.logs {
		t.Logs = append(t.Logs, l)
	}
	for _, a := range p.stamps {
		t.Timestamps = append(t.Timestamps, a)
	}
	return t
}

// Type implements the logs of package signing.
func (p *proofs) Type(name string) (policy.LogType, bool) {
	log, found := p.active[name]
	if !found {
		return "", false
	}
	return log.Type(), true
}

// Submit implements the logs of package signing. A log that did not answer before is not asked.
func (p *proofs) Submit(ctx context.Context, name string, s artifact.Signature) (entry artifact.LogEntry, err error) {
	log, found := p.active[name]
	if !found {
		return entry, fault.Newf(fault.Transient, fault.LogUnavailable, "no active log has the name %.64q: configure it", name)
	}
	err = log.breaker.Do(ctx, func(ctx context.Context) error {
		entry, err = log.Submit(ctx, s)
		return err
	})
	return entry, err
}

// Stamp implements the timestamps of package signing.
func (g *guardedAuthority) Stamp(ctx context.Context, s artifact.Signature) (response []byte, at time.Time, err error) {
	breaker := g.breaker
	if deadline, bounded := ctx.Deadline(); bounded && time.Until(deadline) < g.timeout {
		if breaker.Open() { // it is tried by those who have the time
			return nil, at, fault.Newf(fault.Transient, fault.DependencyDown, "%s did not answer before, and was not asked", breaker.Name())
		}
		breaker = g.hasty
	}
	err = breaker.Do(ctx, func(ctx context.Context) error {
		response, at, err = g.Authority.Stamp(ctx, s.Bytes)
		return err
	})
	return response, at, err
}

// distinct gives the addresses that are there, each once.
func distinct(addresses ...string) []string {
	var all []string
	for _, a := range addresses {
		if a != "" && (len(all) == 0 || all[len(all)-1] != a) {
			all = append(all, a)
		}
	}
	return all
}
