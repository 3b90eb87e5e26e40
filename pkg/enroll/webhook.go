package enroll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	webhookName        = "harborseal"
	webhookDescription = "Kept by harborseal: what is changed here is undone. Disable the project's signing there."
	pushEvent          = "PUSH_ARTIFACT"
	formatDefault      = "Default"
	formatCloudEvents  = "CloudEvents"

	// previousCounts is how long the secret of before a rotation counts once Harbor knows the new one: deliveries that Harbor
	// has made already carry it. previousMost bounds it while Harbor cannot be told.
	previousCounts = time.Hour
	previousMost   = 24 * time.Hour
)

// errDisabled says that somebody has disabled the project while its webhook was seen to.
var errDisabled = fmt.Errorf("the project was disabled: %w", policy.ErrConflict)

// verdict is how the project's webhooks in Harbor differ from what they should be.
type verdict struct {
	// own is ours as it is in Harbor, the zero value if it is not there, and want as it should be.
	own, want artifact.Webhook
	// extra are further ones that we have made, which a crash or a second receiver may have left.
	extra []artifact.Webhook
	// reason and detail are set if somebody else has changed or removed it. It may have to be made or updated without that.
	reason reason
	detail string
}

// judge compares. Ours is the webhook whose id the state holds, or one with our name and our address, such as somebody made by
// hand before the project was enabled here: it is taken over.
func (s *Service) judge(all []artifact.Webhook, state policy.State) verdict {
	address := s.address + state.Project
	var ours []artifact.Webhook
	for _, w := range all {
		if w.ID == state.WebhookID || isOurName(w.Name) && sameAddress(w.Address, address) {
			ours = append(ours, w)
		}
	}
	// The one that the state names first, then the oldest.
	slices.SortFunc(ours, func(a, b artifact.Webhook) int {
		if (a.ID == state.WebhookID) != (b.ID == state.WebhookID) {
			if a.ID == state.WebhookID {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	})
	v := verdict{want: artifact.Webhook{
		Name: freeName(all), Description: webhookDescription, Enabled: true, Events: []string{pushEvent}, Address: address,
		AuthHeader: s.masters[0].authorization(s.cfg.HarborName, state.ProjectID, state.SecretVersion), Format: formatDefault,
	}}
	if len(ours) == 0 {
		if state.WebhookID != 0 {
			v.reason, v.detail = webhookMissing, "the webhook was removed from Harbor"
		}
		return v
	}
	v.own = ours[0]
	for _, w := range ours[1:] {
		if _, made := s.version(w.AuthHeader, state.ProjectID); made {
			v.extra = append(v.extra, w)
		}
	}
	// What does no harm stays: a name, further events, the other format, and how Harbor checks our certificate.
	v.want.ID, v.want.Name, v.want.Description, v.want.SkipCertVerify = v.own.ID, v.own.Name, v.own.Description, v.own.SkipCertVerify
	v.want.Events = slices.Clone(v.own.Events)
	if !slices.Contains(v.want.Events, pushEvent) {
		v.want.Events = append(v.want.Events, pushEvent)
	}
	if v.own.Format == formatCloudEvents {
		v.want.Format = formatCloudEvents
	}
	if changes := s.changes(v.own, v.want, state); v.own.ID == state.WebhookID && len(changes) > 0 {
		v.reason, v.detail = changes[0].reason, changes[0].detail
	}
	return v
}

// JudgeWebhook finds the webhook that the service keeps in a project among all that Harbor has there, and says all that is
// wrong with it: what the drift check would repair. The zero ID means that there is none. It changes nothing.
func (s *Service) JudgeWebhook(ctx context.Context, project string, all []artifact.Webhook) (own artifact.Webhook, wrong []string) {
	if s.cfg.Harbor == nil {
		return artifact.Webhook{}, []string{ErrNoHarbor.Error()}
	}
	state, _, err := s.state(ctx, project)
	if err != nil {
		return artifact.Webhook{}, []string{err.Error()}
	}
	v := s.judge(all, state)
	if v.own.ID == 0 {
		return artifact.Webhook{}, []string{"Harbor has no webhook of this service in the project"}
	}
	for _, c := range s.changes(v.own, v.want, state) {
		wrong = append(wrong, c.detail)
	}
	return v.own, wrong
}

// change is one thing that somebody else has changed.
type change struct {
	reason reason
	detail string
}

// changes says what somebody else has changed, the worst first. A secret of before a rotation, or of another of our masters, is
// ours.
func (s *Service) changes(own, want artifact.Webhook, state policy.State) []change {
	version, ours := s.version(own.AuthHeader, state.ProjectID)
	var all []change
	for _, c := range []struct {
		is bool
		change
	}{
		{!sameAddress(own.Address, want.Address), change{webhookElsewhere, "the webhook points elsewhere than to " + want.Address}},
		{!own.Enabled, change{webhookDisabled, "the webhook is disabled in Harbor"}},
		{!slices.Contains(own.Events, pushEvent), change{webhookChanged, "the webhook does not tell of pushes"}},
		{own.Format != want.Format, change{webhookChanged, "the webhook has a payload format that is not understood"}},
		{
			!ours || version != state.SecretVersion && version != state.PreviousVersion,
			change{webhookChanged, "the webhook has another secret"},
		},
	} {
		if c.is {
			all = append(all, c.change)
		}
	}
	return all
}

// differs says whether Harbor has to be told.
func (v verdict) differs() bool {
	o, w := v.own, v.want
	return o.Enabled != w.Enabled || !slices.Equal(o.Events, w.Events) || !sameAddress(o.Address, w.Address) ||
		o.AuthHeader != w.AuthHeader || o.Format != w.Format
}

// keepWebhook brings our webhook and the state in line with an enabled policy, for the project as it was found in Harbor. It
// is the same for the first time, for a repetition, and for a repair; what somebody else has changed becomes an event.
//
// A crash after the first update leaves a secret that counts and that nobody knows. A crash after the webhook was made, and
// before the state has its id, leaves one that the next call knows by its name and address.
func (s *Service) keepWebhook(ctx context.Context, found artifact.Project) error {
	state, err := s.update(ctx, found.Name, func(st *policy.State) {
		if st.ProjectID != found.ID {
			// Another project's webhook went with it, and its secret was derived from its id.
			st.ProjectID, st.WebhookID, st.SecretVersion, st.PreviousVersion, st.PreviousUntil = found.ID, 0, 0, 0, time.Time{}
		}
		st.SecretVersion = max(st.SecretVersion, 1)
		st.SuspendedFor = 0
	})
	if err != nil {
		return err
	}
	all, err := s.cfg.Harbor.Webhooks(ctx, found.Name)
	if err != nil {
		return fmt.Errorf("listing the webhooks: %w", err)
	}
	v := s.judge(all, state)
	if v.reason != "" {
		if err := s.begin(ctx, found.Name, map[reason]string{v.reason: v.detail}); err != nil {
			return err
		}
	}
	id, err := s.tell(ctx, found.Name, v, state)
	if err != nil {
		return err
	}
	s.removeExtra(ctx, found.Name, v.extra)
	if _, err := s.update(ctx, found.Name, func(st *policy.State) {
		if st.ProjectID != found.ID || st.SecretVersion != state.SecretVersion {
			return // somebody else is further
		}
		st.WebhookID = id
		if until := s.cfg.Now().Add(previousCounts).UTC(); st.PreviousVersion != 0 && st.PreviousUntil.After(until) {
			st.PreviousUntil = until
		}
	}); err != nil {
		return err
	}
	if err := s.stillEnabled(ctx, found.Name); err != nil {
		return err
	}
	return s.end(ctx, found.Name, webhookMissing, webhookDisabled, webhookChanged, webhookElsewhere)
}

// stillEnabled removes the webhook again if the project was disabled while it was made. Whoever disables it later finds it.
func (s *Service) stillEnabled(ctx context.Context, project string) error {
	c, err := s.load(ctx, project)
	if err != nil || c.policy().Enabled() {
		return err
	}
	if err := s.dropWebhook(ctx, c.state); err != nil {
		return err
	}
	return errDisabled
}

// tell makes or updates the webhook in Harbor and gives its id.
func (s *Service) tell(ctx context.Context, project string, v verdict, state policy.State) (int64, error) {
	if v.own.ID != 0 {
		if v.differs() {
			if err := s.cfg.Harbor.UpdateWebhook(ctx, project, v.want); err != nil {
				return 0, fmt.Errorf("updating the webhook: %w", err)
			}
			s.cfg.Logger.Info().Str("project", project).Int64("webhook_id", v.own.ID).Str("reason", string(v.reason)).Msg("webhook updated")
		}
		return v.own.ID, nil
	}
	id, err := s.cfg.Harbor.CreateWebhook(ctx, project, v.want)
	if err == nil {
		s.cfg.Logger.Info().Str("project", project).Int64("webhook_id", id).Str("reason", string(v.reason)).Msg("webhook created")
		return id, nil
	}
	// Harbor takes each name once: another receiver may have been faster, or an answer was lost.
	if all, listErr := s.cfg.Harbor.Webhooks(ctx, project); listErr == nil {
		if again := s.judge(all, state); again.own.ID != 0 && !again.differs() {
			return again.own.ID, nil
		}
	}
	return 0, fmt.Errorf("creating the webhook: %w", err)
}

// removeExtra removes further webhooks of ours: with two of them every push would be reported twice, which harms nothing,
// so that a failure can wait for the next check.
func (s *Service) removeExtra(ctx context.Context, project string, extra []artifact.Webhook) {
	for _, w := range extra {
		if err := s.cfg.Harbor.DeleteWebhook(ctx, project, w.ID); err != nil && !fault.Is(err, fault.Gone) {
			s.cfg.Logger.Warn().Err(err).Str("project", project).Int64("webhook_id", w.ID).Msg("second webhook of ours could not be removed")
		}
	}
}

// dropWebhook removes our webhook of a project that is no longer enabled. Harbor refuses to delete one while a delivery is
// under way, so that it is disabled first: it may stay behind, silent, until the next check.
//
// The secret goes on counting, so that deliveries that are under way are answered with "not enabled" and not repeated. A
// crash after the webhook was deleted, and before the state knows it, leaves an id that the next call does not find.
func (s *Service) dropWebhook(ctx context.Context, state policy.State) error {
	project := state.Project
	if s.cfg.Harbor == nil || state.WebhookID == 0 && state.SecretVersion == 0 {
		return nil
	}
	all, err := s.cfg.Harbor.Webhooks(ctx, project)
	if err != nil {
		// To accounts that are no system admin, Harbor denies what is not there.
		if _, gone := s.cfg.Harbor.Project(ctx, project); !fault.Is(gone, fault.Gone) {
			return fmt.Errorf("listing the webhooks: %w", err)
		}
	}
	v := s.judge(all, state)
	left := int64(0)
	if v.own.ID != 0 {
		for _, w := range append(v.extra, v.own) {
			remains, err := s.dropOne(ctx, project, w)
			if err != nil {
				return err
			}
			if remains {
				left = w.ID
			}
		}
	}
	if _, err := s.update(ctx, project, func(st *policy.State) { st.WebhookID = left }); err != nil {
		return err
	}
	return s.end(ctx, project, reasons()...)
}

func (s *Service) dropOne(ctx context.Context, project string, w artifact.Webhook) (remains bool, err error) {
	if w.Enabled {
		w.Enabled = false
		if err := s.cfg.Harbor.UpdateWebhook(ctx, project, w); err != nil && !fault.Is(err, fault.Gone) {
			return true, fmt.Errorf("disabling the webhook: %w", err)
		}
	}
	err = s.cfg.Harbor.DeleteWebhook(ctx, project, w.ID)
	switch {
	case err == nil, fault.Is(err, fault.Gone):
		s.cfg.Logger.Info().Str("project", project).Int64("webhook_id", w.ID).Msg("webhook removed")
		return false, nil
	case ctx.Err() != nil:
		return true, errors.Join(err, ctx.Err())
	default:
		s.cfg.Logger.Warn().Err(err).Str("project", project).Int64("webhook_id", w.ID).Msg("webhook is disabled, and could not be removed yet")
		return true, nil
	}
}

func isOurName(name string) bool {
	return name == webhookName || strings.HasPrefix(name, webhookName+"-")
}

// freeName gives our name, or one like it where somebody else's webhook has it.
func freeName(all []artifact.Webhook) string {
	taken := func(name string) bool {
		return slices.ContainsFunc(all, func(w artifact.Webhook) bool { return w.Name == name })
	}
	name := webhookName
	for i := 2; taken(name); i++ {
		name = fmt.Sprintf("%s-%d", webhookName, i)
	}
	return name
}

// sameAddress compares as Harbor keeps addresses: without white space around them and slashes behind them.
func sameAddress(a, b string) bool {
	clean := func(s string) string { return strings.TrimRight(strings.TrimSpace(s), "/") }
	return clean(a) == clean(b)
}
