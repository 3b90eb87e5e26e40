package enroll

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// listingAge is how long a listing of Harbor's projects is taken for true, and listingRetry how soon it is asked for again
	// where there is none at all.
	listingAge   = time.Minute
	listingRetry = 5 * time.Second
	// listingTime bounds a listing that somebody waits for, who is given the one of before otherwise.
	listingTime = 5 * time.Second
)

// listing is the newest listing of Harbor's projects. Whoever holds the turn may use the fields.
type listing struct {
	turn  chan struct{} // has room for one: who asks, or looks
	names []string      // sorted; nil before the first answer
	next  time.Time     // when Harbor may be asked again
	err   error         // of the last attempt
}

// Listed gives the names of all projects of Harbor that the receiver's account sees, sorted, whether they are enabled or not;
// none without an account. Harbor is asked at most once a minute, whoever wants to know; while it does not answer, the last
// answer stands. The slice must not be changed. The error is a fault, or that of ctx.
func (s *Service) Listed(ctx context.Context) ([]string, error) {
	if s.cfg.Harbor == nil {
		return nil, nil
	}
	select {
	case s.listing.turn <- struct{}{}:
		defer func() { <-s.listing.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the list of projects: %w", ctx.Err())
	}
	if l := &s.listing; !s.cfg.Now().Before(l.next) {
		// Others wait for the answer as well, so that it does not end with the request that asks.
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), listingTime)
		defer cancel()
		all, err := s.cfg.Harbor.AllProjects(asking)
		s.noteListing(all, err)
		if err != nil && l.names != nil {
			s.cfg.Logger.Warn().Err(err).Msg("projects could not be listed: the last list is given")
		}
	}
	if s.listing.names == nil {
		return nil, s.listing.err
	}
	return s.listing.names, nil
}

// list gives the projects anew, for the drift checks, and keeps what Harbor says for Listed.
func (s *Service) list(ctx context.Context) ([]string, error) {
	all, err := s.cfg.Harbor.AllProjects(ctx)
	if err != nil {
		return namesOf(all), err
	}
	select {
	case s.listing.turn <- struct{}{}:
		s.noteListing(all, nil)
		<-s.listing.turn
	default: // somebody asks at this moment
	}
	return namesOf(all), nil
}

// noteListing is for who holds the turn.
func (s *Service) noteListing(all []artifact.Project, err error) {
	l := &s.listing
	if l.err = err; err == nil {
		l.names = namesOf(all)
	}
	l.next = s.cfg.Now().Add(listingAge)
	if l.names == nil {
		l.next = s.cfg.Now().Add(listingRetry)
	}
}

// namesOf is never nil.
func namesOf(all []artifact.Project) []string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name
	}
	slices.Sort(names)
	return slices.Compact(names)
}
