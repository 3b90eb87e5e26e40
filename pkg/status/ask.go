package status

import (
	"context"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Question is what somebody asks who may pull the image.
type Question struct {
	Image Image
	// Wait is how long to wait for the image to be signed; 0 to answer at once, at most [MaxWait].
	Wait time.Duration
	// Caller is who asks, in events and for the limits.
	Caller string
}

// Ask answers, at once where there is something else to say than that it is pending, and otherwise when that changes, after the time
// that the question gives, or when the service drains. The error is a [*CrowdedError] or a fault: then nothing is known, and least of
// all that the image is signed.
func (s *Service) Ask(ctx context.Context, q Question) (answer Answer, err error) {
	defer func() {
		outcome := answer.Outcome
		if err != nil {
			outcome = failed
		}
		s.metrics.answers.WithLabelValues(string(outcome)).Inc()
	}()
	i := &inquiry{s: s, image: q.Image, caller: q.Caller, known: make(map[artifact.Ref]artifact.Known, 1)}
	if q.Wait > 0 {
		leave, err := s.enter(q.Caller)
		if err != nil {
			return Answer{}, err
		}
		defer leave()
		i.watch = newWatch()
		defer s.hub.leave(i.watch)
	}
	found, err := i.resolve(ctx)
	if err != nil || !found {
		return i.missing(), err
	}
	if answer, err = i.await(ctx, min(q.Wait, MaxWait)); err != nil {
		return Answer{}, err
	}
	return i.finish(ctx, answer)
}

// inquiry is one question while it is answered. It belongs to one goroutine.
type inquiry struct {
	s      *Service
	image  Image
	ref    artifact.Ref
	caller string
	watch  *watch // nil for who does not wait
	known  map[artifact.Ref]artifact.Known
	asked  bool // this inquiry has asked for the image to be signed
}

// resolve finds out which manifest is meant.
func (i *inquiry) resolve(ctx context.Context) (found bool, err error) {
	if i.image.Digest != "" {
		i.ref, err = i.image.Ref(i.image.Digest)
		return err == nil, err
	}
	listed, err := i.s.checks.resolve(ctx, i.image.Repository, i.image.Tag)
	if fault.Is(err, fault.Gone) {
		return false, nil
	}
	i.ref = listed.Ref
	return err == nil, err
}

// await judges until there is something to say, or the time is over.
func (i *inquiry) await(ctx context.Context, patience time.Duration) (Answer, error) {
	// First it is said what is waited for, then it is read: what happens in between is news.
	if err := i.follow(ctx, i.ref); err != nil {
		return Answer{}, err
	}
	answer, err := i.judge(ctx)
	if err != nil || answer.Outcome != Pending || i.watch == nil {
		return answer, err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		case <-timer.C:
			return answer, nil
		case <-i.s.draining:
			return answer, nil
		case <-i.watch.changed:
		}
		i.s.hub.hear(i.watch, i.known)
		if answer, err = i.judge(ctx); err != nil || answer.Outcome != Pending {
			return answer, err
		}
	}
}

// follow reads what is known of manifests, and listens from now on.
func (i *inquiry) follow(ctx context.Context, refs ...artifact.Ref) error {
	if i.watch != nil {
		i.s.hub.follow(i.watch, refs...)
	}
	ctx, cancel := context.WithTimeout(ctx, i.s.cfg.Timeout)
	defer cancel()
	all, err := i.s.cfg.View.Known(ctx, refs)
	for _, known := range all {
		i.known[known.Ref] = known
	}
	return err
}

// request asks for the image to be signed, unless that was done just now. It gives why that is not done, if it is not.
func (i *inquiry) request(ctx context.Context) (policy.Reason, error) {
	reason, err := i.s.asked.get(ctx, i.ref, func() (policy.Reason, time.Duration, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.s.cfg.Timeout)
		defer cancel()
		_, reason, _, err := i.s.cfg.Door.Ask(ctx, i.ref, i.tag(), i.caller)
		if reason != "" {
			return reason, 0, err // a policy may change at any time
		}
		return "", askedAge, err
	})
	i.asked = i.asked || err == nil && reason == ""
	return reason, err
}

// tag is the one that Harbor has looked up.
func (i *inquiry) tag() string {
	if i.image.Digest != "" {
		return ""
	}
	return i.image.Tag
}

// there says whether Harbor has the manifest.
func (i *inquiry) there(ctx context.Context) (bool, error) {
	_, err := i.s.checks.resolve(ctx, i.ref.Repository(), i.ref.Digest())
	if fault.Is(err, fault.Gone) {
		return false, nil
	}
	return err == nil, err
}

// finish fills in what matters only to who gets the answer.
func (i *inquiry) finish(ctx context.Context, answer Answer) (Answer, error) {
	answer.Image, answer.Digest = i.image.At(i.s.cfg.Host), i.ref.Digest()
	if answer.Outcome != Pending {
		return answer, nil
	}
	ctx, cancel := context.WithTimeout(ctx, i.s.cfg.Timeout)
	defer cancel()
	i.place(ctx, &answer)
	return answer, nil
}

// place says where the request waits. That is a courtesy: without it the answer is still true.
func (i *inquiry) place(ctx context.Context, answer *Answer) {
	if i.s.cfg.Place == nil || answer.Reason == Children {
		return
	}
	lane, place, err := i.s.cfg.Place(ctx, i.ref)
	switch {
	case err != nil:
		i.s.cfg.Logger.Debug().Err(err).Str("digest", i.ref.Digest()).Msg("the place of a request is not known")
		return
	case lane != "":
		answer.Lane, answer.Place = lane, &place
	}
	if answer.Reason != Queued {
		return
	}
	switch {
	case lane == "":
		answer.Reason, answer.Detail = Recording, "no request waits any more: what became of it is on its way into the report"
	case place.HandedOut:
		answer.Reason, answer.Detail = InWork, "a signer has had the request"
	default:
	}
}

func (i *inquiry) missing() Answer {
	return Answer{
		Outcome: Missing, Image: i.image.At(i.s.cfg.Host), Digest: i.ref.Digest(),
		Detail: "Harbor does not have this image", WhatToDo: "push it, and check the name",
	}
}

// Find gives the manifest that an image names, if Harbor has it.
func (s *Service) Find(ctx context.Context, image Image) (ref artifact.Ref, found bool, err error) {
	reference := image.Digest
	if reference == "" {
		reference = image.Tag
	}
	listed, err := s.checks.resolve(ctx, image.Repository, reference)
	if fault.Is(err, fault.Gone) {
		return artifact.Ref{}, false, nil
	}
	return listed.Ref, err == nil, err
}
