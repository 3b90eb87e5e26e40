package signer

import (
	"context"

	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// policies are the book of policies with the bucket that it is read from.
type policies struct {
	*book.Book
	bucket book.Bucket
}

// Fresh implements the policies of packages signing and reconcile.
func (p policies) Fresh(ctx context.Context, project string) (policy.Policy, error) {
	return p.Refresh(ctx, p.bucket, project)
}
