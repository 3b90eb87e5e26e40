package fulcio

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// renewShare is the part of its life after which a certificate is replaced, and restShare the part that has to be left
	// for something to be signed with it: a log or an authority has to see the signature while the certificate lives.
	renewShare = 2
	restShare  = 10
	// retryPause is how long a renewal that nobody waits for is put off after one that failed.
	retryPause = 5 * time.Second
	// maxSkew is how far Fulcio's clock may be from this one.
	maxSkew = time.Minute
)

// credential is a key with its certificate. It is never changed.
type credential struct {
	key       *ecdsa.PrivateKey
	publicKey []byte
	// certificates are in DER, the leaf first and the root last.
	certificates [][]byte
	notAfter     time.Time
	// From renewAt on it is to be replaced, and until usableUntil it may sign.
	renewAt, usableUntil time.Time
}

func newCredential(key *ecdsa.PrivateKey, chain []*x509.Certificate) *credential {
	leaf := chain[0]
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	c := &credential{
		key: key, publicKey: leaf.RawSubjectPublicKeyInfo, notAfter: leaf.NotAfter,
		renewAt: leaf.NotBefore.Add(life / renewShare), usableUntil: leaf.NotAfter.Add(-life / restShare),
	}
	for _, one := range chain {
		c.certificates = append(c.certificates, one.Raw)
	}
	return c
}

// renewal is a request for a certificate that is under way, for all who want one.
type renewal struct {
	cancel context.CancelFunc
	// done is closed at the end; made and err are set before.
	done chan struct{}
	made *credential
	err  error
}

// failure is a renewal that did not work.
type failure struct {
	err error
	at  time.Time
	// pause is what Fulcio asked for; 0 if it did not.
	pause time.Duration
}

// wait gives the certificate, when it is there.
func (r *renewal) wait(ctx context.Context) (*credential, error) {
	select {
	case <-r.done:
		return r.made, r.err
	case <-ctx.Done():
		if err := context.Cause(ctx); errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("waiting for a certificate: %w", err)
		}
		return nil, fault.Newf(fault.Transient, fault.Timeout, "waiting for a certificate: %w", ctx.Err())
	}
}

// credential gives a certificate that may sign. It waits only if there is none.
func (i *Identity) credential(ctx context.Context) (*credential, error) {
	i.mu.Lock()
	now := i.now()
	if c := i.current; c != nil && now.Before(c.usableUntil) {
		if !now.Before(c.renewAt) && !i.paused(now) {
			i.renewLocked(ctx)
		}
		i.mu.Unlock()
		return c, nil
	}
	r, err := i.demandLocked(ctx, now)
	i.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.wait(ctx)
}

// renewIfDue replaces a certificate that is due, or makes the first one, and waits for it.
func (i *Identity) renewIfDue(ctx context.Context) (due bool, err error) {
	i.mu.Lock()
	now := i.now()
	if i.current != nil && now.Before(i.current.renewAt) {
		i.mu.Unlock()
		return false, nil
	}
	r, err := i.demandLocked(ctx, now)
	i.mu.Unlock()
	if err == nil {
		_, err = r.wait(ctx)
	}
	return true, err
}

// paused says whether a renewal that nobody waits for is put off.
func (i *Identity) paused(now time.Time) bool {
	return i.failed != nil && now.Before(i.failed.at.Add(max(i.failed.pause, retryPause)))
}

// demandLocked starts a renewal that somebody waits for, or joins the one that runs. Only a delay that Fulcio asked for is
// kept: whoever waits has delays of its own.
func (i *Identity) demandLocked(ctx context.Context, now time.Time) (*renewal, error) {
	if i.failed != nil {
		if left := i.failed.at.Add(i.failed.pause).Sub(now); left > 0 {
			return nil, fault.After(left, fault.Of(i.failed.err).Reason, fmt.Errorf("not asked again yet: %w", i.failed.err))
		}
	}
	r := i.renewLocked(ctx)
	if r == nil {
		return nil, fault.New(fault.Transient, fault.Canceled, errors.New("this identity is closed"))
	}
	return r, nil
}

// renewLocked starts a renewal unless one runs; nil after Close. It does not end with ctx: others may wait for it.
func (i *Identity) renewLocked(ctx context.Context) *renewal {
	if i.closed || i.running != nil {
		return i.running
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.timeout)
	r := &renewal{cancel: cancel, done: make(chan struct{})}
	i.running = r
	i.renewals.Go(func() {
		defer cancel()
		started := time.Now()
		r.made, r.err = i.request(ctx)
		i.metrics.observe(started, r.err)
		i.settle(r)
		close(r.done)
	})
	return r
}

// settle takes what came of a renewal. A certificate that is still good outlives one that failed.
func (i *Identity) settle(r *renewal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.running = nil
	if r.err != nil {
		i.failed = &failure{err: r.err, at: i.now(), pause: fault.Of(r.err).RetryAfter}
		return
	}
	i.current, i.failed = r.made, nil
}

// request makes a key and has it certified.
func (i *Identity) request(ctx context.Context) (*credential, error) {
	token, err := i.validToken()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Newf(fault.Transient, fault.KeyUnavailable, "making a key: %w", err)
	}
	given, err := i.askCertificate(ctx, key, token.raw)
	if err != nil {
		return nil, err
	}
	chain, err := i.trust.chain(given, i.plausibleTime(given[0]))
	if err != nil {
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "the certificate is not what was asked for: %w", clean(err))
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, fault.New(fault.Transient, fault.ProofInvalid, errors.New("the certificate is for another key"))
	}
	made := newCredential(key, chain)
	if now := i.now(); !now.Before(made.usableUntil) {
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "a new certificate is at its end already, at %s by the clock here: look at "+
			"both hosts' time synchronisation", now.UTC().Format(time.RFC3339))
	}
	return made, nil
}

// plausibleTime is now, or the beginning of the certificate where Fulcio's clock is a little ahead.
func (i *Identity) plausibleTime(leaf *x509.Certificate) time.Time {
	now := i.now()
	if now.Before(leaf.NotBefore) && leaf.NotBefore.Sub(now) <= maxSkew {
		return leaf.NotBefore
	}
	return now
}
