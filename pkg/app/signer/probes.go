package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// The names of what every signer depends on.
	onRegistry  = "registry"
	onHarborAPI = "harbor_api"
	onToken     = "token_rights"
	onQueue     = "queue"

	// holdFor is how long a request waits whose dependency does not answer, before it is asked about again.
	holdFor = 5 * time.Second
	// loadingPause is how soon it is looked again whether the policies are read.
	loadingPause = 50 * time.Millisecond
	// startGrace is how long the queue may take to be connected to.
	startGrace = 20 * time.Second
)

var errNotConnected = fault.Newf(fault.Transient, fault.QueueUnavailable, "not connected yet")

// breaker makes the breaker of a dependency. The name is a label of metrics.
func (a *App) breaker(name string, counts func(status int) bool) (*dependency.Breaker, error) {
	return dependency.NewBreaker(dependency.BreakerConfig{Name: name, CountsStatus: counts, Registerer: a.registry})
}

// probedBreaker makes the breaker of a dependency whose calls go past it, such as an HSM's: one failed probe opens it until the next
// one.
func (a *App) probedBreaker(name string) (*dependency.Breaker, error) {
	return dependency.NewBreaker(dependency.BreakerConfig{Name: name, Failures: 1, Pause: 2 * a.cfg.Probe.Interval, Registerer: a.registry})
}

// guard gives Harbor's transport behind a breaker: one for the registry, one for the API. Neither counts what may be the fault
// of one digest or one project.
func (a *App) guard(name string) (http.RoundTripper, *dependency.Breaker, error) {
	b, err := a.breaker(name, dependency.Gateway)
	if err != nil {
		return nil, nil, err
	}
	return b.RoundTripper(a.transport), b, nil
}

// watchDependencies makes what probes everything that this signer depends on.
func (a *App) watchDependencies() error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("asking for the host's name: %w", err)
	}
	a.monitor, err = dependency.New(dependency.Config{
		Program: "signer", Instance: fmt.Sprintf("%s:%d", host, os.Getpid()), Probes: a.probes(), Interval: a.cfg.Probe.Interval,
		Record: a.recordOutage,
		Counts: a.counts, Now: failpoint.Now, Logger: a.logger, Registerer: a.registry,
	})
	return err
}

func (a *App) probes() []dependency.Probe {
	h, q := a.cfg.Harbor, a.cfg.Queue
	all := []dependency.Probe{
		{
			Name: onHarborAPI, URLs: []string{h.URL}, Transport: a.transport, Call: dependency.HarborAPI(a.harbor.System), Breaker: a.apiBreaker,
			Credentials: []dependency.Credential{dependency.HarborRobot(a.harbor.RobotExpiry)},
		},
		{Name: onRegistry, URLs: []string{h.URL}, Transport: a.transport, Call: dependency.Registry(h.URL, a.registryTransport), Breaker: a.registryBreaker},
		{Name: onToken, Call: dependency.TokenRights(a.harbor.TokenActions, a.signedProject)},
		{
			Name: onQueue, URLs: a.cfg.Queue.URLs, Transport: a.transport, TLS: dependency.Files(q.TLS.CAFile, q.TLS.CertFile, q.TLS.KeyFile),
			Call: dependency.Queue(a.probeQueue),
		},
	}
	all = append(all, a.engine.proofs.probes...)
	for i, k := range a.engine.keys {
		all = append(all, k.probes(a.cfg.Keys[i])...)
	}
	return all
}

// probes gives that of a KMS, an HSM or Fulcio; nothing for what is in a file.
func (o openedKey) probes(k config.Key) []dependency.Probe {
	switch {
	case k.State != config.Active:
		return nil
	case o.identity != nil:
		return []dependency.Probe{{
			Name: "fulcio/" + k.Name, URLs: []string{k.Fulcio.URL}, Transport: o.transport, Call: o.identity.Probe, Breaker: o.breaker,
			Credentials: []dependency.Credential{
				{Name: "certificate/" + k.Name, Expires: dependency.Until(o.identity.NotAfter)},
				{Name: "identity_token/" + k.Name, Expires: dependency.Until(o.identity.TokenExpires)},
			},
		}}
	case k.KMS != "" || k.PKCS11 != config.PKCS11{}:
		p := dependency.Probe{Name: "kms/" + k.Name, Transport: o.transport, Call: o.signer.Probe, Breaker: o.breaker}
		if k.Vault.Address != "" {
			p.URLs = []string{k.Vault.Address}
		}
		return []dependency.Probe{p}
	default:
		return nil
	}
}

