package harbor

import (
	"context"
	"net/http"
	"strconv"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/quota"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/user"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// unlimited is a quota without a limit.
const unlimited = -1

// CurrentAccount says who Harbor takes this client for. It is a permanent fault, Unauthorized, if that is nobody.
//
// SPEC: recorded answers of Harbor 2.15: 412 to robot accounts, whose name is then that of the credentials.
func (c *Client) CurrentAccount(ctx context.Context) (artifact.Account, error) {
	answer, err := c.api.User.GetCurrentUserInfo(ctx, user.NewGetCurrentUserInfoParams().WithTimeout(c.timeout))
	switch {
	case statusOf(err) == http.StatusPreconditionFailed:
		return artifact.Account{Name: userOf(c.transport.authorization), Robot: true}, nil
	case err != nil:
		return artifact.Account{}, c.wrap("asking for the account", err)
	case answer.Payload == nil || answer.Payload.Username == "":
		return artifact.Account{}, fault.Newf(fault.Transient, fault.BadAnswer, "asking for the account: the answer names nobody")
	}
	u := answer.Payload
	return artifact.Account{Name: u.Username, SystemAdmin: u.SysadminFlag || u.AdminRoleInAuth}, nil
}

// Quota gives a project's share of the storage. A project without one has no limit. It is a Denied fault without the system's right
// quota:list.
func (c *Client) Quota(ctx context.Context, projectID int64) (artifact.Quota, error) {
	reference, id, size := "project", strconv.FormatInt(projectID, 10), int64(1)
	params := quota.NewListQuotasParams().WithTimeout(c.timeout).WithReference(&reference).WithReferenceID(&id).WithPageSize(&size)
	answer, err := c.api.Quota.ListQuotas(ctx, params)
	if err == nil {
		err = complete(answer.Payload)
	}
	if err != nil {
		return artifact.Quota{}, c.wrap("asking for the quota", err)
	}
	q := artifact.Quota{Hard: unlimited}
	for _, row := range answer.Payload {
		if hard, ok := row.Hard["storage"]; ok {
			q.Hard = hard
		}
		q.Used = row.Used["storage"]
	}
	return q, nil
}
