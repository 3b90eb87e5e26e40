package enroll

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// reason is what is wrong with a project in Harbor, from a closed set: it is a metric label, and stands in events and in the
// project's state.
type reason string

// The reasons. They are part of the ledger's vocabulary: a reason is added, never renamed.
const (
	webhookMissing    reason = "webhook_missing"
	webhookDisabled   reason = "webhook_disabled"
	webhookChanged    reason = "webhook_changed" // its events, its format or its secret
	webhookElsewhere  reason = "webhook_elsewhere"
	webhookFailing    reason = "webhook_failing" // Harbor does not get its deliveries through
	notificationsOff  reason = "notifications_off"
	privateAddress    reason = "private_address" // Harbor would not deliver to ours
	projectReplaced   reason = "project_replaced"
	projectGone       reason = "project_gone"
	rightMissing      reason = "right_missing"
	pullPolicy        reason = "pull_policy" // on, and the signer cannot read unsigned images
	proxyCache        reason = "proxy_cache"
	quotaFull         reason = "quota_full"
	formatUnsupported reason = "format_unsupported"
	keyMissing        reason = "key_missing"
	unverifiable      reason = "unverifiable" // nobody could verify what the policy asks for
)

func reasons() []reason {
	return []reason{
		webhookMissing, webhookDisabled, webhookChanged, webhookElsewhere, webhookFailing, notificationsOff, privateAddress,
		projectReplaced, projectGone, rightMissing, pullPolicy, proxyCache, quotaFull, formatUnsupported, keyMissing, unverifiable,
	}
}

// begin notes problems in the state, then tells the ledger of each. Those that stand already keep the time of their
// beginning, and are told again: the ledger drops the repetition. A crash between the two is made up for by the next call.
func (s *Service) begin(ctx context.Context, project string, found map[reason]string) error {
	if len(found) == 0 {
		return nil
	}
	since := s.cfg.Now().UTC().Round(time.Microsecond)
	fresh := map[reason]bool{}
	state, err := s.update(ctx, project, func(st *policy.State) {
		clear(fresh)
		for _, r := range reasons() {
			detail, is := found[r]
			if !is {
				continue
			}
			at := slices.IndexFunc(st.Problems, func(p policy.Problem) bool { return p.Reason == string(r) })
			if at < 0 {
				fresh[r] = true
				st.Problems = append(st.Problems, policy.Problem{Reason: string(r), Detail: detail, Since: since})
				continue
			}
			st.Problems[at].Detail = detail
		}
	})
	if err != nil {
		return err
	}
	for _, p := range state.Problems {
		r := reason(p.Reason)
		if _, is := found[r]; !is {
			continue
		}
		if fresh[r] {
			s.cfg.Logger.Warn().Str("project", project).Str("reason", p.Reason).Str("detail", p.Detail).Msg("project has drifted")
		}
		if err := s.record(ctx, driftEvent(artifact.Drifted, project, p, p.Since)); err != nil {
			return err
		}
	}
	return nil
}

// end tells the ledger of problems that are no more, then removes them from the state, in this order: a crash between the
// two repeats the event, under the same id.
func (s *Service) end(ctx context.Context, project string, over ...reason) error {
	state, _, err := s.state(ctx, project)
	if err != nil {
		return err
	}
	isOver := func(p policy.Problem) bool { return slices.Contains(over, reason(p.Reason)) }
	if !slices.ContainsFunc(state.Problems, isOver) {
		return nil
	}
	for _, p := range state.Problems {
		if !isOver(p) {
			continue
		}
		if err := s.record(ctx, driftEvent(artifact.Repaired, project, p, s.cfg.Now().UTC())); err != nil {
			return err
		}
		s.cfg.Logger.Info().Str("project", project).Str("reason", p.Reason).Msg("drift of the project has ended")
	}
	_, err = s.update(ctx, project, func(st *policy.State) { st.Problems = slices.DeleteFunc(st.Problems, isOver) })
	return err
}

// driftEvent has the same id for each repetition: a reason begins once at a time.
func driftEvent(kind artifact.Kind, project string, p policy.Problem, at time.Time) artifact.Event {
	id := artifact.EventID(kind, artifact.Ref{}, project, p.Reason, p.Since.UTC().Format(time.RFC3339Nano))
	return artifact.Event{
		ID: id, Kind: kind, Project: project, Time: at, Actor: driftActor, Origin: artifact.OriginDrift, CorrelationID: id,
		Reason: p.Reason, Detail: p.Detail,
	}
}

// driftActor stands in events that nobody asked for.
const driftActor = "harborseal"

// problemCollector counts the projects that have each problem, as the states say that all receivers share.
type problemCollector struct {
	service *Service
	desc    *prometheus.Desc
}

func newProblemCollector(s *Service) *problemCollector {
	return &problemCollector{service: s, desc: prometheus.NewDesc("harborseal_project_problems",
		"Projects that are enabled, or were, by what is wrong with them in Harbor.", []string{"reason"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *problemCollector) Describe(descs chan<- *prometheus.Desc) { descs <- c.desc }

// Collect implements prometheus.Collector. There are no samples before the policies are loaded: zeros would say that all is
// well.
func (c *problemCollector) Collect(metrics chan<- prometheus.Metric) {
	names, _, err := c.service.cfg.Book.Projects()
	if err != nil {
		return
	}
	c.service.mu.Lock()
	names = append(names, c.service.listed...)
	c.service.mu.Unlock()
	slices.SortFunc(names, strings.Compare)
	counted := map[string]int{}
	for _, name := range slices.Compact(names) {
		state, _, err := c.service.cfg.Book.State(name)
		if err != nil {
			continue
		}
		for _, p := range state.Problems {
			counted[p.Reason]++
		}
	}
	for _, r := range reasons() {
		metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(counted[string(r)]), string(r))
	}
}
