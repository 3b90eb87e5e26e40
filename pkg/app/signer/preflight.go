package signer

import (
	"context"
	"encoding/pem"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// preflight checks a project with this signer's account and keys, for receivers that ask before they enable it.
func (a *App) preflight(ctx context.Context, r preflight.Request) []preflight.Check {
	return preflight.ForSigner{
		Harbor: a.harbor, Keys: a.engine.ring, Defaults: a.cfg.Terms(), Account: a.cfg.Harbor.Username, Means: a.means, Down: a.down,
	}.Check(ctx, r)
}

// means gives what this signer has for what terms ask for.
func (a *App) means(t policy.Terms) policy.Means {
	m := a.cfg.Means(t)
	log, active := a.engine.proofs.active[t.Log]
	if !active {
		return m
	}
	for _, k := range a.engine.keys {
		if k.name != t.Key || k.signer == nil {
			continue
		}
		block, _ := pem.Decode(k.public.PEM())
		for _, format := range []artifact.Format{artifact.Legacy, artifact.Bundle} {
			if err := log.Accepts(format, block.Bytes); err != nil && log.Type().Carries(format) {
				if m.Unfit == nil {
					m.Unfit = make(map[artifact.Format]string)
				}
				m.Unfit[format] = err.Error()
			}
		}
	}
	return m
}

// down says what the last probes have found wrong with what terms ask for.
func (a *App) down(t policy.Terms) preflight.Down {
	why := make(map[string]string)
	for _, s := range a.monitor.Status() {
		if s.Up != nil && !*s.Up {
			why[s.Dependency] = s.Detail
		}
	}
	d := preflight.Down{Log: why["log/"+t.Log], Key: why["kms/"+t.Key] + why["fulcio/"+t.Key]}
	if authority := a.engine.proofs.authority; authority != nil {
		d.Timestamps = why[authority.breaker.Name()]
	}
	return d
}
