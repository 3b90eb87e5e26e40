package keys

import (
	"context"
	"crypto"
)

// FakeRemote is a KMS or HSM of a test.
type FakeRemote struct {
	Public func(context.Context) (crypto.PublicKey, error)
	Sign   func(ctx context.Context, payload []byte) ([]byte, error)
	Closed int
}

func (f *FakeRemote) publicKey(ctx context.Context) (crypto.PublicKey, error) { return f.Public(ctx) }
func (f *FakeRemote) fits(crypto.PublicKey) error                             { return nil }

func (f *FakeRemote) close() error {
	f.Closed++
	return nil
}

func (f *FakeRemote) sign(ctx context.Context, _ crypto.PublicKey, payload []byte) ([]byte, error) {
	return f.Sign(ctx, payload)
}

// OpenFake opens a key of a fake. MaxCalls and Timeout must be set.
func OpenFake(ctx context.Context, s Source, f *FakeRemote) (*Key, error) {
	pinned, err := s.pinned()
	if err != nil {
		return nil, err
	}
	return s.prepare(ctx, newCalls(s.MaxCalls, s.Timeout, f), "fake", pinned)
}
