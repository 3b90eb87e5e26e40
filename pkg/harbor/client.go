// Package harbor is the adapter for Harbor's REST API: which projects there are, which manifests and immutability rules a
// project holds, and which version Harbor is.
//
// Each method makes one attempt and returns a fault; [Client.Bundles] and [Client.LockedBy] remember answers. Credentials
// go to the configured origin alone: a redirect elsewhere is a permanent fault. No error holds the secret, nor a control
// character, not even where Harbor echoes them. What a listing leaves out, and how, is Harbor's: see [Client.Population].
package harbor

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	openapi "github.com/go-openapi/runtime/client"
	harborapi "github.com/goharbor/go-client/pkg/sdk/v2.0/client"
	artifactapi "github.com/goharbor/go-client/pkg/sdk/v2.0/client/artifact"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/repository"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// DefaultUserAgent is what the client calls itself unless it is told otherwise.
	DefaultUserAgent = egress.DefaultUserAgent

	// maxPageSize is Harbor's: it refuses pages that are larger.
	maxPageSize = 100
)

// everyDigest asks for the untagged children of an index too; without it a listing leaves them out.
const everyDigest = "base=*"

// Config is what a Client needs.
type Config struct {
	// URL is Harbor's base URL, such as https://harbor.example.com.
	URL string
	// Username and SecretFile are the robot account. The file is read at New.
	Username   string
	SecretFile string
	// Timeout bounds one request; 0 stands for 30 s.
	Timeout time.Duration
	// PageSize is the number of rows in a page; 0 stands for 100, Harbor's most.
	PageSize int64
	// UserAgent is what the client calls itself; empty stands for [DefaultUserAgent].
	UserAgent string
	// Transport carries the requests and decides what is dialled and trusted. It is required.
	Transport  http.RoundTripper
	Registerer prometheus.Registerer // nil for none
}

// Client talks to one Harbor. It is safe for concurrent use.
type Client struct {
	api      *harborapi.HarborAPI
	redactor *redact.Redactor
	timeout  time.Duration
	pageSize int64
	version  memory[string]
	locks    lockMemory
}

// New validates the configuration and reads the secret; it connects to nothing.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.User != nil:
		return nil, fmt.Errorf("harbor: url: want https://host[:port] without credentials")
	case cfg.Username == "":
		return nil, errors.New("harbor: username is required")
	case cfg.PageSize < 0 || cfg.PageSize > maxPageSize:
		return nil, fmt.Errorf("harbor: page size: want 1 to %d", maxPageSize)
	case cfg.Transport == nil:
		return nil, errors.New("harbor: transport is required")
	case strings.ContainsFunc(cfg.UserAgent, unicode.IsControl):
		return nil, errors.New("harbor: user agent: want one without control characters")
	}
	secret, err := secretfile.ReadLine(cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("harbor: secret: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.PageSize == 0 {
		cfg.PageSize = maxPageSize
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = DefaultUserAgent
	}
	c := &Client{
		redactor: redact.New(secret, base64.StdEncoding.EncodeToString([]byte(cfg.Username+":"+secret))),
		timeout:  cfg.Timeout, pageSize: cfg.PageSize,
	}
	c.api = harborapi.New(harborapi.Config{
		URL: base.JoinPath(harborapi.DefaultBasePath),
		Transport: &transport{
			next: cfg.Transport, userAgent: cfg.UserAgent, redactor: c.redactor, metrics: newMetrics(cfg.Registerer),
		},
		AuthInfo: openapi.BasicAuth(cfg.Username, secret),
	})
	return c, nil
}

// ProjectExists says whether there is a project of this name. Every account may ask, whatever its rights. That it does not
// exist is only said when Harbor said so in its own words.
func (c *Client) ProjectExists(ctx context.Context, name string) (bool, error) {
	params := project.NewHeadProjectParams().WithTimeout(c.timeout).WithProjectName(name)
	_, err := c.api.Project.HeadProject(ctx, params)
	switch {
	case err == nil:
		return true, nil
	case fault.Is(err, fault.Gone):
		return false, nil
	default:
		return false, c.wrap("looking for the project", err)
	}
}

// Projects gives the names of all projects that the account may see, in no order.
func (c *Client) Projects(ctx context.Context) ([]string, error) {
	var names []string
	err := c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		detail := false
		params := project.NewListProjectsParams().WithTimeout(c.timeout).WithPage(&page).WithPageSize(&c.pageSize).WithWithDetail(&detail)
		answer, err := c.api.Project.ListProjects(ctx, params)
		if err != nil {
			return 0, 0, c.wrap("listing the projects", err)
		}
		if err := complete(answer.Payload); err != nil {
			return 0, 0, c.wrap("listing the projects", err)
		}
		for _, p := range answer.Payload {
			names = append(names, p.Name)
		}
		return len(answer.Payload), answer.XTotalCount, nil
	})
	return names, err
}

// Population gives every manifest of a project page by page, children of indexes and untagged ones included,
// accessories excluded. A manifest that is pushed or deleted meanwhile may be missing or come twice. A project that is
// not there, or that the account may not see, is a Gone or a Denied fault, as Harbor answers.
func (c *Client) Population(ctx context.Context, name string, each func(context.Context, []artifact.Listed) error) error {
	err := c.projectArtifacts(ctx, name, each)
	if !fault.Is(err, fault.Gone) {
		return err
	}
	// Harbor before 2.12 has no listing of a whole project: the same 404. If the project is missing, this fails too.
	return c.eachRepository(ctx, name, func(ctx context.Context, repository string) error {
		return c.repositoryArtifacts(ctx, name, repository, each)
	})
}

