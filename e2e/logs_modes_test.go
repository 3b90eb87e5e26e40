//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// What nobody could verify is refused when a policy is set, with the field and the reason.
func TestUnverifiablePolicies(t *testing.T) {
	t.Parallel()
	p := newProofs(t, "rekor-v2")
	m := newManaged(t, env.harbor, someProjects(1), func(o *harness.Options) {
		p.asked("off", "off")(o)
		edit(o, func(c harness.Config) { harness.Set(c, []harness.Config{}, "timestamp_authorities") })
	})
	m.enable(t, m.project, settings{"backfill": "all", "format": "both"})
	for name, tt := range map[string]struct {
		policy settings
		field  string
		text   string // what the reason has in it
	}{
		"legacy with Rekor v2": {
			settings{"backfill": "all", "format": "legacy", "transparency": "required", "log": "rekor"}, "transparency", "Rekor v2",
		},
		"legacy with Rekor v2, deferred": {
			settings{"backfill": "all", "format": "legacy", "transparency": "deferred", "log": "rekor"}, "transparency", "Rekor v2",
		},
		"an unknown log": {
			settings{"backfill": "all", "transparency": "required", "log": "other"}, "log", "no signer has an active log by this name",
		},
		"a timestamp without an authority": {
			settings{"backfill": "all", "timestamp": "required"}, "timestamp", "timestamp authority",
		},
	} {
		_, etag := m.get(t, m.project)
		answer := m.call(t, m.admin, http.MethodPut, "projects/"+m.project, tt.policy, ifMatch(etag))
		body := string(answer.Body)
		if answer.Status != http.StatusUnprocessableEntity || !strings.Contains(body, tt.field) || !strings.Contains(body, tt.text) {
			t.Errorf("%s: the answer is %d %s, want 422 with the field %s and %q", name, answer.Status, body, tt.field, tt.text)
		}
		if _, after := m.get(t, m.project); after != etag {
			t.Errorf("%s: the policy is another one after a refusal: %s, %s before", name, after, etag)
		}
	}
	// All that is wrong is said at once.
	_, etag := m.get(t, m.project)
	answer := m.call(t, m.admin, http.MethodPut, "projects/"+m.project, settings{"backfill": "all", "transparency": "required", "log": "other", "timestamp": "required"}, ifMatch(etag))
	if body := string(answer.Body); answer.Status != http.StatusUnprocessableEntity || !strings.Contains(body, "timestamp authority") || !strings.Contains(body, "by this name") {
		t.Errorf("two reasons: the answer is %d %s, want 422 with both", answer.Status, body)
	}
	// What can be verified is taken.
	m.enable(t, m.project, settings{"backfill": "all", "format": "both", "transparency": "required", "log": "rekor"})
	img, err := harness.NewImage(false)
	m.awaitLogged(t, m.pushTo(t, m.project+"/app", "v1", img, err))
}

