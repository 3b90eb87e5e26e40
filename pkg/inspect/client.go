package inspect

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/signing"
)

const (
	// maxManifests is how many manifests of one image are looked at: an index with as many children as are signed, and itself.
	maxManifests = signing.MaxChildren + 1
	// atOnce is how many of them are asked for at once, and maxAsking how many for all images.
	atOnce    = 4
	maxAsking = 16
)

// Client asks the signers. It is safe for concurrent use.
type Client struct {
	signers Asker
	asking  chan struct{}
}

// NewClient makes a client.
func NewClient(signers Asker) (*Client, error) {
	if signers == nil {
		return nil, errors.New("asking about images: an asker is required")
	}
	return &Client{signers: signers, asking: make(chan struct{}, maxAsking)}, nil
}

// Result is what holds of an image with all its children.
type Result struct {
	// Verified says that each manifest is. Complete says that each was looked at: without it, Verified is false because it cannot
	// be told.
	Verified bool `json:"verified"`
	Complete bool `json:"complete"`
	// Manifests has what was asked for first, then its children level by level. One that several indexes name is there once.
	Manifests []Report `json:"manifests"`
}

// Verify has the signers look at a manifest and, if it is an index, at all below it, each once. It goes on until ctx ends: what
// was not looked at by then makes the result incomplete. The error is a fault: Gone if there is no such manifest, Permanent
// if the question cannot be asked, and Transient if no signer can tell about the manifest itself.
func (c *Client) Verify(ctx context.Context, q Question) (Result, error) {
	root, err := c.ask(ctx, VerifyTopic, q)
	if err != nil {
		return Result{}, err
	}
	result := Result{Verified: root.Verified, Complete: true, Manifests: []Report{root}}
	seen := map[string]bool{root.Digest: true}
	for level, depth := []Report{root}, 1; len(level) > 0; depth++ {
		var next []string
		for _, parent := range level {
			if parent.ChildrenTotal > len(parent.Children) || depth > signing.MaxDepth && len(parent.Children) > 0 {
				result.Complete = false
			}
			for _, child := range parent.Children {
				if !seen[child] && depth <= signing.MaxDepth {
					seen[child] = true
					next = append(next, child)
				}
			}
		}
		if left := maxManifests - len(result.Manifests); len(next) > left {
			next, result.Complete = next[:left], false
		}
		level = c.children(ctx, q, next, depth)
		result.Manifests = append(result.Manifests, level...)
	}
	for _, r := range result.Manifests {
		result.Verified = result.Verified && r.Verified
		for _, p := range r.Problems {
			result.Complete = result.Complete && p.Reason != NotLooked
		}
	}
	result.Verified = result.Verified && result.Complete
	return result, nil
}

// Evidence has a signer give all that stands in the registry about one manifest, with its documents. The errors are those of
// Verify.
func (c *Client) Evidence(ctx context.Context, ref artifact.Ref) (Report, error) {
	return c.ask(ctx, EvidenceTopic, Of(ref))
}

func (c *Client) ask(ctx context.Context, topic string, q Question) (Report, error) {
	if err := q.Validate(); err != nil {
		return Report{}, err
	}
	select {
	case c.asking <- struct{}{}:
	case <-ctx.Done():
		return Report{}, fault.New(fault.Transient, fault.Timeout, fmt.Errorf("waiting to ask the signers: %w", ctx.Err()))
	}
	defer func() { <-c.asking }()
	return q.ask(ctx, topic, c.signers)
}

// children looks at some manifests of the same repository, in their order.
func (c *Client) children(ctx context.Context, q Question, digests []string, depth int) []Report {
	reports := make([]Report, len(digests))
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for n, digest := range digests {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			reports[n] = c.child(ctx, q, digest)
			reports[n].Depth = depth
		})
	}
	group.Wait()
	return reports
}

// child looks at one manifest, once more if nobody has answered: a signer drops questions that it has no room for.
func (c *Client) child(ctx context.Context, q Question, digest string) Report {
	q.Reference = digest
	r, err := c.ask(ctx, VerifyTopic, q)
	if err != nil && fault.Is(err, fault.Transient) && ctx.Err() == nil {
		r, err = c.ask(ctx, VerifyTopic, q)
	}
	if err == nil {
		return r
	}
	r = Report{
		Repository: q.Repository, Digest: digest, Problems: []Problem{}, Missing: []artifact.Format{}, Owed: []artifact.Format{},
		Signatures: []Signature{}, Children: []string{},
	}
	if fault.Is(err, fault.Gone) {
		r.problem(Gone, "the index names this manifest, and the registry does not have it")
	} else {
		r.problem(NotLooked, "it could not be looked at: %.300v", err)
	}
	return r
}
