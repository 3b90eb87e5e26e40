package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Block keeps a digest from ever being signed in a project, for a reason. Blocking it again replaces the reason; who has
// blocked it and when stays if the reason does.
func (s *Service) Block(ctx context.Context, actor Actor, project, digest, why string) (View, error) {
	if err := artifact.ValidateDigest(digest); err != nil {
		return View{}, &policy.FieldError{Field: "digest", Want: "want sha256: and 64 lower-case hexadecimal digits"}
	}
	if !policy.ValidReason(why) {
		return View{}, &policy.FieldError{Field: "reason", Want: fmt.Sprintf("want why it is blocked, in at most %d bytes", policy.MaxReason)}
	}
	return s.changeBlocks(ctx, actor, project, func(blocks []policy.Block) ([]policy.Block, error) {
		block := policy.Block{Digest: digest, Reason: why, By: actor.Name, At: s.cfg.Now().UTC()}
		at := slices.IndexFunc(blocks, func(b policy.Block) bool { return b.Digest == digest })
		switch {
		case at >= 0 && blocks[at].Reason == why:
			return blocks, nil
		case at >= 0:
			blocks[at] = block
			return blocks, nil
		case len(blocks) >= policy.MaxBlocks:
			return nil, &policy.FieldError{Field: "digest", Want: fmt.Sprintf("the project has %d blocks, which is the most: unblock what is no longer there", policy.MaxBlocks)}
		default:
			return append(blocks, block), nil
		}
	})
}

// Unblock lets a digest be signed again. One that is not blocked is a success.
func (s *Service) Unblock(ctx context.Context, actor Actor, project, digest string) (View, error) {
	return s.changeBlocks(ctx, actor, project, func(blocks []policy.Block) ([]policy.Block, error) {
		return slices.DeleteFunc(blocks, func(b policy.Block) bool { return b.Digest == digest }), nil
	})
}

// changeBlocks also changes those of a document that a rule of the configuration file has put aside, because they still count.
// It needs no ETag: a block does not depend on what else is in the policy. It takes the steps of Put, but for the
// webhook's.
func (s *Service) changeBlocks(ctx context.Context, actor Actor, project string, change func([]policy.Block) ([]policy.Block, error)) (View, error) {
	for range attempts {
		c, err := s.load(ctx, project)
		switch {
		case err != nil:
			return View{}, err
		case c.document == nil && c.rule != nil:
			return View{}, ErrManagedByConfig
		case c.document == nil:
			return View{}, ErrNoPolicy
		}
		next := *c.document
		if next.Blocks, err = change(slices.Clone(c.document.Blocks)); err != nil {
			return View{}, err
		}
		if !slices.Equal(next.Blocks, c.document.Blocks) {
			s.sign(&next, actor)
			err := s.replace(ctx, &c, next)
			if errors.Is(err, policy.ErrConflict) {
				continue
			}
			if err != nil {
				return View{}, err
			}
			s.cfg.Logger.Info().Str("project", project).Str("actor", actor.Name).Int("blocks", len(next.Blocks)).Msg("blocks changed")
		}
		if err := s.recordChanges(ctx, project, c.revision); err != nil {
			return View{}, err
		}
		// The sweep takes what is blocked now, or no longer, into the report. After many changes the drift check asks for it.
		if s.limits.take(project, s.cfg.Now()) == 0 {
			if err := s.sweepFor(ctx, c); err != nil {
				return View{}, err
			}
		}
		return s.view(ctx, c)
	}
	return View{}, conflict()
}

// secretVersion is what the event of a rotation says before and after.
type secretVersion struct {
	Version int `json:"webhook_secret_version"`
}

// Rotate gives the project's webhook a new secret. The old one counts for another hour, so that no delivery is refused, and
// until then a further call finishes this rotation and begins none.
//
// The event comes first and says what was asked for. A crash after it: nothing has changed yet; a repetition has the same id.
// A crash after the state: the new secret counts, as the old one does, which Harbor still has; the next call or the drift
// check tells Harbor.
func (s *Service) Rotate(ctx context.Context, actor Actor, project string) (View, error) {
	if s.cfg.Harbor == nil {
		return View{}, ErrNoHarbor
	}
	c, err := s.load(ctx, project)
	if err != nil {
		return View{}, err
	}
	if !c.working() {
		return View{}, ErrNotEnabled
	}
	found, err := s.cfg.Harbor.Project(ctx, project)
	if err != nil {
		return View{}, fmt.Errorf("looking for the project: %w", err)
	}
	if id := c.policy().ProjectID; id != 0 && id != found.ID {
		return View{}, ErrNotEnabled // the drift check will say so
	}
	// Harbor must have the version that counts now, else a delivery could come with one before the one before.
	if err := s.keepWebhook(ctx, found); err != nil {
		return View{}, err
	}
	state, _, err := s.state(ctx, project)
	if err != nil {
		return View{}, err
	}
	if state.PreviousVersion == 0 || !s.cfg.Now().Before(state.PreviousUntil) {
		if err := s.rotate(ctx, actor, state); err != nil {
			return View{}, err
		}
		if err := s.keepWebhook(ctx, found); err != nil {
			return View{}, err
		}
	}
	if c.state, _, err = s.state(ctx, project); err != nil {
		return View{}, err
	}
	return s.view(ctx, c)
}

func (s *Service) rotate(ctx context.Context, actor Actor, state policy.State) error {
	event, err := s.rotationEvent(actor, state)
	if err != nil {
		return err
	}
	if err := s.record(ctx, event); err != nil {
		return err
	}
	_, err = s.update(ctx, state.Project, func(st *policy.State) {
		if st.ProjectID != state.ProjectID || st.SecretVersion != state.SecretVersion {
			return // somebody else has rotated meanwhile
		}
		st.SecretVersion, st.PreviousVersion = state.SecretVersion+1, state.SecretVersion
		st.PreviousUntil = s.cfg.Now().Add(previousMost).UTC()
	})
	if err == nil {
		s.cfg.Logger.Info().Str("project", state.Project).Str("actor", actor.Name).Int("version", state.SecretVersion+1).Msg("webhook secret rotated")
	}
	return err
}

func (s *Service) rotationEvent(actor Actor, state policy.State) (artifact.Event, error) {
	before, err := encode(secretVersion{state.SecretVersion})
	if err != nil {
		return artifact.Event{}, err
	}
	after, err := encode(secretVersion{state.SecretVersion + 1})
	if err != nil {
		return artifact.Event{}, err
	}
	id := artifact.EventID(artifact.PolicyChanged, artifact.Ref{}, state.Project, "webhook_secret", fmt.Sprint(state.ProjectID), fmt.Sprint(state.SecretVersion+1))
	return artifact.Event{
		ID: id, Kind: artifact.PolicyChanged, Project: state.Project, Time: s.cfg.Now().UTC(), Actor: actor.Name, Origin: artifact.OriginAPI,
		CorrelationID: id, Detail: "a new secret was asked for the project's webhook",
		Change: &artifact.Change{Before: before, After: after, From: actor.From},
	}, nil
}

func encode(v any) (json.RawMessage, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return data, nil
}
