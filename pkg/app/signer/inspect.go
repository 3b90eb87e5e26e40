package signer

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/lifecycle"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/status"
)

// addInspector answers what receivers ask about images.
func (a *App) addInspector(g *lifecycle.Group) {
	answer := func(topic string, of func(*inspect.Inspector) func(context.Context, []byte) ([]byte, error)) func(context.Context) error {
		return func(ctx context.Context) error {
			i, err := inspect.New(inspect.Config{
				Registry: a.images, Verifier: a.engine.verifier, Formats: formats{a.engine.ring, a.engine.legacy, a.engine.bundles},
				Policies: a.policies, Now: failpoint.Now,
			})
			if err != nil {
				return err
			}
			return a.queue.Answer(ctx, topic, inspect.Workers, of(i))
		}
	}
	g.Go("answers about images", answer(inspect.VerifyTopic, func(i *inspect.Inspector) func(context.Context, []byte) ([]byte, error) {
		return i.AnswerVerify
	}))
	g.Go("answers about what is there", func(ctx context.Context) error {
		return a.queue.Answer(ctx, status.LookTopic, inspect.Workers, status.AnswerLook(a.images))
	})
	g.Go("answers with evidence", answer(inspect.EvidenceTopic, func(i *inspect.Inspector) func(context.Context, []byte) ([]byte, error) {
		return i.AnswerEvidence
	}))
}

// formats are those of package sigstore, as package inspect asks them.
type formats struct {
	ring    *sigstore.Keyring
	legacy  *sigstore.Legacy
	bundles *sigstore.Bundles
}

func (f formats) Tag(digest string) string { return f.legacy.Tag(digest) }

func (f formats) Legacy(
	ctx context.Context, m artifact.Manifest, claim artifact.Claim, limit int, fetch inspect.Fetch,
) ([]inspect.Reading, bool, error) {
	found, more, err := f.legacy.Examine(ctx, m, claim, limit, fetch)
	all := make([]inspect.Reading, len(found))
	for i, r := range found {
		all[i] = inspect.Reading(r)
	}
	return all, more, err
}

func (f formats) IsBundle(d artifact.Descriptor) bool { return f.bundles.Candidate(d) }

func (f formats) Bundle(
	ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch inspect.Fetch,
) (inspect.Reading, bool, error) {
	r, ok, err := f.bundles.Examine(ctx, m, claim, fetch)
	return inspect.Reading(r), ok, err
}

func (f formats) Key(nameOrID string) (string, bool) { return f.ring.Named(nameOrID) }
