package signer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// maxCallAnswer is how much of an answer is read, in bytes, and maxCallText how much of an error is repeated.
	maxCallAnswer = 4 << 20
	maxCallText   = 300
	// robotPage and maxRobotPages bound the search for the signer's own account.
	robotPage     = 100
	maxRobotPages = 20
)

// calls are the requests to Harbor that the doctor alone makes: about its own account, and to remove what it has pushed. It
// follows no redirect.
type calls struct {
	base      *url.URL
	username  string
	secret    string
	userAgent string
	timeout   time.Duration
	transport http.RoundTripper
	redactor  *redact.Redactor
}

func newCalls(h config.Harbor, transport http.RoundTripper) (*calls, error) {
	base, err := url.Parse(h.URL)
	if err != nil {
		return nil, errors.New("harbor.url cannot be read")
	}
	secret, err := secretfile.ReadLine(h.SecretFile)
	if err != nil {
		return nil, err
	}
	return &calls{
		base: base, username: h.Username, secret: secret, userAgent: h.UserAgent, timeout: h.Timeout, transport: transport,
		redactor: redact.New(secret),
	}, nil
}

// do makes one request. The path is escaped already, and relative to Harbor's API; into may be nil.
func (c *calls) do(ctx context.Context, method, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	u := c.base.JoinPath("api/v2.0", path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	req.SetBasicAuth(c.username, c.secret)
	req.Header.Set("Accept", "application/json")
	// SPEC: Harbor API, header X-Is-Resource-Name: a project of digits is taken for an id otherwise.
	req.Header.Set("X-Is-Resource-Name", "true")
	if c.userAgent != "" {
		req.Header.Set("User-Agent", c.userAgent)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return fault.New(fault.Transient, fault.Unreachable, c.redactor.Error(err, maxCallText))
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode/100 != 2 {
		return callFault(resp.StatusCode)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxCallAnswer)).Decode(into); err != nil {
		return fault.Newf(fault.Transient, fault.BadAnswer, "Harbor's answer cannot be read")
	}
	return nil
}

func callFault(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return fault.Newf(fault.Permanent, fault.Unauthorized, "harbor answers %d: the account is not accepted", status)
	case http.StatusForbidden:
		return fault.Newf(fault.Permanent, fault.Denied, "harbor answers %d: the account lacks the right", status)
	case http.StatusNotFound:
		return fault.Newf(fault.Gone, fault.NotFound, "harbor answers %d", status)
	default:
		return fault.Newf(fault.Transient, fault.Unavailable, "harbor answers %d", status)
	}
}

// robotExpiry says when the robot account expires that makes these calls, the zero time if it never does. The fault is Denied
// if it may not list robots, and Gone if it is none of those that Harbor lists. projects are those that it may see: the robot
// of a project is listed there.
func (c *calls) robotExpiry(ctx context.Context, projects func(ctx context.Context) ([]artifact.Project, error)) (time.Time, error) {
	q := ""
	if owner, _, found := strings.Cut(c.username, "+"); found {
		all, err := projects(ctx)
		if err != nil {
			return time.Time{}, err
		}
		id := ownerOf(all, owner)
		if id == 0 {
			return time.Time{}, fault.Newf(fault.Gone, fault.NotFound, "the account's project is not to be seen")
		}
		q = "Level=project,ProjectID=" + strconv.FormatInt(id, 10)
	}
	for page := 1; page <= maxRobotPages; page++ {
		query := url.Values{"page": {strconv.Itoa(page)}, "page_size": {strconv.Itoa(robotPage)}}
		if q != "" {
			query.Set("q", q)
		}
		var robots []struct {
			Name      string `json:"name"`
			ExpiresAt int64  `json:"expires_at"`
		}
		if err := c.do(ctx, http.MethodGet, "robots", query, &robots); err != nil {
			return time.Time{}, fmt.Errorf("listing the robot accounts: %w", err)
		}
		for _, r := range robots {
			if r.Name == c.username && r.ExpiresAt > 0 {
				return time.Unix(r.ExpiresAt, 0), nil
			} else if r.Name == c.username {
				return time.Time{}, nil
			}
		}
		if len(robots) < robotPage {
			break
		}
	}
	return time.Time{}, fault.Newf(fault.Gone, fault.NotFound, "the account is none of the robots that Harbor lists")
}

// ownerOf gives the project of a robot whose name is a prefix that Harbor's admin may choose, the project, a plus sign and
// more. owner is what stands before the plus sign.
func ownerOf(all []artifact.Project, owner string) (id int64) {
	longest := 0
	for _, p := range all {
		if strings.HasSuffix(owner, p.Name) && len(p.Name) > longest {
			longest, id = len(p.Name), p.ID
		}
	}
	return id
}

// remove deletes a manifest with its signatures, and the repository if nothing is left in it.
func (c *calls) remove(ctx context.Context, ref artifact.Ref) error {
	// SPEC: Harbor API: a repository's name is escaped twice where it has slashes; this one's has none.
	repository := "projects/" + url.PathEscape(ref.Project()) + "/repositories/" + url.PathEscape(ref.Name())
	if err := c.do(ctx, http.MethodDelete, repository+"/artifacts/"+ref.Digest(), nil, nil); err != nil && !fault.Is(err, fault.Gone) {
		return fmt.Errorf("deleting %s: %w", ref, err)
	}
	var left struct {
		Artifacts int64 `json:"artifact_count"`
	}
	err := c.do(ctx, http.MethodGet, repository, nil, &left)
	if err == nil && left.Artifacts == 0 {
		err = c.do(ctx, http.MethodDelete, repository, nil, nil)
	}
	if err != nil && !fault.Is(err, fault.Gone) {
		return fmt.Errorf("deleting the empty repository %s: %w", ref.Repository(), err)
	}
	return nil
}