// signedProject names a project that is signed; empty if there is none, or none is known. While the policies cannot be read, it
// is the one of before: they say nothing of the account.
func (a *App) signedProject(ctx context.Context) (string, error) {
	names, err := a.policies.Enabled(nil)
	if errors.Is(err, policy.ErrNotLoaded) {
		return a.lastSigned, nil
	}
	i := slices.IndexFunc(names, func(name string) bool {
		p, err := a.policies.Policy(ctx, name)
		return err == nil && p.Mode == policy.ModeSign && p.SuspendedFor == 0
	})
	a.lastSigned = ""
	if i >= 0 {
		a.lastSigned = names[i]
	}
	return a.lastSigned, nil
}

// probeQueue asks the queue, once it could have been connected to: a start is no outage.
func (a *App) probeQueue(ctx context.Context) error {
	err := a.checkQueue(ctx)
	if errors.Is(err, errNotConnected) && time.Since(a.made) < startGrace {
		return dependency.ErrNothingToAsk
	}
	return err
}

// recordOutage fails before there is a connection: the record comes again.
func (a *App) recordOutage(ctx context.Context, e artifact.Event) error {
	select {
	case <-a.connected:
		_, err := a.queue.Record(ctx, e)
		return err
	default:
		return errNotConnected
	}
}

// counts says how much waits, for the records of outages.
func (a *App) counts(ctx context.Context) (waiting, deferred uint64) {
	select {
	case <-a.connected:
	default:
		return 0, 0
	}
	usage, err := a.queue.Usage(ctx)
	if err != nil {
		return 0, 0
	}
	return usage.Outstanding()
}

// gate waits until the policies are read and Harbor answers: nothing can be done without them.
func (a *App) gate(ctx context.Context) error {
	for _, err := a.policies.Policy(ctx, ""); errors.Is(err, policy.ErrNotLoaded); _, err = a.policies.Policy(ctx, "") {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(loadingPause):
		}
	}
	for _, b := range []*dependency.Breaker{a.registryBreaker, a.apiBreaker} {
		if err := b.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// hold says whether a request cannot be done now because of something that not every project needs. What a policy asks for is
// looked up again by the attempt itself.
func (a *App) hold(r artifact.Request) (time.Duration, bool) {
	p, err := a.policies.Policy(context.Background(), r.Ref.Project()) // it asks nobody
	if err != nil || !policy.Admit(p).Sign || p.Mode != policy.ModeSign {
		return 0, false
	}
	if a.engine.lacks(p.Terms, r.Lane) {
		return holdFor, true
	}
	return 0, false
}

// lacks says whether terms cannot do without something that does not answer now: the log where an entry has to be made at once
// or is owed, the timestamp authority, the KMS or HSM of the key, or Fulcio, once the certificate in use has ended.
func (e *engine) lacks(t policy.Terms, lane artifact.Lane) bool {
	logged := t.Transparency == policy.TransparencyRequired || lane == artifact.Debt && t.Transparency == policy.TransparencyDeferred
	if log, found := e.proofs.active[t.Log]; found && logged && !log.breaker.Ready() {
		return true
	}
	if lane == artifact.Debt && (t.Format == policy.FormatLegacy || t.Format == policy.FormatBundle) {
		return false // the signature is there, and is completed
	}
	if a := e.proofs.authority; a != nil && t.Timestamp == policy.TimestampRequired && !a.breaker.Ready() {
		return true
	}
	for _, k := range e.keys {
		if k.name == t.Key && k.breaker != nil && !k.breaker.Ready() {
			return k.identity == nil || time.Now().After(k.identity.NotAfter())
		}
	}
	return false
}
