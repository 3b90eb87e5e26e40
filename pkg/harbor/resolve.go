package harbor

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	artifactapi "github.com/goharbor/go-client/pkg/sdk/v2.0/client/artifact"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// manifestTypes are all types of manifests that a registry may hold. One that is not asked for is answered with 404.
const manifestTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

// Resolve gives the manifest that a tag or a digest of a repository names now, with its children, for which the account needs
// artifact:read. It asks Harbor's API and not its registry, which refuses unsigned manifests where a project hands out signed ones
// alone. It is a Gone fault if Harbor has none.
func (c *Client) Resolve(ctx context.Context, repository, reference string) (artifact.Listed, error) {
	byDigest := strings.Contains(reference, ":")
	err := artifact.ValidateRepository(repository)
	if err == nil && byDigest {
		err = artifact.ValidateDigest(reference)
	} else if err == nil {
		err = artifact.ValidateTag(reference)
	}
	if err != nil {
		return artifact.Listed{}, fault.New(fault.Gone, fault.NotFound, err)
	}
	project, name, _ := strings.Cut(repository, "/")
	no := false
	params := artifactapi.NewGetArtifactParams().WithTimeout(c.timeout).WithProjectName(project).
		WithRepositoryName(url.PathEscape(name)).WithReference(reference).WithWithTag(&no).WithWithAccessory(&no)
	answer, err := c.api.Artifact.GetArtifact(ctx, params)
	if err != nil {
		return artifact.Listed{}, c.wrap("asking what is there", err)
	}
	if answer.Payload == nil || byDigest && answer.Payload.Digest != reference {
		return artifact.Listed{}, fault.Newf(fault.Transient, fault.BadAnswer, "asking what is there: the answer is about something else")
	}
	answer.Payload.RepositoryName = repository
	listed, err := toListed(answer.Payload)
	if err != nil {
		return artifact.Listed{}, c.wrap("reading what is there", err)
	}
	return listed, nil
}

// Answers says whether Harbor's registry itself answers for a manifest, for which the account needs repository:pull. It takes one
// HEAD. Harbor hands out signatures whatever a project's rule for unsigned manifests is; for other manifests that rule is a Rejected
// fault here.
func (c *Client) Answers(ctx context.Context, ref artifact.Ref) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	u := c.base.JoinPath("v2", ref.Repository(), "manifests", ref.Digest())
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), http.NoBody)
	if err != nil {
		return false, c.wrap("asking the registry", err)
	}
	req.Header.Set("Accept", manifestTypes)
	resp, err := c.transport.RoundTrip(req)
	switch {
	case err != nil && fault.Is(err, fault.Gone):
		return false, nil
	case err != nil:
		return false, c.wrap("asking the registry", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	// SPEC: OCI distribution specification, "Checking if content exists": the digest is that of the content.
	if got := resp.Header.Get("Docker-Content-Digest"); got != ref.Digest() {
		return false, fault.Newf(fault.Transient, fault.BadAnswer, "asking the registry: the answer is about %.80q: look for a proxy on the way", got)
	}
	return true, nil
}