func (c *Client) projectArtifacts(ctx context.Context, name string, each func(context.Context, []artifact.Listed) error) error {
	// Oldest first: what is pushed meanwhile is added behind the last page.
	q, sort, yes := everyDigest, "push_time", true
	return c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		params := project.NewListArtifactsOfProjectParams().WithTimeout(c.timeout).WithProjectNameOrID(name).WithXIsResourceName(isName()).
			WithQ(&q).WithSort(&sort).WithPage(&page).WithPageSize(&c.pageSize).WithWithTag(&yes).WithWithAccessory(&yes)
		answer, err := c.api.Project.ListArtifactsOfProject(ctx, params)
		if err != nil {
			return 0, 0, c.wrap("listing the artifacts of the project", err)
		}
		if err := complete(answer.Payload); err != nil {
			return 0, 0, c.wrap("listing the artifacts of the project", err)
		}
		listed, err := toListed(answer.Payload)
		if err != nil {
			return 0, 0, c.wrap("reading a row of the listing", err)
		}
		return len(answer.Payload), answer.XTotalCount, each(ctx, listed)
	})
}

func (c *Client) eachRepository(ctx context.Context, name string, each func(context.Context, string) error) error {
	return c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		params := repository.NewListRepositoriesParams().WithTimeout(c.timeout).WithProjectName(name).
			WithPage(&page).WithPageSize(&c.pageSize)
		answer, err := c.api.Repository.ListRepositories(ctx, params)
		if err != nil {
			return 0, 0, c.wrap("listing the repositories of the project", err)
		}
		if err := complete(answer.Payload); err != nil {
			return 0, 0, c.wrap("listing the repositories of the project", err)
		}
		for _, r := range answer.Payload {
			if err := each(ctx, strings.TrimPrefix(r.Name, name+"/")); err != nil {
				return 0, 0, err
			}
		}
		return len(answer.Payload), answer.XTotalCount, nil
	})
}

func (c *Client) repositoryArtifacts(ctx context.Context, name, repository string, each func(context.Context, []artifact.Listed) error) error {
	q, sort, yes := everyDigest, "push_time", true
	// Harbor wants the slashes of a nested repository encoded twice; the client library does it once.
	escaped := url.PathEscape(repository)
	return c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		params := artifactapi.NewListArtifactsParams().WithTimeout(c.timeout).WithProjectName(name).WithRepositoryName(escaped).
			WithQ(&q).WithSort(&sort).WithPage(&page).WithPageSize(&c.pageSize).WithWithTag(&yes).WithWithAccessory(&yes)
		answer, err := c.api.Artifact.ListArtifacts(ctx, params)
		if err != nil {
			return 0, 0, c.wrap("listing the artifacts of the repository", err)
		}
		if err := complete(answer.Payload); err != nil {
			return 0, 0, c.wrap("listing the artifacts of the repository", err)
		}
		for _, a := range answer.Payload {
			a.RepositoryName = name + "/" + repository
		}
		listed, err := toListed(answer.Payload)
		if err != nil {
			return 0, 0, c.wrap("reading a row of the listing", err)
		}
		return len(answer.Payload), answer.XTotalCount, each(ctx, listed)
	})
}

// eachPage asks for pages until one is not full. fetch gives the number of rows and Harbor's own total, which saves the last
// request; 0 stands for none: a proxy may have dropped it.
func (c *Client) eachPage(ctx context.Context, fetch func(ctx context.Context, page int64) (rows int, total int64, err error)) error {
	for page := int64(1); ; page++ {
		rows, total, err := fetch(ctx, page)
		if err != nil {
			return err
		}
		if int64(rows) < c.pageSize || total > 0 && page*c.pageSize >= total {
			return nil
		}
	}
}

// complete refuses a page with a row that is null: the generated client hands it on as a nil pointer.
func complete[T any](rows []*T) error {
	if slices.Contains(rows, nil) {
		return fault.Newf(fault.Transient, fault.BadAnswer, "a row is null")
	}
	return nil
}

// isName says that a project is given by its name: Harbor takes an all-digit one for an id otherwise.
func isName() *bool {
	yes := true
	return &yes
}

func toListed(artifacts []*models.Artifact) ([]artifact.Listed, error) {
	listed := make([]artifact.Listed, 0, len(artifacts))
	for _, a := range artifacts {
		ref, err := artifact.NewRef(a.RepositoryName, a.Digest)
		if err != nil {
			return nil, fault.New(fault.Transient, fault.BadAnswer, err)
		}
		l := artifact.Listed{Ref: ref}
		for _, tag := range a.Tags {
			if tag != nil {
				l.Tags = append(l.Tags, tag.Name)
			}
		}
		for _, accessory := range a.Accessories {
			if accessory != nil && strings.HasPrefix(accessory.Type, "signature.") {
				l.Signatures = append(l.Signatures, accessory.Digest)
			}
		}
		listed = append(listed, l)
	}
	return listed, nil
}
