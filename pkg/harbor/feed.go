package harbor

import (
	"context"
	"strings"
	"time"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/auditlog"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// allPushes are the entries of Harbor's audit log that tell of a push.
const allPushes = "operation=create,resource_type=artifact"

// Feed gives the pushes into the whole Harbor between two times, both included, from Harbor's audit log: the newest first, page by
// page, by tag and by digest, of whoever pushed. Those of signatures under their legacy tags are left out; signatures that are
// pushed by digest cannot be told from images here. An entry may be given twice when others push meanwhile. What the log tells in
// words that are not understood is left out: the feed is quick, and no guarantee.
//
// It is not available on a Harbor before 2.13, to an account without the system's right audit-log:list, and where the log holds no
// push at all. Where an admin has switched the log off lately, it still is, and silent.
func (c *Client) Feed(
	ctx context.Context, since, until time.Time, each func(context.Context, []artifact.Pushed) error,
) (available bool, err error) {
	rows := 0
	err = c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		entries, total, err := c.feedPage(ctx, allPushes+between("op_time", since, until), page, c.pageSize)
		if err != nil {
			return 0, 0, err
		}
		rows += len(entries)
		if pushed := toPushed(entries, since, until); len(pushed) > 0 {
			err = each(ctx, pushed)
		}
		return len(entries), total, err
	})
	switch {
	case rows > 0 || err != nil && !absent(err):
		return rows > 0, err
	case err != nil:
		return false, nil //nolint:nilerr // that is the answer
	}
	return c.feeds(ctx)
}

// feeds says whether the log shows any push to this account. Without the right it is empty, and no refusal.
func (c *Client) feeds(ctx context.Context) (bool, error) {
	entries, _, err := c.feedPage(ctx, allPushes, 1, 1)
	if err != nil && !absent(err) {
		return false, err
	}
	return len(entries) > 0, nil
}

// absent says whether Harbor has no feed for this account.
func absent(err error) bool { return fault.Is(err, fault.Gone) || fault.Of(err).Reason == fault.Denied }

func (c *Client) feedPage(ctx context.Context, q string, page, size int64) ([]*models.AuditLogExt, int64, error) {
	sort := "-op_time,-id" // entries of one time have an order too, or pages would not fit together
	params := auditlog.NewListAuditLogExtsParams().WithTimeout(c.timeout).WithQ(&q).WithSort(&sort).WithPage(&page).WithPageSize(&size)
	answer, err := c.api.Auditlog.ListAuditLogExts(ctx, params)
	if err == nil {
		err = complete(answer.Payload)
	}
	if err != nil {
		return nil, 0, c.wrap("reading the feed of pushes", err)
	}
	return answer.Payload, answer.XTotalCount, nil
}

// toPushed reads the pushes between two times; Harbor's own bounds are coarser.
func toPushed(entries []*models.AuditLogExt, since, until time.Time) []artifact.Pushed {
	since = since.Truncate(time.Millisecond)
	pushed := make([]artifact.Pushed, 0, len(entries))
	for _, e := range entries {
		ref, tag, ok := readPush(e.Resource, e.OperationDescription)
		at := timeOf(e.OpTime)
		if !ok || !e.OperationResult || isAccessoryTag(tag) || at.Before(since) || !until.IsZero() && at.After(until) {
			continue
		}
		pushed = append(pushed, artifact.Pushed{Ref: ref, Tag: tag, By: e.Username, At: at})
	}
	return pushed
}

// readPush reads what was pushed.
//
// SPEC: recorded answers of Harbor 2.15: the resource is "project/repository:tag" or "project/repository@sha256:…", the description
// "push artifact: project/repository@sha256:…".
func readPush(resource, description string) (ref artifact.Ref, tag string, ok bool) {
	if ref, err := artifact.ParseRef(resource); err == nil {
		return ref, "", true
	}
	_, named, _ := strings.Cut(description, ": ")
	ref, err := artifact.ParseRef(named)
	if err != nil {
		return artifact.Ref{}, "", false
	}
	tag, ok = strings.CutPrefix(resource, ref.Repository()+":")
	return ref, tag, ok && artifact.ValidateTag(tag) == nil
}

// isAccessoryTag knows the tags under which cosign keeps signatures, attestations and SBOMs beside their subject.
func isAccessoryTag(tag string) bool {
	digest, kind, _ := strings.Cut(tag, ".")
	hex, ok := strings.CutPrefix(digest, "sha256-")
	if !ok || artifact.ValidateDigest("sha256:"+hex) != nil {
		return false
	}
	return kind == "sig" || kind == "att" || kind == "sbom"
}
