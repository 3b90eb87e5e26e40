package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// maxText is how much of another side's words an error repeats, in bytes.
const maxText = 512

// check turns an answer other than the wanted one into a fault: the only place where statuses are judged.
func (c *Client) check(r call, a answer) error {
	if a.status == r.want {
		return c.checkSize(r, a)
	}
	said := a.said()
	wrap := func(kind fault.Kind, reason fault.Reason, advice string) error {
		return fault.New(kind, reason, &answerError{text: func() string {
			text := c.redactor.With(a.token).Text(said.text(a.body), maxText)
			parts := slices.DeleteFunc([]string{r.what(), fmt.Sprintf("status %d", a.status), text, advice}, func(s string) bool { return s == "" })
			return strings.Join(parts, ": ")
		}})
	}
	switch status := a.status; {
	case status >= 400 && status < 500 && len(said) == 0 && judgedByWords(status):
		return wrap(fault.Transient, fault.BadAnswer, "not in a registry's words: look for a proxy on the way")
	case status < 300:
		return wrap(fault.Transient, fault.BadAnswer, fmt.Sprintf("want status %d", r.want))
	case status < 400:
		return c.redirectFault(r, a)
	case status == http.StatusUnauthorized:
		return wrap(fault.Permanent, fault.Unauthorized,
			"the registry refuses the robot account "+c.username+": check its name and secret, and whether it is disabled or expired")
	case status == http.StatusForbidden && said.isQuota():
		return wrap(fault.Permanent, fault.QuotaExceeded, "the project's storage quota is used up: raise it or clean the project up")
	case status == http.StatusForbidden:
		return wrap(fault.Permanent, fault.Denied, "the robot account "+c.username+" needs repository:pull and repository:push here")
	case status == http.StatusNotFound:
		return notFound(r, said, wrap)
	case status == http.StatusProxyAuthRequired:
		return wrap(fault.Transient, fault.Unreachable, "a proxy on the way asks for credentials")
	case status == http.StatusRequestTimeout:
		return wrap(fault.Transient, fault.Timeout, "")
	case status == http.StatusConflict:
		return wrap(fault.Transient, fault.ConcurrentWriter, "")
	case status == http.StatusPreconditionFailed:
		return c.preconditionFailed(a, said, wrap)
	case status == http.StatusTooManyRequests:
		return fault.After(fault.RetryAfter(a.header, time.Now()), fault.RateLimited, wrap(fault.Transient, fault.RateLimited, ""))
	case status >= 500:
		return fault.After(fault.RetryAfter(a.header, time.Now()), fault.Unavailable, wrap(fault.Transient, fault.Unavailable, ""))
	case said.has("MANIFEST_BLOB_UNKNOWN"):
		return wrap(fault.Transient, fault.BlobUnknown, "")
	case said.has("DIGEST_INVALID", "SIZE_INVALID", "BLOB_UPLOAD_INVALID") && r.op == opUploadFinish,
		status == http.StatusRequestedRangeNotSatisfiable:
		// We send what we hashed: it was damaged on the way, or the upload belongs to a server that is gone.
		return wrap(fault.Transient, fault.BadAnswer, "the upload was lost or damaged")
	default:
		return wrap(fault.Permanent, fault.Rejected, "")
	}
}

// answerError writes its text when it is asked for it: most answers that are not the wanted one only say that there is no
// signature yet, and nobody reads that. The function keeps what it needs, a token among it, out of what a print shows.
type answerError struct{ text func() string }

// Error implements error.
func (e *answerError) Error() string { return e.text() }

// judgedByWords says whether a status means something for good only if a registry says so: what a proxy answers in its place
// passes.
func judgedByWords(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusConflict,
		http.StatusTooManyRequests:
		return false
	default:
		return true
	}
}

type wrapFunc func(kind fault.Kind, reason fault.Reason, advice string) error

