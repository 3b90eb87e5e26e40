package keys

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"time"
)

// remote is a key that lives elsewhere. publicKey and sign are called by several goroutines at a time. They make one attempt,
// may ignore ctx, and return errors that say what to do, hold no secret, and are marked by away or refused where that is so.
type remote interface {
	// publicKey asks for the public part. It gives errNoPublicKey if the other side can sign but not tell it.
	publicKey(ctx context.Context) (crypto.PublicKey, error)
	// fits says why keys such as this one cannot be used here; nil if they can.
	fits(public crypto.PublicKey) error
	// sign signs as [Key.Sign] does. public is the key that was asked for or pinned.
	sign(ctx context.Context, public crypto.PublicKey, payload []byte) ([]byte, error)
	// close gives everything back. A call that nobody waits for any more may still run.
	close() error
}

// closeSlack lets a call that its provider ends after the timeout, which began just before Close, end in time.
const closeSlack = 2 * time.Second

var (
	errNoPublicKey = errors.New("the public key cannot be read: name a public key file")
	errClosed      = errors.New("the key is closed: this program is stopping")
	// errStrange is a signature by another key or algorithm than the public key's.
	errStrange = errors.New("the signature does not verify with the public key")
)

// calls lets a limited number of calls for one key run at a time, and bounds how long each is waited for.
type calls struct {
	there   remote
	timeout time.Duration
	// slots holds one element for each call that runs, also for one that nobody waits for any more.
	slots  chan struct{}
	closed chan struct{}
	// closeOnce guards closeErr.
	closeOnce sync.Once
	closeErr  error
}

func newCalls(limit int, timeout time.Duration, there remote) *calls {
	return &calls{there: there, timeout: timeout, slots: make(chan struct{}, limit), closed: make(chan struct{})}
}

func (c *calls) publicKey(ctx context.Context) (crypto.PublicKey, error) {
	return call(ctx, c, c.there.publicKey)
}

// sign gives a signature that verifies with public.
func (c *calls) sign(ctx context.Context, public PublicKey, payload []byte) ([]byte, error) {
	// A call that is given up goes on reading the payload, which is the caller's again by then.
	payload = bytes.Clone(payload)
	signature, err := call(ctx, c, func(ctx context.Context) ([]byte, error) { return c.there.sign(ctx, public.key, payload) })
	if err != nil {
		return nil, err
	}
	if len(signature) == 0 {
		return nil, errors.New("the answer holds no signature")
	}
	if !public.Verifies(payload, signature) {
		return nil, fmt.Errorf("%w %s: the key was rotated or replaced there, or signs by another algorithm than SHA-256 "+
			"(with PKCS #1 v1.5 for RSA); undo that, or make the new public key known and restart", errStrange, public.ID())
	}
	return signature, nil
}

type outcome[T any] struct {
	value T
	err   error
}

// call runs do in a goroutine of its own, because libraries may ignore their context. The goroutine keeps its slot until do
// returns. The error is that of ctx if ctx ends first.
func call[T any](ctx context.Context, c *calls, do func(context.Context) (T, error)) (T, error) {
	var none T
	if err := c.acquire(ctx); err != nil {
		return none, err
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	done := make(chan outcome[T], 1)
	go func() {
		defer c.release()
		value, err := guard(bounded, do)
		done <- outcome[T]{value, err}
	}()
	select {
	case o := <-done:
		if o.err == nil {
			return o.value, nil
		}
		if bounded.Err() == nil {
			return none, o.err
		}
	case <-bounded.Done():
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return none, away(fmt.Errorf("no answer within %s: look whether it is up and can be reached", c.timeout))
}

// guard turns a panic into an error: a defect in a provider must not end the program. What was thrown may hold anything, so
// its type alone is told.
func guard[T any](ctx context.Context, do func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Errorf("the provider panicked with %T at an answer that it did not expect", thrown)
		}
	}()
	return do(ctx)
}

// acquire takes a slot, or gives up after the timeout: whoever hangs holds one, and may do so for long.
func (c *calls) acquire(ctx context.Context) error {
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case <-c.closed:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return away(fmt.Errorf("none of the %d calls that may run at a time ended within %s: it hangs or is too slow for this load",
			cap(c.slots), c.timeout))
	case c.slots <- struct{}{}:
	}
	select {
	case <-c.closed:
		c.release()
		return errClosed
	default:
		return nil
	}
}

func (c *calls) release() { <-c.slots }

func (c *calls) close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.closeErr = errors.Join(c.drain(), c.there.close())
	})
	return c.closeErr
}

// drain waits for the calls that run, by taking all slots for good.
func (c *calls) drain() error {
	wait := c.timeout + closeSlack
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for free := range cap(c.slots) {
		select {
		case c.slots <- struct{}{}:
		case <-timer.C:
			return fmt.Errorf("closing the key: %d calls still hang after %s", cap(c.slots)-free, wait)
		}
	}
	return nil
}
