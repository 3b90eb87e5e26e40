package dependency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// probeRepository is asked about in a project. It need not be there.
	probeRepository = "harborseal-probe"
	// maxPing is how much is read of the answer to a ping, in bytes.
	maxPing = 4 << 10
)

// HarborAPI gives a call that asks Harbor which one it is: with the account, because it tells that to nobody else.
func HarborAPI(system func(ctx context.Context) (artifact.SystemInfo, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := system(ctx)
		return err
	}
}

// robotEvery is how often Harbor is asked when a robot account expires.
const robotEvery = time.Hour

// HarborRobot is the robot account with which Harbor is asked. It has no known end if it never expires, and if it may not ask for
// that.
func HarborRobot(expiry func(ctx context.Context) (time.Time, error)) Credential {
	return Credential{Name: "harbor_robot", Every: robotEvery, Expires: func(ctx context.Context) (time.Time, error) {
		at, err := expiry(ctx)
		if err == nil {
			return at, nil
		}
		if f := fault.Of(err); f.Reason == fault.Denied || f.Kind == fault.Gone {
			return time.Time{}, nil
		}
		return at, err
	}}
}

// TokenRights gives a call that asks Harbor's token service for the right to push into a project: a wrong secret, and an account
// that lacks the right, get a token too, with nothing in it. project names one that is signed; empty if there is none.
func TokenRights(
	actions func(ctx context.Context, repository string, want []string) ([]string, error), project func(ctx context.Context) (string, error),
) func(context.Context) error {
	return func(ctx context.Context) error {
		name, err := project(ctx)
		switch {
		case err != nil:
			return err
		case name == "":
			return ErrNothingToAsk
		}
		want := []string{"pull", "push"}
		got, err := actions(ctx, name+"/"+probeRepository, want)
		if err != nil {
			return err
		}
		for _, action := range want {
			if !slices.Contains(got, action) {
				return fault.Newf(fault.Permanent, fault.Denied, "the token for project %s does not let the account %s: "+
					"check its secret, whether it has expired, and its rights in the project", name, action)
			}
		}
		return nil
	}
}

// Registry gives a call that asks a registry whether it is one. It sends no credentials: that they are asked for is an answer.
//
// SPEC: OCI Distribution Specification, Determining Support (end-1): GET /v2/ is answered by 200, or by 401.
func Registry(origin string, transport http.RoundTripper) func(context.Context) error {
	return func(ctx context.Context) error {
		u, err := url.Parse(origin)
		if err != nil {
			return fault.Newf(fault.Permanent, fault.Malformed, "the address of the registry cannot be read")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("v2/").String(), http.NoBody)
		if err != nil {
			return fmt.Errorf("asking the registry: %w", err)
		}
		req.Header.Set("User-Agent", egress.DefaultUserAgent)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return fmt.Errorf("asking the registry: %w", err)
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxPing))
		if err != nil {
			return fmt.Errorf("reading the registry's answer: %w", err)
		}
		return judgePing(resp, raw)
	}
}

func judgePing(resp *http.Response, raw []byte) error {
	switch code := resp.StatusCode; {
	case code >= http.StatusInternalServerError:
		return fault.After(fault.RetryAfter(resp.Header, time.Now()), fault.Unavailable, fmt.Errorf("the registry answers %d", code))
	case code == http.StatusTooManyRequests:
		return fault.After(fault.RetryAfter(resp.Header, time.Now()), fault.RateLimited, fmt.Errorf("the registry answers %d", code))
	case code == http.StatusUnauthorized && resp.Header.Get("Www-Authenticate") != "":
		return nil
	case code != http.StatusOK:
		return fault.Newf(fault.Transient, fault.BadAnswer, "the registry answers %d: it does not look like one", code)
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); len(raw) > 0 && (err != nil || media != "application/json" || !json.Valid(raw)) {
		return fault.Newf(fault.Transient, fault.BadAnswer, "the registry's answer is not JSON: look for a proxy on the way")
	}
	return nil
}

// Queue gives a call that asks whether a push would be stored now.
func Queue(writable func(ctx context.Context) error) func(context.Context) error { return writable }

// Database gives a call that asks a database for anything at all.
func Database(ping func(ctx context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := ping(ctx)
		if _, known := errors.AsType[*fault.Error](err); err == nil || known {
			return err
		}
		return fault.New(fault.Transient, fault.StorageUnavailable, err)
	}
}
