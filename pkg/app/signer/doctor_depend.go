package signer

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// dependencyCheck is whether a log, a timestamp authority, a KMS or Fulcio answers, as the probes of a running signer ask.
const dependencyCheck preflight.Name = "dependency"

// checkDependencies asks each once. Harbor and the queue have checks of their own.
func (d *doctor) checkDependencies(ctx context.Context) {
	probes := d.app.engine.proofs.probes
	for i, k := range d.app.engine.keys {
		if k.err == nil {
			probes = append(probes, k.probes(d.cfg.Keys[i])...)
		}
	}
	monitor, err := dependency.New(dependency.Config{
		Program: "signer", Instance: "doctor", Probes: probes, Logger: zerolog.Nop(),
		Record: func(context.Context, artifact.Event) error { return nil },
	})
	if err != nil {
		d.add(preflight.Check{Name: dependencyCheck, Status: preflight.Failed, Detail: err.Error(), Fix: "mend the configuration"})
		return
	}
	for _, s := range monitor.Look(ctx) {
		d.add(checkOf(s))
	}
}

// warnBefore is how long before its end a certificate is a warning.
const warnBefore = 14 * 24 * time.Hour

func checkOf(s dependency.Status) preflight.Check {
	c := preflight.Check{Name: dependencyCheck, Subject: s.Dependency, Status: preflight.OK}
	took := time.Duration(s.Seconds * float64(time.Second)).Round(time.Millisecond)
	c.Detail = fmt.Sprintf("answers in %s", took)
	switch left := time.Until(s.CertificateExpires); {
	case s.Up == nil:
		c.Status, c.Detail = preflight.Skipped, "there is nothing to ask for yet"
	case !*s.Up:
		c.Status, c.Detail = preflight.Failed, fmt.Sprintf("%s: %s", s.Cause, s.Detail)
		c.Fix = "docs/runbooks/dependency-down.md says what to do about " + string(s.Cause)
	case !s.CertificateExpires.IsZero() && left < warnBefore:
		c.Status, c.Detail = preflight.Warning, c.Detail+fmt.Sprintf("; its certificate expires in %s", left.Round(time.Hour))
		c.Fix = "renew the certificate of that server"
	}
	return c
}
