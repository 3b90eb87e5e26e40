package harbortest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	maxAPIBody      = 1 << 20
	defaultPageSize = 10
	maxPageSize     = 100
)

// call is one request on its way through the emulator.
type call struct {
	h         *Harbor
	w         http.ResponseWriter
	r         *http.Request
	requestID string
	who       *identity
}

// apiError is a refusal in Harbor's form: {"errors":[{"code","message"}]}.
type apiError struct {
	status  int
	code    string
	message string
	detail  any // The registry's errors have one, Harbor's own have not.
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func errBadRequest(format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, code: "BAD_REQUEST", message: fmt.Sprintf(format, args...)}
}

func errNotFound(format string, args ...any) error {
	return &apiError{status: http.StatusNotFound, code: "NOT_FOUND", message: fmt.Sprintf(format, args...)}
}

func errConflict(format string, args ...any) error {
	return &apiError{status: http.StatusConflict, code: "CONFLICT", message: fmt.Sprintf(format, args...)}
}

func errPrecondition(format string, args ...any) error {
	return &apiError{
		status: http.StatusPreconditionFailed, code: "PRECONDITION", message: fmt.Sprintf(format, args...),
	}
}

func errUnauthorized() error {
	return &apiError{status: http.StatusUnauthorized, code: "UNAUTHORIZED", message: "unauthorized"}
}

func errForbidden() error {
	return &apiError{status: http.StatusForbidden, code: "FORBIDDEN", message: "forbidden"}
}

func errUnprocessable(message string) error {
	return &apiError{
		status: http.StatusUnprocessableEntity, code: "UNPROCESSABLE_ENTITY",
		message: "validation failure list:\n" + message,
	}
}

// fail answers with an error. Anything that is no apiError is a bug of the emulator and answers 500.
func (c *call) fail(err error) {
	var refusal *apiError
	if !errors.As(err, &refusal) {
		c.h.log.Error().Err(err).Str("path", c.r.URL.Path).Msg("emulator failed")
		refusal = &apiError{status: http.StatusInternalServerError, code: "UNKNOWN", message: "internal server error"}
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail,omitempty"`
	}
	body, err := json.Marshal(map[string][]item{
		"errors": {{Code: refusal.code, Message: refusal.message, Detail: refusal.detail}},
	})
	if err != nil {
		c.h.log.Error().Err(err).Msg("emulator could not encode an error")
		return
	}
	c.w.Header().Set(contentTypeHeader, "application/json; charset=utf-8")
	c.w.WriteHeader(refusal.status)
	c.write(append(body, '\n'))
}

// json answers with a value.
func (c *call) json(status int, value any) error { return c.jsonAs(status, "application/json", value) }

// jsonAs is json under another media type. Like Harbor's generated server, it ends the body with a newline.
func (c *call) jsonAs(status int, mediaType string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	c.w.Header().Set(contentTypeHeader, mediaType)
	c.w.WriteHeader(status)
	c.write(append(body, '\n'))
	return nil
}

// created answers 201 with a Location and no body.
func (c *call) created(location string) error {
	c.w.Header().Set("Location", location)
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// ok answers 200 without a body.
func (c *call) ok() error {
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) write(body []byte) {
	if _, err := c.w.Write(body); err != nil { //nolint:gosec // no browser reads it, and the real one answers so, too
		c.h.log.Debug().Err(err).Msg("client went away")
	}
}

// decode reads a JSON body; name is what Harbor calls it in its complaint.
func (c *call) decode(name string, into any) error {
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxAPIBody))
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errUnprocessable(fmt.Sprintf("parsing %s body from \"\" failed, because %s", name, err))
	}
	return nil
}

// page is the part of a listing that was asked for.
type page struct{ number, size int }

func (c *call) page() (page, error) {
	p := page{number: 1, size: defaultPageSize}
	query := c.r.URL.Query()
	for _, field := range []struct {
		name string
		into *int
	}{{"page", &p.number}, {"page_size", &p.size}} {
		raw := query.Get(field.name)
		if raw == "" {
			continue
		}
		n, err := strconv.Atoi(raw)
		if err != nil {
			return page{}, errUnprocessable(fmt.Sprintf("%s in query must be of type int64: %q", field.name, raw))
		}
		if n < 1 {
			return page{}, errUnprocessable(field.name + " in query should be greater than or equal to 1")
		}
		*field.into = n
	}
	if p.size > maxPageSize {
		return page{}, errUnprocessable("page_size in query should be less than or equal to 100")
	}
	return p, nil
}

// bounds gives the first and one past the last index of the page in a listing of total items.
func (p page) bounds(total int) (int, int) {
	from := min((p.number-1)*p.size, total)
	return from, min(from+p.size, total)
}

// list answers with one page: X-Total-Count, and links to its neighbours.
//
// SPEC: Harbor API, paging: Link is relative, names the page size even where the request did not, and is left out when
// there is no neighbour; past the end is an empty page.
func (c *call) list(p page, total int, items any) error {
	header := c.w.Header()
	header.Set("X-Total-Count", strconv.Itoa(total))
	links := ""
	if p.number > 1 && (p.number-1)*p.size < total {
		links = fmt.Sprintf(`<%s>; rel="prev"`, c.pageURL(p.number-1, p.size))
	}
	if p.number*p.size < total {
		if links != "" {
			links += " , "
		}
		links += fmt.Sprintf(`<%s>; rel="next"`, c.pageURL(p.number+1, p.size))
	}
	if links != "" {
		header.Set("Link", links)
	}
	return c.json(http.StatusOK, items)
}

func (c *call) pageURL(number, size int) string {
	query := c.r.URL.Query()
	query.Set("page", strconv.Itoa(number))
	query.Set("page_size", strconv.Itoa(size))
	raw := query.Encode()
	if plain, err := url.QueryUnescape(raw); err == nil {
		raw = plain // Harbor sends its links unescaped.
	}
	return c.r.URL.EscapedPath() + "?" + raw
}

// flag reads a boolean of the query.
func (c *call) flag(name string, fallback bool) bool {
	value, err := strconv.ParseBool(c.r.URL.Query().Get(name))
	if err != nil {
		return fallback
	}
	return value
}

// timestamp formats as Harbor's API does.
func timestamp(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// paged answers with one page of items, each rendered by view.
func paged[T any](c *call, items []T, view func(T) any) error {
	p, err := c.page()
	if err != nil {
		return err
	}
	from, to := p.bounds(len(items))
	out := make([]any, 0, to-from)
	for _, item := range items[from:to] {
		out = append(out, view(item))
	}
	return c.list(p, len(items), out)
}

// newestFirst returns the items in reverse.
func newestFirst[T any](items []T) []T {
	out := slices.Clone(items)
	slices.Reverse(out)
	return out
}
