package enroll

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// DriftTick is the kind of tick whose key is a project to check.
const DriftTick = "drift"

const (
	// checkedEvery is how often the state says that a project was checked though nothing has changed.
	checkedEvery = time.Hour
	// sweepWithin is how long after a change the sweep that belongs to it is still proposed.
	sweepWithin = time.Hour
)

// findings are what a check of a project has found out.
type findings struct {
	present map[reason][]string // with what is wrong, in words
	told    map[reason]bool     // it was looked at
	unknown map[reason]bool     // it could not be told: what stood before stands
}

func newFindings() *findings {
	return &findings{present: map[reason][]string{}, told: map[reason]bool{}, unknown: map[reason]bool{}}
}

// is notes that a reason was looked at, and what is wrong, if something is.
func (f *findings) is(r reason, wrong bool, detail string) {
	f.told[r] = true
	if wrong {
		f.present[r] = append(f.present[r], detail)
	}
}

func (f *findings) begun() map[reason]string {
	begun := map[reason]string{}
	for r, details := range f.present {
		slices.Sort(details)
		begun[r] = strings.Join(slices.Compact(details), "; ")
	}
	return begun
}

func (f *findings) over() []reason {
	var over []reason
	for r := range f.told {
		if len(f.present[r]) == 0 && !f.unknown[r] {
			over = append(over, r)
		}
	}
	return over
}

// Check compares Harbor with the policy of a project: it finishes what a crash has left undone, repairs what is ours, and
// says what is not. It is what Tick does, and safe to repeat.
//
// The error says that something could not be told or done, such as while Harbor is away: nothing is concluded from that, and
// the next tick tries again.
func (s *Service) Check(ctx context.Context, project string) error {
	if s.cfg.Harbor == nil {
		return nil
	}
	c, err := s.load(ctx, project)
	if err != nil {
		return fmt.Errorf("checking a project: %w", err)
	}
	if c.document != nil {
		if err := s.recordChanges(ctx, project, c.revision); err != nil {
			return fmt.Errorf("checking a project: %w", err)
		}
	}
	if !c.policy().Enabled() {
		if err = s.dropWebhook(ctx, c.state); err != nil {
			return fmt.Errorf("checking a project: %w", err)
		}
		return nil
	}
	found, err := s.cfg.Harbor.Project(ctx, project)
	switch id := c.policy().ProjectID; {
	case fault.Is(err, fault.Gone):
		return s.begin(ctx, project, map[reason]string{
			projectGone: "Harbor has no such project, or the receiver's account may not see it",
		})
	case err != nil:
		return fmt.Errorf("checking a project: %w", err)
	case id != 0 && id != found.ID:
		return s.suspend(ctx, c, found)
	case id == 0 && c.state.ProjectID != 0 && c.state.ProjectID != found.ID:
		// A rule of the file means whatever stands under the name. Somebody should know all the same.
		if err := s.begin(ctx, project, map[reason]string{projectReplaced: fmt.Sprintf(
			"the project was deleted and made anew: it had the id %d and has %d now; the configuration file names it, so that signing goes on", c.state.ProjectID, found.ID)}); err != nil {
			return err
		}
	}
	if err := s.checkEnabled(ctx, c, found); err != nil && !errors.Is(err, errDisabled) {
		return fmt.Errorf("checking a project: %w", err)
	}
	return nil
}

// suspend keeps a policy from another project that stands under the name: nobody has decided about its images.
//
// The state decides, and signers see the other id by themselves. A crash after it, and before the event: the next check
// records it, with the same id.
func (s *Service) suspend(ctx context.Context, c current, found artifact.Project) error {
	if _, err := s.update(ctx, c.project, func(st *policy.State) { st.SuspendedFor = found.ID }); err != nil {
		return err
	}
	if err := s.end(ctx, c.project, projectGone); err != nil {
		return err
	}
	return s.begin(ctx, c.project, map[reason]string{projectReplaced: fmt.Sprintf(
		"the project was deleted and made anew: it had the id %d and has %d now; nothing is signed until somebody enables it again", c.policy().ProjectID, found.ID)})
}

// checkEnabled does one thing after the other and hides no failure of one behind another.
func (s *Service) checkEnabled(ctx context.Context, c current, found artifact.Project) error {
	f := newFindings()
	f.is(projectGone, false, "")
	f.is(projectReplaced, false, "")
	f.is(proxyCache, found.ProxyCache, "the project is a proxy cache: no signature can be attached")
	var errs []error
	if err := s.keepWebhook(ctx, found); errors.Is(err, errDisabled) {
		return err
	} else if err != nil {
		errs = append(errs, err)
		f.refused(err)
	}
	changed, err := s.changedAt(ctx, c)
	errs = append(errs, err, s.checkDeliveries(ctx, f, c.project), s.checkSystem(ctx, f))
	if s.isThorough(c, changed) {
		s.checkRights(ctx, f, c)
	}
	errs = append(errs, s.begin(ctx, c.project, f.begun()), s.end(ctx, c.project, f.over()...))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := s.sweepLately(ctx, c, changed); err != nil {
		return err
	}
	now := s.cfg.Now().UTC()
	_, err = s.update(ctx, c.project, func(st *policy.State) {
		// Where no signer has answered, the next check asks again what it says of the new policy.
		if now.Sub(st.CheckedAt) >= checkedEvery || !st.CheckedAt.After(changed) && !f.unknown[unverifiable] {
			st.CheckedAt = now
		}
	})
	return err
}

