package harbor

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/systeminfo"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// versionAge is how long an answer about Harbor's version is used.
	versionAge = 5 * time.Minute
	// maxVersion is how much of a version is kept, in bytes.
	maxVersion = 64
)

// Bundles says whether this Harbor takes a bundle for a signature, which it does since 2.15, and which version it is, as
// Harbor writes it: "v2.15.2-080b0220". A version that cannot be read, such as a fork's, is one that does not: the legacy
// format is right everywhere.
//
// The answer is remembered for 5 minutes; however many ask at the same time, one request is sent. While Harbor does not
// answer, the last known answer is given; the fault is returned if there is none. It is transient and Unauthorized if
// Harbor does not accept the account, because it tells its version to nobody else.
func (c *Client) Bundles(ctx context.Context) (can bool, version string, err error) {
	info, err := c.shared.version.get(ctx, func(ctx context.Context) (artifact.SystemInfo, time.Duration, error) {
		info, err := c.System(ctx)
		return info, versionAge, err
	})
	if err != nil {
		return false, "", err
	}
	return takesBundles(info.Version), info.Version, nil
}

// System asks Harbor about itself. It is transient and Unauthorized if Harbor does not accept the account, because it tells all
// of that to nobody else.
func (c *Client) System(ctx context.Context) (artifact.SystemInfo, error) {
	var none artifact.SystemInfo
	answer, err := c.api.Systeminfo.GetSystemInfo(ctx, systeminfo.NewGetSystemInfoParams().WithTimeout(c.timeout))
	if err != nil {
		err = c.wrap("asking for the version", err)
		if fault.Is(err, fault.Gone) {
			return none, fault.New(fault.Transient, fault.BadAnswer, err) // every Harbor has one: no digest is gone because of that
		}
		return none, err
	}
	info := answer.Payload
	if info == nil || info.AuthMode == nil {
		return none, fault.Newf(fault.Transient, fault.BadAnswer, "asking for the version: the answer does not look like Harbor's")
	}
	// SPEC: recorded answers of Harbor 2.15: harbor_version is left out where the credentials were not accepted.
	if info.HarborVersion == nil || *info.HarborVersion == "" {
		return none, fault.Newf(fault.Transient, fault.Unauthorized, "asking for the version: Harbor tells it to no stranger: "+
			"check the name and the secret of %s, and whether it has expired", c.transport.account)
	}
	system := artifact.SystemInfo{
		Version: c.redactor.Text(*info.HarborVersion, maxVersion), AuthMode: c.redactor.Text(*info.AuthMode, maxVersion),
		Notifications: info.NotificationEnable == nil || *info.NotificationEnable, // what does not say so does not switch them off
		ReadOnly:      info.ReadOnly != nil && *info.ReadOnly,
	}
	if info.CurrentTime != nil {
		system.Now = timeOf(*info.CurrentTime)
	}
	return system, nil
}

// takesBundles reads "v2.15.2-080b0220", or the same without its "v" or its commit.
func takesBundles(version string) bool {
	numbers, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(numbers, ".")
	if len(parts) != 3 {
		return false
	}
	var read [3]uint64
	for i, part := range parts {
		var err error
		if read[i], err = strconv.ParseUint(part, 10, 32); err != nil {
			return false
		}
	}
	return read[0] > 2 || read[0] == 2 && read[1] >= 15
}
