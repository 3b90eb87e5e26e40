package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
)

// maxErrorBody is how much is read of an answer that is not the wanted one.
const maxErrorBody = 64 << 10

// call is one request as the operations describe it.
type call struct {
	op         operation
	method     string
	url        *url.URL
	repository string
	// accept and contentType are the headers of these names; empty for none.
	accept      string
	contentType string
	body        []byte
	// want is the status of a good answer, and limit the most bytes that its body may have.
	want  int
	limit int64
}

// what names the request in errors, without host and query.
func (r call) what() string { return r.method + " " + r.url.Path }

// answer is a complete answer.
type answer struct {
	status int
	header http.Header
	body   []byte
	// tooLarge says that a good answer's body has more bytes than the limit; body is cut off then.
	tooLarge bool
	// token is what the request was sent with; empty for none.
	token string
}

// do sends a request with a token for its repository. An answer other than the wanted one becomes an error.
//
// A refused token is replaced once: it may have been revoked, or the registry's key may have changed.
func (c *Client) do(ctx context.Context, r call) (answer, error) {
	if r.url == nil || originOf(r.url) != c.origin {
		return answer{}, c.foreign(r.op, r.url)
	}
	token, err := c.tokens.get(ctx, r.repository)
	if err != nil {
		return answer{}, err
	}
	a, err := c.sendBearer(ctx, r, token)
	if err != nil {
		return answer{}, err
	}
	if a.status == http.StatusUnauthorized {
		renewable, err := c.learn(a.header)
		if err != nil {
			return answer{}, fmt.Errorf("%s: %w", r.what(), err)
		}
		if renewable {
			c.tokens.drop(r.repository, token)
			if token, err = c.tokens.get(ctx, r.repository); err != nil {
				return answer{}, err
			}
			if a, err = c.sendBearer(ctx, r, token); err != nil {
				return answer{}, err
			}
		}
	}
	return a, c.check(r, a)
}

func (c *Client) sendBearer(ctx context.Context, r call, token string) (answer, error) {
	authorization := ""
	if token != "" {
		authorization = "Bearer " + token
	}
	a, err := c.send(ctx, r, authorization)
	a.token = token
	return a, err
}

// send makes one exchange and reads the answer to its end. Whatever the status is, it is no error here.
func (c *Client) send(ctx context.Context, r call, authorization string) (answer, error) {
	attempt, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := newRequest(attempt, r)
	if err != nil {
		return answer{}, c.transportFault(r, "", err)
	}
	req.Header = c.header(r, authorization)
	start := time.Now()
	a, err := c.exchange(req, r)
	took := time.Since(start)
	c.metrics.observe(r.op, a.status, took)
	c.log.Debug().Str("operation", string(r.op)).Str("repository", r.repository).Int("status", a.status).Dur("took", took).
		Msg("registry request")
	if err != nil {
		return answer{}, c.transportFault(r, authorization, err)
	}
	return a, nil
}

// newRequest is http.NewRequestWithContext for an address that is parsed already.
func newRequest(ctx context.Context, r call) (*http.Request, error) {
	var body io.Reader
	if len(r.body) > 0 {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "", body)
	if err != nil {
		return nil, err
	}
	req.URL, req.Host = r.url, r.url.Host
	return req, nil
}

// header makes the header of a request in two allocations: there are six requests in each signature.
func (c *Client) header(r call, authorization string) http.Header {
	names := [...]string{"User-Agent", "Accept-Encoding", "Accept", "Content-Type", "Authorization"}
	// Digests are those of the bytes on the wire, and a small compressed answer must not become a huge one: "identity".
	values := [...]string{c.userAgent, "identity", r.accept, r.contentType, authorization}
	h := make(http.Header, len(names))
	for i, name := range names {
		if values[i] != "" {
			h[name] = values[i : i+1 : i+1]
		}
	}
	return h
}

func (c *Client) exchange(req *http.Request, r call) (answer, error) {
	resp, err := c.roundTrip(r, req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	a := answer{status: resp.StatusCode, header: resp.Header}
	limit := int64(maxErrorBody)
	if a.status == r.want {
		limit = r.limit
		if resp.ContentLength > limit {
			a.tooLarge = true
			return a, nil
		}
	}
	// One byte more than allowed tells "too large" from "exactly as large as allowed".
	body, err := readBody(io.LimitReader(resp.Body, limit+1), min(resp.ContentLength, limit))
	if err != nil {
		return answer{}, err
	}
	if int64(len(body)) > limit {
		body = body[:limit]
		a.tooLarge = a.status == r.want
	}
	a.body = body
	return a, nil
}

// roundTrip follows the redirects of reads within the origin and, without credentials, those of blobs to the configured
// storage: their content is checked against its digest. Any other redirect is handed to the caller as the answer, which the
// table of statuses turns into a fault. An http.Client would copy the headers of every request for the redirects to come.
func (c *Client) roundTrip(r call, req *http.Request) (*http.Response, error) {
	for hops := 0; ; hops++ {
		resp, err := c.transport.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		next := c.redirected(r, req, resp)
		if next == nil || hops == maxRedirects {
			return resp, nil
		}
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.URL, req.Host = next, next.Host
		if originOf(next) != c.origin {
			req.Header.Del("Authorization")
		}
	}
}

// redirected is where a read goes on, nil if it does not.
func (c *Client) redirected(r call, req *http.Request, resp *http.Response) *url.URL {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil
	}
	location := resp.Header.Get("Location")
	next, err := req.URL.Parse(location)
	if req.Method != http.MethodGet || location == "" || err != nil || next.User != nil {
		return nil
	}
	if to := originOf(next); to != c.origin && (r.op != opBlobGet || !slices.Contains(c.storage, to)) {
		return nil
	}
	return next
}

// readBody is io.ReadAll for a body whose size is known; a negative one is not.
func readBody(body io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(body)
	}
	// The rest is what ReadFrom needs to see the end without growing.
	buf := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	_, err := buf.ReadFrom(body)
	return buf.Bytes(), err
}

// transportFault is the fault of a request that got no complete answer.
func (c *Client) transportFault(r call, authorization string, err error) error {
	// The URL of an upload carries the registry's state: the path is enough.
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	err = egress.WithCertificate(err, r.url.Hostname())
	err = fmt.Errorf("%s: %w", r.what(), c.redactor.With(strings.TrimPrefix(authorization, "Bearer ")).Error(err, maxText))
	var timeout net.Error
	known, isKnown := errors.AsType[*fault.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return err // the caller's own doing: package fault knows it
	case isKnown: // of a transport that knows why it did not ask
		return &fault.Error{Kind: known.Kind, Reason: known.Reason, RetryAfter: known.RetryAfter, Err: err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fault.New(fault.Transient, fault.Timeout, err)
	default:
		return fault.New(fault.Transient, fault.Unreachable, err)
	}
}
