package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// projectsAnswer is the body of GET /api/v1/projects.
type projectsAnswer struct {
	Items []projectRow `json:"items"`
}

// projectRow is a project in short.
type projectRow struct {
	Project string `json:"project"`
	Enabled bool   `json:"enabled"`
	// Mode is off for a project that nobody enabled.
	Mode policy.Mode `json:"mode"`
	// ManagedBy is empty for a project that nobody enabled.
	ManagedBy policy.Manager `json:"managed_by"`
	Paused    bool           `json:"paused"`
	// Suspended says that another project stands under the name now.
	Suspended bool `json:"suspended"`
	// Problems is how many things are wrong in Harbor.
	Problems int `json:"problems"`
	// Error says why the policy cannot be read; what else is said of it does not count then.
	Error    string          `json:"error,omitempty"`
	Coverage ledger.Coverage `json:"coverage"`
}

// projectAnswer is the body of GET /api/v1/projects/{name}, and of the answers to changes.
type projectAnswer struct {
	enroll.View
	// Coverage and Rotation are null in the answer to a change if they cannot be told at the moment.
	Coverage *ledger.Coverage `json:"coverage"`
	Rotation *rotationAnswer  `json:"rotation"`
}

func (a *API) getProjects(c *gin.Context) {
	ctx := c.Request.Context()
	names, err := a.visible(ctx, c)
	if err != nil {
		a.refuse(c, err)
		return
	}
	coverage, err := a.cfg.Ledger.Coverage(ctx, names)
	if err != nil {
		a.refuse(c, err)
		return
	}
	answer := projectsAnswer{Items: make([]projectRow, 0, len(names))}
	for _, name := range names {
		row, err := a.row(ctx, name)
		if err != nil {
			a.refuse(c, err)
			return
		}
		row.Coverage = coverage[name]
		answer.Items = append(answer.Items, row)
	}
	a.answer(c, http.StatusOK, answer)
}

// visible gives the projects that the caller may see, whether anybody enabled them or not: sorted, and never nil.
func (a *API) visible(ctx context.Context, c *gin.Context) ([]string, error) {
	who := caller(c)
	may, all, err := a.cfg.Access.Visible(ctx, who)
	if err != nil {
		return nil, err
	}
	if !all && who.Kind != access.Token {
		return may, nil // Harbor has just said that they are there
	}
	known, err := a.known(ctx)
	if err != nil || all {
		return known, err
	}
	// A token names projects by globs, and such as are not there.
	names := []string{}
	for _, name := range known {
		err := a.cfg.Access.Require(ctx, who, access.Read, name)
		switch {
		case err == nil:
			names = append(names, name)
		case !errors.Is(err, access.ErrNotFound):
			return nil, err
		}
	}
	return names, nil
}

// known gives the projects that have a policy, are known to the ledger or are in Harbor, sorted.
func (a *API) known(ctx context.Context) ([]string, error) {
	named, _, err := a.cfg.Policies.Projects()
	if err != nil {
		return nil, err
	}
	recorded, err := a.cfg.Ledger.Names(ctx)
	if err != nil {
		return nil, err
	}
	listed, err := a.cfg.Projects.Listed(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.Concat([]string{}, named, recorded, listed)
	slices.SortFunc(names, strings.Compare)
	return slices.Compact(names), nil
}

// row says what is known of a project in memory. A policy that cannot be read hides no other project.
func (a *API) row(ctx context.Context, name string) (projectRow, error) {
	row := projectRow{Project: name, Mode: policy.ModeOff}
	p, state, err := a.inForce(ctx, name)
	if errors.Is(err, policy.ErrNotLoaded) {
		return projectRow{}, err
	}
	if err == nil {
		row.Mode = cmp.Or(p.Mode, policy.ModeOff)
		row.Enabled, row.ManagedBy = policy.Admit(p).Sign, p.Manager
		row.Paused, row.Suspended, row.Problems = p.Pause != nil, p.SuspendedFor != 0, len(state.Problems)
	} else {
		row.Error = err.Error()
	}
	return row, nil
}

func (a *API) inForce(ctx context.Context, name string) (policy.Policy, policy.State, error) {
	p, err := a.cfg.Policies.Policy(ctx, name)
	if err != nil {
		return policy.Policy{}, policy.State{}, err
	}
	state, _, err := a.cfg.Policies.State(name)
	return p, state, err
}

func (a *API) getProject(c *gin.Context) {
	ctx := c.Request.Context()
	view, err := a.cfg.Projects.Get(ctx, c.Param("name"))
	var answer projectAnswer
	if err == nil {
		answer, err = a.complete(ctx, view)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answerProject(c, http.StatusOK, answer)
}

// complete adds what the ledger knows to what package enroll does.
func (a *API) complete(ctx context.Context, view enroll.View) (projectAnswer, error) {
	coverage, err := a.cfg.Ledger.Coverage(ctx, []string{view.Project})
	if err != nil {
		return projectAnswer{}, err
	}
	covered := coverage[view.Project]
	rotation, err := a.rotation(ctx, view, covered.LastSweep)
	if err != nil {
		return projectAnswer{}, err
	}
	return projectAnswer{View: view, Coverage: &covered, Rotation: &rotation}, nil
}

// answerProject sends the ETag of the policy, which is what a change replaces: it does not stand for the coverage beside it.
func (a *API) answerProject(c *gin.Context, status int, answer projectAnswer) {
	if answer.ETag != "" {
		c.Header("ETag", answer.ETag)
	}
	a.answer(c, status, answer)
}
