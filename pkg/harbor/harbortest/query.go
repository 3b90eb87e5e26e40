package harbortest

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// query is Harbor's q parameter: "name=value,name=~part,name=[from~to],name={a b}". Names are kept in lower case.
type query map[string]string

func parseQuery(raw string) (query, error) {
	q := make(query)
	for _, term := range splitTerms(raw) {
		name, value, ok := strings.Cut(term, "=")
		if !ok || name == "" {
			return nil, errBadRequest("invalid query string value: %s", term)
		}
		q[strings.ToLower(strings.TrimSpace(name))] = value
	}
	return q, nil
}

// splitTerms splits at commas outside of brackets.
func splitTerms(raw string) []string {
	if raw == "" {
		return nil
	}
	depth := 0
	return strings.FieldsFunc(raw, func(r rune) bool {
		switch r {
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			depth--
		}
		return r == ',' && depth == 0
	})
}

// matches tells whether a text meets the condition on a name; no condition is met by everything.
func (q query) matches(name, got string) bool {
	want, ok := q[name]
	if !ok || want == "*" {
		return true
	}
	if part, fuzzy := strings.CutPrefix(want, "~"); fuzzy {
		return strings.Contains(got, part)
	}
	if inner, ok := inBrackets(want, "{", "}"); ok {
		return slices.Contains(strings.Fields(inner), got)
	}
	return want == got
}

// within tells whether a time meets the range on a name, both ends included.
func (q query) within(name string, got time.Time) (bool, error) {
	want, ok := q[name]
	if !ok {
		return true, nil
	}
	inner, ok := inBrackets(want, "[", "]")
	if !ok {
		return false, errBadRequest("invalid range of %s: %s", name, want)
	}
	from, to, ok := strings.Cut(inner, "~")
	if !ok {
		return false, errBadRequest("invalid range of %s: %s", name, want)
	}
	for _, end := range []struct {
		raw  string
		sign int
	}{{from, -1}, {to, 1}} {
		if end.raw == "" {
			continue
		}
		limit, err := parseQueryTime(end.raw)
		if err != nil {
			return false, err
		}
		if got.Compare(limit)*end.sign > 0 {
			return false, nil
		}
	}
	return true, nil
}

func parseQueryTime(raw string) (time.Time, error) {
	for _, layout := range []string{time.DateTime, "2006-01-02T15:04:05", time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, strings.TrimSpace(raw)); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errBadRequest("invalid time in query: %s", raw)
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
	out := items[:0:0]
	for _, item := range items {
		ok, err := q.within(name, at(item))
		if err != nil {
			return nil, err
		}
		if ok {
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
