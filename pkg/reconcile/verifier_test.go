package reconcile_test

import (
	"context"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

func (w *world) counts(p policy.Policy, keyID string) bool {
	return keyID == activeKey || keyID == retiredKey && !p.Terms.ActiveKeyOnly
}

func (w *world) Sufficient(_ context.Context, p policy.Policy, evidence []artifact.Evidence) (ok, retired bool, err error) {
	by := func(key string) bool {
		return slices.ContainsFunc(evidence, func(e artifact.Evidence) bool { return e.KeyID == key })
	}
	switch {
	case by(activeKey):
		return true, false, nil
	case by(retiredKey):
		return !p.Terms.ActiveKeyOnly, true, nil
	default:
		return false, false, nil
	}
}

// Owes asks for a log entry of each signature where the policy lets it come later.
func (w *world) Owes(_ context.Context, p policy.Policy, evidence []artifact.Evidence) ([]artifact.Format, error) {
	if w.owesErr != nil {
		return nil, w.owesErr()
	}
	var owed []artifact.Format
	for _, e := range evidence {
		if p.Terms.Transparency == policy.TransparencyDeferred && e.Log == "" {
			owed = append(owed, e.Format)
		}
	}
	return owed, nil
}

func (w *world) Verify(_ context.Context, p policy.Policy, l artifact.Listed) ([]artifact.Evidence, string, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verified++
	if w.verifyErr != nil {
		if err := w.verifyErr(l.Ref); err != nil {
			return nil, "", false, err
		}
	}
	for _, digest := range l.Signatures {
		if key := w.keys[digest]; w.counts(p, key) {
			return []artifact.Evidence{{Format: artifact.Legacy, KeyID: key, Digest: digest, Log: w.logged[digest], TimestampedAt: w.stamped}}, "", true, nil
		}
	}
	return nil, "", false, nil
}

func (w *world) Tag(_ context.Context, ref artifact.Ref) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests["tag"]++
	if tag, found := w.tags[ref]; found {
		return tag, nil
	}
	for _, l := range w.population {
		if l.Ref == ref && len(l.Signatures) > 0 {
			return l.Signatures[0], nil
		}
	}
	return "", nil
}

func (w *world) KeySet() string { return w.keySet }
