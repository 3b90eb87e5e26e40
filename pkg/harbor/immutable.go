package harbor

import (
	"context"
	"strings"
	"time"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/immutable"

	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// rulesAge is how long the rules of a project are used, and deniedAge how long it is believed that the account may not
	// list them.
	rulesAge  = 5 * time.Minute
	deniedAge = time.Minute
	// maxRules is how many rules of one project are remembered: Harbor's own pages let people make 15.
	maxRules = 100
)

// LockedBy gives the enabled immutability rule that keeps a tag of a repository ("project/team/app") where it is, in one
// line for people: "rule 1: tags matching ** in repositories matching **". It is empty if none does. Harbor lets a tag that
// is not there yet be pushed once, whatever the rules say: LockedBy does not ask whether it is there.
//
// Rules that Harbor itself cannot match, those that would take very long to match, and those of a project beyond the first
// 100 lock nothing here.
//
// The rules of a project are remembered for 5 minutes, those of the 1,000 projects that were asked for last; however many ask
// at the same time, one listing runs. While Harbor does not answer, the last known rules are used; the fault is returned if
// there are none. It is Denied if the account lacks immutable-tag:list on the project, which is remembered for a minute.
func (c *Client) LockedBy(ctx context.Context, repository, tag string) (rule string, err error) {
	project, name, ok := strings.Cut(repository, "/")
	if !ok || project == "" || name == "" || tag == "" {
		return "", fault.Newf(fault.Permanent, fault.Malformed, "looking for an immutability rule: want a project/repository and a tag")
	}
	known, err := c.locks.of(project, false).get(ctx, func(ctx context.Context) (projectLocks, time.Duration, error) {
		locks, err := c.listLocks(ctx, project)
		if err != nil && fault.Of(err).Reason == fault.Denied {
			// That is an answer, too: a robot without the right shall not ask for each digest.
			return projectLocks{denied: err}, deniedAge, nil
		}
		return projectLocks{locks: locks}, rulesAge, err
	})
	if err != nil {
		return "", err
	}
	return known.by(name, tag), known.denied
}

// listLocks gives the enabled rules of a project in Harbor's order.
func (c *Client) listLocks(ctx context.Context, project string) ([]lock, error) {
	var locks []lock
	err := c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		params := immutable.NewListImmuRulesParams().WithTimeout(c.timeout).WithProjectNameOrID(project).WithXIsResourceName(isName()).
			WithPage(&page).WithPageSize(&c.pageSize)
		answer, err := c.api.Immutable.ListImmuRules(ctx, params)
		if err != nil {
			return 0, 0, c.wrap("listing the immutability rules", err)
		}
		if err := complete(answer.Payload); err != nil {
			return 0, 0, c.wrap("listing the immutability rules", err)
		}
		for _, rule := range answer.Payload {
			if l, ok := newLock(rule, c.redactor); ok && len(locks) < maxRules {
				locks = append(locks, l)
			}
		}
		if page*c.pageSize >= maxRules {
			return 0, 0, nil // the rest is not looked at
		}
		return len(answer.Payload), answer.XTotalCount, nil
	})
	return locks, err
}

// projectLocks is what Harbor answered about the rules of a project. It is never changed.
type projectLocks struct {
	locks  []lock
	denied error // instead of locks
}

// by gives the text of the first rule that locks a tag of a repository, which is named without its project.
func (p projectLocks) by(repository, tag string) string {
	left := effort(maxEffort)
	for _, l := range p.locks {
		if l.repositories.selects(repository, &left) && l.tags.selects(tag, &left) {
			return l.text
		}
	}
	return ""
}