// notFound tells "the registry says that it is not there" from "something answered 404".
//
// SPEC: OCI distribution specification, "Error codes": a registry names what is missing by a code; Harbor adds NOT_FOUND
// of its own.
func notFound(r call, said remarks, wrap wrapFunc) error {
	switch {
	case r.op == opPing, r.op == opToken:
		return wrap(fault.Transient, fault.BadAnswer, "this does not look like a Harbor registry")
	case said.has("BLOB_UPLOAD_UNKNOWN"):
		return wrap(fault.Transient, fault.BadAnswer, "the upload was lost")
	case r.op == opReferrers && !said.has("NAME_UNKNOWN"):
		// Harbor reads each manifest that it lists, and hands on that one of them was deleted meanwhile: that says nothing of
		// the digest that was asked about. A Harbor before 2.8 has no listing of referrers and answers a page of text.
		return wrap(fault.Transient, fault.BadAnswer, "the registry could not list the referrers, which does not count as none")
	case said.has("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "NOT_FOUND"):
		return wrap(fault.Gone, fault.NotFound, "")
	default:
		return wrap(fault.Transient, fault.BadAnswer, "not in the registry's words, so it does not count as absent")
	}
}

// preconditionFailed tells Harbor's two kinds of 412 apart: the policy for pulls and a locked tag.
func (c *Client) preconditionFailed(a answer, said remarks, wrap wrapFunc) error {
	switch {
	case said.has("PROJECTPOLICYVIOLATION"):
		return wrap(fault.Permanent, fault.PullPolicy, "a policy of the project refuses this pull to all but a signer; missing: "+c.missingOfSigner(a))
	case said.mentions("immutable"):
		return wrap(fault.Permanent, fault.Immutable, "an immutability rule of the project locks the tag: exclude sha256-*.sig from it")
	default:
		return wrap(fault.Permanent, fault.Rejected, "")
	}
}

// missingOfSigner says what Harbor did not see of the three things by which it knows a signer.
//
// SPEC: recorded answers of Harbor 2.15 to pulls under its policy: a bearer token, push right on the repository, and
// lower-case "cosign" in the User-Agent. A token without push right is never sent: [Client.checkRights] names it before.
func (c *Client) missingOfSigner(a answer) string {
	if a.token == "" {
		return "the bearer token, because the registry asked for none: make Harbor's own token service reachable at " + c.origin.String()
	}
	return fmt.Sprintf("\"cosign\" in the User-Agent; this client sent a token with push right and the User-Agent %q: look for a proxy that changes it",
		c.userAgent)
}

// checkSize judges a good answer. Harbor's token or greeting can have no documented limit of ours: too long is strange.
func (c *Client) checkSize(r call, a answer) error {
	switch {
	case !a.tooLarge:
		return nil
	case r.op == opManifestGet, r.op == opBlobGet, r.op == opReferrers:
		return fault.Newf(fault.Permanent, fault.TooLarge, "%s: more than %d bytes, which is the limit", r.what(), r.limit)
	default:
		return fault.Newf(fault.Transient, fault.BadAnswer, "%s: an answer of more than %d bytes", r.what(), r.limit)
	}
}

// redirectFault is the fault of a redirect that was not followed.
func (c *Client) redirectFault(r call, a answer) error {
	location, err := r.url.Parse(a.header.Get("Location"))
	if err == nil && originOf(location) != c.origin {
		return c.foreign(r.op, location)
	}
	return fault.Newf(fault.Transient, fault.BadAnswer, "%s: status %d: an unexpected redirect", r.what(), a.status)
}

// foreign is the fault of an address outside the configured origin; nil stands for one that cannot be read.
func (c *Client) foreign(op operation, u *url.URL) error {
	if u == nil {
		return fault.Newf(fault.Transient, fault.BadAnswer, "%s: the registry gave an address that cannot be read", op)
	}
	return fault.Newf(fault.Permanent, fault.ForeignOrigin,
		"%s: the registry sends this client to %s, but only %s gets requests and credentials: set the URL to what Harbor calls itself; if that is "+
			"its object storage, add it to harbor.storage_origins, or let Harbor answer for it (redirect: disable)",
		op, c.redactor.Text(originOf(u).String(), maxText), c.origin)
}

// remark is one error in a registry's answer.
type remark struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type remarks []remark

// said reads the errors of an answer's body; nil if there are none or the body is something else.
//
// SPEC: OCI distribution specification, "Error codes": {"errors":[{"code","message","detail"}]}.
func (a answer) said() remarks {
	var body struct {
		Errors remarks `json:"errors"`
	}
	if json.Unmarshal(a.body, &body) != nil {
		return nil
	}
	return body.Errors
}

func (rs remarks) has(codes ...string) bool {
	for _, r := range rs {
		for _, code := range codes {
			if strings.EqualFold(r.Code, code) {
				return true
			}
		}
	}
	return false
}

func (rs remarks) mentions(word string) bool {
	for _, r := range rs {
		if strings.Contains(strings.ToLower(r.Message), word) {
			return true
		}
	}
	return false
}

// isQuota knows Harbor's refusal for a full project by its text, because its code is that of every refusal.
func (rs remarks) isQuota() bool { return rs.mentions("exceed the configured upper limit") }

// text is what people get to read of an answer.
func (rs remarks) text(body []byte) string {
	if len(rs) == 0 {
		return string(body)
	}
	parts := make([]string, 0, len(rs))
	for _, r := range rs {
		parts = append(parts, r.Code+" "+r.Message)
	}
	return strings.Join(parts, "; ")
}

func basicCredentials(username, secret string) string {
	return base64.StdEncoding.EncodeToString([]byte(username + ":" + secret))
}