// TestModes changes what a project asks for while the system runs: what is there already gets what it lacks, and is not signed
// again; and what is no more asked for is no more made.
func TestModes(t *testing.T) {
	t.Parallel()
	p := newProofs(t, "rekor-v1")
	m := newManaged(t, env.harbor, someProjects(3), p.asked("off", "off"))
	p.judgedBy(t, m.world, checker.Asked{})
	later, debtor, bundles := m.projects[0], m.projects[1], m.projects[2]
	policy := func(transparency string) settings {
		return settings{"format": "both", "backfill": "all", "transparency": transparency, "log": "rekor"}
	}
	ofBundles := func(transparency string) settings {
		s := policy(transparency)
		s["format"] = "bundle"
		return s
	}
	pushTo := func(project, tag string) harness.Pushed {
		img, err := harness.NewImage(false)
		return m.pushTo(t, project+"/app", tag, img, err)
	}
	m.enable(t, later, policy("off"))
	m.enable(t, debtor, policy("deferred"))

	m.enable(t, bundles, ofBundles("off"))
	before, bundled := pushTo(later, "v1"), pushTo(bundles, "v1")
	m.awaitSigned(t, before, bundled)
	look := func(p harness.Pushed) checker.Evidence {
		found, err := m.checker.Look(t.Context(), p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	bare, bareBundle := look(before), look(bundled)
	m.enable(t, later, policy("required"))
	m.enable(t, bundles, ofBundles("deferred"))
	m.sweep(t, later)
	m.sweep(t, bundles)
	m.awaitLogged(t, before, bundled)
	m.settled(t)
	logged := checker.Asked{Log: true}
	m.judgeBy(t, p.trust(t), logged, checker.Formats(), before)
	m.judgeBy(t, p.trust(t), logged, []checker.Format{checker.Bundle}, bundled)
	same := func(format checker.Format, was, is checker.Evidence) {
		if was, is := was.Valid(format), is.Valid(format); len(was) != 1 || len(is) != 1 || was[0].Bytes != is[0].Bytes || len(is[0].Entries) != 1 {
			t.Errorf("in the format %s the signatures were %+v and are %+v, want one, the same, and an entry", format, was, is)
		}
	}
	same(checker.Legacy, bare, look(before))
	same(checker.Bundle, bare, look(before))
	same(checker.Bundle, bareBundle, look(bundled))

	// While the log is away, a debt is made. It is waived, and nothing new is owed, once the project asks for nothing.
	if err := p.log.Cause(t.Context(), harness.Trouble{Refuse: true}); err != nil {
		t.Fatal(err)
	}
	owing := pushTo(debtor, "v1")
	m.awaitSigned(t, owing)
	if row := m.audit(t.Context(), t, owing); row.LogState != "owed" || len(row.LogOwed) == 0 || row.LogOwedSince == nil {
		t.Errorf("while the log is away, the report says %q, %q, %v of the log, want that it is owed, in which formats, and since when",
			row.LogState, row.LogOwed, row.LogOwedSince)
	}
	m.enable(t, debtor, policy("off"))
	unlogged := pushTo(debtor, "v2")
	m.awaitSigned(t, unlogged)
	if row := m.audit(t.Context(), t, unlogged); row.LogState != "" {
		t.Errorf("what is signed since is %q to the log, want nothing", row.LogState)
	}
	if err := p.log.Cause(t.Context(), harness.Trouble{}); err != nil {
		t.Fatal(err)
	}
	m.untilTrue(t, func() error {
		row, err := m.row(t.Context(), owing)
		if err == nil && (row.LogState != "" || row.LogReason != "transparency_off") {
			err = fmt.Errorf("to the log it is %q (%s), owed are %q, want that nothing is asked for any more", row.LogState, row.LogReason, row.LogOwed)
		}
		return err
	})
	m.settled(t)
	m.judgeBy(t, p.trust(t), checker.Asked{}, checker.Formats(), unlogged)
	m.noDebt(t)
	// Its bundle has waited for the entry, and is made without one now.
	m.sweep(t, debtor)
	m.untilTrue(t, func() error {
		if found := look(owing); len(found.Valid(checker.Bundle)) != 1 {
			return fmt.Errorf("there are the signatures %+v, want a bundle too", found.Signatures)
		}
		return nil
	})
	m.settled(t)
	m.judgeBy(t, p.trust(t), checker.Asked{}, checker.Formats(), owing)
}

// A .sig tag that is locked before its entry could be made stays as it is: a logged bundle stands in for it, the debt is
// settled, and the report says why the tag has no entry.
func TestDebtMeetsLock(t *testing.T) {
	t.Parallel()
	p := newProofs(t, "rekor-v1")
	s := newStage(t, env.harbor, 2, func(projects []string) option {
		return func(o *harness.Options) {
			p.asked("deferred", "optional")(o)
			for i, format := range []string{"legacy", "both"} {
				o.Policies = append(o.Policies, harness.Config{"projects": []string{projects[i]}, "backfill": "all", "format": format})
			}
		}
	})
	p.judgedBy(t, s.world, checker.Asked{})
	if err := p.log.Cause(t.Context(), harness.Trouble{Refuse: true}); err != nil {
		t.Fatal(err)
	}
	var pushed []harness.Pushed
	for _, project := range s.projects {
		img, err := harness.NewImage(false)
		pushed = append(pushed, s.pushTo(t, project+"/app", "v1", img, err))
	}
	s.awaitSigned(t, pushed...)
	for i, project := range s.projects {
		if row := s.audit(t.Context(), t, pushed[i]); row.LogState != "owed" {
			t.Errorf("while the log is away, the report says %q of it, want owed", row.LogState)
		}
		defer s.lockTags(t, project)()
	}
	if err := p.log.Cause(t.Context(), harness.Trouble{}); err != nil {
		t.Fatal(err)
	}
	s.awaitLogged(t, pushed...)
	s.settled(t)
	s.noDebt(t)
	v := s.newVerifiers(t)
	for _, one := range pushed {
		row := s.audit(t.Context(), t, one)
		if row.LogReason != "locked" {
			t.Errorf("the report's reason is %q, want locked: %+v", row.LogReason, row)
		}
		found, err := s.checker.Look(t.Context(), one.Repository, one.Digest)
		if err != nil {
			t.Fatal(err)
		}
		legacy, bundles := found.Valid(checker.Legacy), found.Valid(checker.Bundle)
		if len(legacy) != 1 || len(legacy[0].Entries) != 0 || len(bundles) != 1 || len(bundles[0].Entries) != 1 {
			t.Errorf("there are %+v and %+v, want the legacy signature as it was, and one bundle with an entry", legacy, bundles)
		}
		v.acceptLogged(t, wish{log: "rekor", format: "bundle"}, one, v.withOtherLogs(t))
	}
}

// A deferred entry could be written nowhere later where an immutability rule locks .sig tags and Harbor takes no bundles.
func TestDeferredUnderLock(t *testing.T) {
	t.Parallel()
	p := newProofs(t, "rekor-v1")
	m := newManaged(t, newEmulator(t, "v2.14.1"), someProjects(2), p.asked("off", "off"))
	policy := settings{"backfill": "all", "format": "legacy", "transparency": "deferred", "log": "rekor"}
	if err := m.site.Harbor.UpdateRobot(t.Context(), m.site.Signer, append(harness.SignerRights(), "immutable-tag:list"), m.projects...); err != nil {
		t.Fatal(err)
	}
	defer m.lockTags(t, m.project)()
	answer := m.call(t, m.admin, http.MethodPut, "projects/"+m.project, policy, nil)
	if body := string(answer.Body); answer.Status != http.StatusUnprocessableEntity || !strings.Contains(body, "tags matching ** in repositories matching **") ||
		!strings.Contains(body, "deferred") {
		t.Errorf("deferred under a lock: the answer is %d %s, want 422 with the rule", answer.Status, body)
	}
	m.enable(t, m.projects[1], policy) // which has no such rule
}