// changedAt is when the policy was changed that counts for a project.
func (s *Service) changedAt(ctx context.Context, c current) (time.Time, error) {
	if c.rule == nil {
		return c.document.ChangedAt, nil
	}
	entry, err := s.cfg.Queue.GetPolicy(ctx, book.Declared, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the declared policies: %w", err)
	}
	return entry.At, nil
}

// refused notes that Harbor did not let us keep the webhook.
func (f *findings) refused(err error) {
	if fault.Of(err).Reason == fault.Denied {
		f.is(rightMissing, true, err.Error())
	} else {
		f.unknown[rightMissing] = true
	}
}

// checkDeliveries asks Harbor's own log whether its deliveries arrive. Without any there is nothing to tell: what stood
// before stands.
func (s *Service) checkDeliveries(ctx context.Context, f *findings, project string) error {
	state, _, err := s.state(ctx, project)
	if err != nil || state.WebhookID == 0 {
		return err
	}
	log, err := s.cfg.Harbor.Deliveries(ctx, project, state.WebhookID)
	if err != nil {
		f.unknown[webhookFailing] = true
		return fmt.Errorf("reading the webhook's deliveries: %w", err)
	}
	f.is(webhookFailing, log.LastFailed, "Harbor's newest delivery has failed: "+log.LastError)
	return nil
}

func (s *Service) checkSystem(ctx context.Context, f *findings) error {
	info, err := s.cfg.Harbor.System(ctx)
	if err != nil {
		f.unknown[notificationsOff] = true
		return fmt.Errorf("asking Harbor about itself: %w", err)
	}
	f.is(notificationsOff, !info.Notifications, "Harbor sends no webhooks at all (notification_enable is off)")
	return nil
}

// isThorough says whether it is time to ask for all rights: in every so manyth check, another one for each project; in the
// first one, also after a change, because nobody has asked the signers before a configuration file counts; and while one of the
// problems stands that only such a check sees the end of.
func (s *Service) isThorough(c current, changed time.Time) bool {
	if !c.state.CheckedAt.After(changed) {
		return true
	}
	for _, p := range c.state.Problems {
		switch reason(p.Reason) {
		case rightMissing, pullPolicy, quotaFull, formatUnsupported, keyMissing, unverifiable, privateAddress:
			return true
		default:
		}
	}
	return (s.slot()+int64(spread(c.project)%1024))%int64(s.cfg.ThoroughEvery) == 0
}

func spread(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return h.Sum64()
}

// checkRights asks for everything that the pre-checks ask for, of our own account and of the signers'.
func (s *Service) checkRights(ctx context.Context, f *findings, c current) {
	spec := policy.Spec{}
	if c.document != nil {
		spec = c.document.Spec
	}
	if declared, _ := s.declaredSpec(c.project); declared != nil {
		spec = *declared
	}
	for _, check := range preflight.Merge(s.receiver().Check(ctx, c.project), s.askSigner(ctx, c.project, spec)) {
		for _, r := range reasonsOf(check.Name) {
			if check.Unknown {
				f.unknown[r] = true
				continue
			}
			// What was skipped does not apply.
			f.is(r, check.Status == preflight.Failed, strings.TrimPrefix(string(check.Name), preflight.RightPrefix)+": "+check.Detail)
		}
	}
}

// reasonsOf gives the reasons that a check of package preflight speaks of.
func reasonsOf(name preflight.Name) []reason {
	switch name {
	case preflight.PullPolicy:
		return []reason{pullPolicy}
	case preflight.Quota:
		return []reason{quotaFull}
	case preflight.Format:
		return []reason{formatUnsupported}
	case preflight.Key:
		return []reason{keyMissing}
	case preflight.Transparency, preflight.Timestamp:
		return []reason{unverifiable}
	case preflight.PrivateAddress:
		return []reason{privateAddress}
	case preflight.Signer: // none has answered
		return []reason{rightMissing, pullPolicy, quotaFull, formatUnsupported, keyMissing, unverifiable}
	case preflight.Rights:
		return []reason{rightMissing, pullPolicy}
	default:
		if strings.HasPrefix(string(name), preflight.RightPrefix) {
			return []reason{rightMissing}
		}
		return nil
	}
}

// sweepLately proposes the sweep that belongs to a change of the last hour, in case a crash came before it: the queue refuses
// it if it was proposed before.
func (s *Service) sweepLately(ctx context.Context, c current, changed time.Time) error {
	lately := s.cfg.Now().Sub(changed) < sweepWithin
	switch {
	case c.rule == nil && lately:
		c.state.SuspendedFor = 0 // keepWebhook has lifted it
		return s.sweepFor(ctx, c)
	case c.rule != nil && (lately || c.state.CheckedAt.IsZero()):
		return s.propose(ctx, c.project, -changed.UnixNano())
	default:
		return nil
	}
}
