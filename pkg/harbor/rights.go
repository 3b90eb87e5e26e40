package harbor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// probeName is a repository, and a webhook policy, that nobody has.
const probeName = "harborseal-probe"

// maxProbes is how many rights are probed at the same time.
const maxProbes = 4

// probe is a request that shows whether the account has a right, and that changes nothing, whoever may do what.
type probe struct {
	method, path string
	query        url.Values
	body         any
	// has are the refusals that only somebody with the right gets.
	has []int
}

// MissingRights gives those of the rights that the account lacks in a project, in the order in which they were given. It knows
// repository:pull, push and list, artifact:list and read, notification-policy:list, read, create, update and delete, project:read,
// immutable-tag:list, and the system's quota:list and audit-log:list; others are a permanent fault. It changes nothing in Harbor:
// what would change something asks for what cannot be. It is a Gone fault if there is no such project.
func (c *Client) MissingRights(ctx context.Context, project string, rights []string) ([]string, error) {
	if err := checkProject(project); err != nil {
		return nil, err
	}
	// To an admin, "the project is not there" would look like "the webhook policy is not there".
	switch there, err := c.ProjectExists(ctx, project); {
	case err != nil:
		return nil, err
	case !there:
		return nil, fault.Newf(fault.Gone, fault.NotFound, "there is no project %s", project)
	}
	// Beside each other: whoever asks waits for all of them.
	has := make([]bool, len(rights))
	probing, ctx := errgroup.WithContext(ctx)
	probing.SetLimit(maxProbes)
	for i, right := range rights {
		probing.Go(func() (err error) {
			has[i], err = c.hasRight(ctx, project, right)
			return err
		})
	}
	if err := probing.Wait(); err != nil {
		return nil, err
	}
	var missing []string
	for i, right := range rights {
		if !has[i] {
			missing = append(missing, right)
		}
	}
	return missing, nil
}

func (c *Client) hasRight(ctx context.Context, project, right string) (bool, error) {
	resource, action, _ := strings.Cut(right, ":")
	switch right {
	case "repository:pull", "repository:push":
		actions, err := c.TokenActions(ctx, project+"/"+probeName, []string{action})
		return len(actions) > 0, err
	case "audit-log:list":
		return c.feeds(ctx)
	}
	p, ok := probeOf(url.PathEscape(project), resource, action)
	if !ok {
		return false, fault.Newf(fault.Permanent, fault.Malformed, "looking for rights: %.64q is not known here", right)
	}
	_, err := c.ask(ctx, p.method, p.path, p.query, p.body, nil)
	switch {
	case err == nil || slices.Contains(p.has, statusOf(err)) && !isBadAnswer(err):
		return true, nil
	case fault.Of(err).Reason == fault.Denied:
		return false, nil
	default:
		return false, c.wrap("looking for the right "+right, err)
	}
}

func isBadAnswer(err error) bool { return fault.Of(err).Reason == fault.BadAnswer }

// probeOf gives the probe of a right.
//
// SPEC: Harbor, src/server/v2.0/handler/webhook.go: the right is asked for first, then what is in the way of the request: there is
// no policy 0, because the database counts from 1, and none without targets and of an event that does not exist.
func probeOf(project, resource, action string) (probe, bool) {
	one := url.Values{"page_size": {"1"}}
	root := "projects/" + project
	policies := root + "/webhook/policies"
	impossible := map[string]any{"name": probeName, "enabled": false, "event_types": []string{"NOTHING"}, "targets": []any{}}
	switch resource + ":" + action {
	case "project:read":
		return probe{method: http.MethodGet, path: root}, true
	case "repository:list":
		return probe{method: http.MethodGet, path: root + "/repositories", query: one}, true
	case "artifact:list":
		return probe{
			method: http.MethodGet, path: root + "/repositories/" + probeName + "/artifacts", query: one, has: []int{http.StatusNotFound},
		}, true
	case "artifact:read":
		return probe{
			method: http.MethodGet, path: root + "/repositories/" + probeName + "/artifacts/sha256:" + strings.Repeat("0", 64), has: []int{http.StatusNotFound},
		}, true
	case "immutable-tag:list":
		return probe{method: http.MethodGet, path: root + "/immutabletagrules", query: one}, true
	case "quota:list":
		return probe{method: http.MethodGet, path: "quotas", query: one}, true
	case "notification-policy:list":
		return probe{method: http.MethodGet, path: policies, query: one}, true
	case "notification-policy:read":
		return probe{method: http.MethodGet, path: policies + "/0", has: []int{http.StatusNotFound}}, true
	case "notification-policy:create":
		return probe{method: http.MethodPost, path: policies, body: impossible, has: []int{http.StatusBadRequest}}, true
	case "notification-policy:update":
		return probe{
			method: http.MethodPut, path: policies + "/0", body: impossible, has: []int{http.StatusNotFound, http.StatusBadRequest},
		}, true
	case "notification-policy:delete":
		return probe{method: http.MethodDelete, path: policies + "/0", has: []int{http.StatusNotFound}}, true
	default:
		return probe{}, false
	}
}

// TokenActions gives those of the actions (pull, push, delete) that Harbor's token service lets the account do in a repository
// ("project/team/app"), in the order in which they were asked for. To a wrong secret, and about a project that is not there, that is
// none: the token service refuses nobody.
func (c *Client) TokenActions(ctx context.Context, repository string, want []string) ([]string, error) {
	if err := artifact.ValidateRepository(repository); err != nil {
		return nil, nil //nolint:nilerr // what cannot exist lets nobody do anything
	}
	query := url.Values{
		"service": {"harbor-registry"}, "scope": {"repository:" + repository + ":" + strings.Join(want, ",")},
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if _, err := c.askAt(ctx, http.MethodGet, c.base.JoinPath("service/token"), query, nil, &answer); err != nil {
		err = c.wrap("asking for a token", err)
		if fault.Is(err, fault.Gone) {
			return nil, fault.New(fault.Transient, fault.BadAnswer, err) // every Harbor has one
		}
		return nil, err
	}
	granted, ok := readAccess(answer.Token, repository)
	if !ok {
		granted, ok = readAccess(answer.AccessToken, repository)
	}
	if !ok {
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "asking for a token: it cannot be read")
	}
	return slices.DeleteFunc(slices.Clone(want), func(action string) bool {
		return !slices.Contains(granted, action) && !slices.Contains(granted, "*")
	}), nil
}

// readAccess gives what a token of Harbor's lets its owner do in a repository. Its signature is not verified: it came from Harbor
// itself, and is not used for anything.
//
// SPEC: Distribution, Token Authentication Implementation: the claim access.
func readAccess(token, repository string) ([]string, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, false
	}
	var claims struct {
		Access []struct {
			Type    string   `json:"type"`
			Name    string   `json:"name"`
			Actions []string `json:"actions"`
		} `json:"access"`
	}
	if json.Unmarshal(raw, &claims) != nil {
		return nil, false
	}
	var actions []string
	for _, a := range claims.Access {
		if a.Type == "repository" && a.Name == repository {
			actions = append(actions, a.Actions...)
		}
	}
	return actions, true
}
