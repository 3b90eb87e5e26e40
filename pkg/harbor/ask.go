package harbor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/harborseal/harborseal/pkg/fault"
)

// maxAnswer is how much of an answer is read, in bytes: far more than a page of projects has.
const maxAnswer = 16 << 20

// ask makes a request for which the generated client is no use: it loses what its models do not know, cannot send what breaks
// them, and knows only what is below /api/v2.0. The path is escaped already, and relative to that. A body, and into, may be nil.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, body, into any) (http.Header, error) {
	return c.askAt(ctx, method, c.base.JoinPath("api/v2.0", path), query, body, into)
}

func (c *Client) askAt(ctx context.Context, method string, u *url.URL, query url.Values, body, into any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		content = bytes.NewReader(raw)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	// SPEC: Harbor API, header X-Is-Resource-Name: a project of digits is taken for an id otherwise.
	req.Header.Set("X-Is-Resource-Name", "true")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller says what was asked
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("reading the answer: %w", ctx.Err())
	case err != nil:
		return nil, fault.New(fault.Transient, fault.Unreachable, err)
	case into == nil:
		return resp.Header, nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return nil, fault.New(fault.Transient, fault.BadAnswer, err)
	}
	return resp.Header, nil
}

// totalOf is Harbor's count of a listing; 0 if there is none.
func totalOf(header http.Header) int64 {
	total, err := strconv.ParseInt(header.Get("X-Total-Count"), 10, 64)
	if err != nil || total < 0 {
		return 0
	}
	return total
}
