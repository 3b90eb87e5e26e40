package harbortest

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"
)

// query is Harbor's q parameter: "name=value,name=~part,name=[from~to],name={a b}". Names are kept in lower case.
type query map[string]string

// parseQuery reads q, which Harbor unescapes once more than HTTP does, and refuses what it cannot read.
//
// SPEC: Harbor, src/lib/q/builder.go: terms end at a comma, wherever it stands; no name and no value is empty; a range
// has one tilde and at least one end.
func parseQuery(raw string) (query, error) {
	q := make(query)
	if plain, err := url.QueryUnescape(raw); err == nil {
		raw = plain
	}
	if raw == "" {
		return q, nil
	}
	for term := range strings.SplitSeq(raw, ",") {
		name, value, _ := strings.Cut(term, "=")
		if name == "" || value == "" {
			return nil, errBadRequest(`the query string must contain "=" and the key/value cannot be empty`)
		}
		if !validPattern(value) {
			return nil, errBadRequest("invalid query string value: %s", value)
		}
		q[strings.ToLower(name)] = value
	}
	return q, nil
}

func validPattern(value string) bool {
	switch value[0] {
	case '~':
		return len(value) > 1
	case '[':
		inner, ok := inBrackets(value, "[", "]")
		from, to, one := strings.Cut(inner, "~")
		return ok && one && !strings.Contains(to, "~") && strings.TrimSpace(from)+strings.TrimSpace(to) != ""
	case '{':
		return strings.HasSuffix(value, "}")
	case '(':
		return strings.HasSuffix(value, ")")
	default:
		return true
	}
}

// matches tells whether a text meets the condition on a name; no condition is met by everything.
func (q query) matches(name, got string) bool {
	want, ok := q[name]
	if !ok || want == "*" {
		return true
	}
	if part, fuzzy := strings.CutPrefix(want, "~"); fuzzy {
		return strings.Contains(strings.ToLower(got), strings.ToLower(part))
	}
	if inner, ok := inBrackets(want, "{", "}"); ok {
		return slices.Contains(strings.Fields(inner), got)
	}
	return want == got
}

// timeRange is a condition on a time, both ends included; a zero end is open.
type timeRange struct{ from, to time.Time }

// timeRange reads the condition on a name; without one, everything is in the range.
func (q query) timeRange(name string) (timeRange, error) {
	want, ok := q[name]
	if !ok {
		return timeRange{}, nil
	}
	inner, ok := inBrackets(want, "[", "]")
	if !ok {
		return timeRange{}, errBadRequest("invalid query string value: %s", want)
	}
	from, to, _ := strings.Cut(inner, "~")
	var out timeRange
	for _, end := range []struct {
		raw  string
		into *time.Time
	}{{from, &out.from}, {to, &out.to}} {
		raw := strings.TrimSpace(end.raw)
		if raw == "" {
			continue
		}
		limit, err := parseQueryTime(raw)
		if err != nil {
			return timeRange{}, err
		}
		*end.into = limit
	}
	return out, nil
}

func (r timeRange) includes(t time.Time) bool {
	return (r.from.IsZero() || !t.Before(r.from)) && (r.to.IsZero() || !t.After(r.to))
}

// parseQueryTime reads one end of a range.
//
// SPEC: Harbor, src/lib/q/builder.go, and its object mapper, beego's client/orm getFlatParams: a time of this layout is
// cut to the second, a shorter one to the day, whatever stands behind; what is neither goes to PostgreSQL as it is, which
// keeps fractions and disregards the offset of a timestamp. (What PostgreSQL does not read, Harbor answers with 500, and
// the emulator, whose own errors are 500, with 400.)
func parseQueryTime(raw string) (time.Time, error) {
	if t, err := time.Parse("2006-01-02T15:04:05", raw); err == nil {
		return t.Truncate(time.Second), nil
	}
	raw = strings.Trim(raw, `"'`)
	switch {
	case len(raw) >= len(time.DateTime):
		if t, err := time.Parse(time.DateTime, raw[:len(time.DateTime)]); err == nil {
			return t, nil
		}
	case len(raw) >= len(time.DateOnly):
		if t, err := time.Parse(time.DateOnly, raw[:len(time.DateOnly)]); err == nil {
			return t, nil
		}
	}
	t, err := time.Parse(time.RFC3339Nano, raw)
	if err != nil {
		return time.Time{}, errBadRequest("invalid time in query: %s", raw)
	}
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second), nil
}

func inBrackets(s, open, closing string) (string, bool) {
	inner, ok := strings.CutPrefix(s, open)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(inner, closing)
}

// filterTime keeps the items whose time meets the range on a name.
func filterTime[T any](items []T, q query, name string, at func(T) time.Time) ([]T, error) {
	if _, ok := q[name]; !ok {
		return items, nil
	}
	limits, err := q.timeRange(name)
	if err != nil {
		return nil, err
	}
	out := items[:0:0]
	for _, item := range items {
		if limits.includes(at(item)) {
			out = append(out, item)
		}
	}
	return out, nil
}

// sortBy orders items by the request's sort parameter ("-push_time,id"), where keys knows the name, and leaves them
// alone otherwise.
func sortBy[T any](items []T, spec string, keys map[string]func(a, b T) int) {
	var orders []func(a, b T) int
	for field := range strings.SplitSeq(spec, ",") {
		name, descending := strings.CutPrefix(strings.TrimSpace(field), "-")
		order, ok := keys[name]
		if !ok {
			continue
		}
		if descending {
			plain := order
			order = func(a, b T) int { return plain(b, a) }
		}
		orders = append(orders, order)
	}
	if len(orders) == 0 {
		return
	}
	slices.SortStableFunc(items, func(a, b T) int {
		for _, order := range orders {
			if d := order(a, b); d != 0 {
				return d
			}
		}
		return 0
	})
}

func byTime[T any](at func(T) time.Time) func(a, b T) int {
	return func(a, b T) int { return at(a).Compare(at(b)) }
}

func byOrdered[T any, K cmp.Ordered](key func(T) K) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(key(a), key(b)) }
}
