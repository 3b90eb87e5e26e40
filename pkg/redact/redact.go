// Package redact makes another side's words fit for an error or a log line.
//
// It guarantees that what a [Redactor] gives holds none of its secrets, plain or escaped as in a URL, in JSON or in a
// quoted string, even where the other side echoes them, and neither control characters nor invalid UTF-8. It does not know secrets
// that it was not told, nor other encodings: whoever sends a secret in another form, such as Base64, names that form too.
package redact

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mark stands where a secret stood.
const mark = "[secret]"

// Redactor cleans text. It is immutable and safe for concurrent use. The zero value knows no secrets.
type Redactor struct {
	// forms are all that is looked for, the longest first: a secret may be a part of another.
	forms []string
}

// New makes a redactor that knows these secrets. Empty ones are passed over.
func New(secrets ...string) *Redactor { return new(Redactor).With(secrets...) }

// With gives a redactor that knows these secrets too.
func (r *Redactor) With(secrets ...string) *Redactor {
	forms := slices.Clone(r.forms)
	for _, s := range secrets {
		if s != "" {
			forms = append(forms, s, collapse(s), url.QueryEscape(s), url.PathEscape(s), inJSON(s), bytewise(s),
				inner(strconv.Quote(s)), inner(strconv.QuoteToASCII(s)))
		}
	}
	forms = slices.DeleteFunc(forms, func(s string) bool { return s == "" })
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return &Redactor{forms: slices.Compact(forms)}
}

func inJSON(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return inner(string(raw))
}

// bytewise quotes as errors of package time do.
func bytewise(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// inner takes the quotation marks away.
func inner(quoted string) string { return quoted[1 : len(quoted)-1] }

// Text gives s without secrets and control characters, on one line, and at most limit bytes long; an ellipsis is added
// where something was cut off.
func (r *Redactor) Text(s string, limit int) string {
	// Secrets go first, before cleaning changes how they look, and once more after it: cleaning may make one whole.
	s = r.replace(collapse(r.replace(s)))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// Error gives an error whose text is that of err as Text gives it. It wraps err: what it is stays known.
func (r *Redactor) Error(err error, limit int) error {
	return &redacted{text: r.Text(err.Error(), limit), err: err}
}

func (r *Redactor) replace(s string) string {
	for _, form := range r.forms {
		s = strings.ReplaceAll(s, form, mark)
	}
	return s
}

// collapse turns every run of blanks, control characters and invalid bytes into one blank.
func collapse(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, " "), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}

// redacted is an error whose text was cleaned.
type redacted struct {
	text string
	err  error
}

// Error implements error.
func (e *redacted) Error() string { return e.text }

// Unwrap gives the error as it was.
func (e *redacted) Unwrap() error { return e.err }
