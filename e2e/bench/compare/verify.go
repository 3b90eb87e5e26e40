package compare

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/e2e/checker"
)

// samples is how many signatures of each order are verified.
const samples = 3

// verifier looks whether signatures are what they should be, with nothing of what the contenders use.
type verifier struct{ of map[string]*checker.Checker }

func newVerifier(s *stage, k keyFiles) *verifier {
	registry := checker.NewRegistry(checker.Access{URL: s.url, Username: s.username, Password: s.secret, Transport: s.client.Transport})
	return &verifier{of: map[string]*checker.Checker{
		legacy: checker.New(registry, s.host, k.public, checker.Legacy),
		bundle: checker.New(registry, s.host, k.public, checker.Bundle),
		both:   checker.New(registry, s.host, k.public, checker.Legacy, checker.Bundle),
	}}
}

// some checks signatures from the start, the middle and the end of an order.
func (v *verifier) some(ctx context.Context, format string, o contender.Order) error {
	step := max(1, (len(o.Digests)-1)/(samples-1))
	for i := 0; i < len(o.Digests); i += step {
		_, violations, err := v.of[format].Signed(ctx, o.Repository, o.Digests[i])
		if err != nil {
			return fmt.Errorf("verifying a signature: %w", err)
		}
		if len(violations) > 0 {
			return fmt.Errorf("a signature is not as it should be: %s", violations[0])
		}
	}
	return nil
}
