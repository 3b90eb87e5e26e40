package api

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// parameters are those that a path takes in its query, with what reads each.
type parameters map[string]func(value string) error

// read reads a query string. The error is a [*ledger.InvalidQueryError]. What the values mean is checked by the ledger; here
// each parameter is known, comes once, and has the right type.
func (p parameters) read(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return wrong("query", "cannot be decoded: want name=value pairs joined by &, percent-encoded")
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		set, all := p[name], values[name]
		switch {
		case set == nil && len(p) == 0:
			return wrong(fmt.Sprintf("%.64s", name), "not a parameter: there are none here")
		case set == nil:
			return wrong(fmt.Sprintf("%.64s", name), "not a parameter: want one of "+strings.Join(slices.Sorted(maps.Keys(p)), ", "))
		case len(all) != 1:
			return wrong(name, "given more than once")
		case all[0] == "":
			return wrong(name, "is empty: give a value, or leave it out")
		}
		if err := set(all[0]); err != nil {
			return err
		}
	}
	return nil
}

func text[T ~string](into *T) func(string) error {
	return func(value string) error {
		*into = T(value)
		return nil
	}
}

// only reads a filter that is there or is not.
func only(name string, into *bool) func(string) error {
	return func(value string) error {
		if value != "true" {
			return wrong(name, "want true, or leave it out")
		}
		*into = true
		return nil
	}
}

func pageSize(into *int) func(string) error {
	return func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > ledger.MaxLimit {
			return wrong("limit", fmt.Sprintf("want a whole number from 1 to %d", ledger.MaxLimit))
		}
		*into = n
		return nil
	}
}

// instant reads a time of RFC 3339, or a day, which is its first moment in UTC.
func instant(name string, into *time.Time) func(string) error {
	return func(value string) error {
		for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
			if t, err := time.Parse(layout, value); err == nil && !t.IsZero() {
				*into = t.UTC()
				return nil
			}
		}
		want := "want a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31"
		if strings.Contains(value, " ") {
			want += " (in an address, a + is written %2B)"
		}
		return wrong(name, want)
	}
}

func wrong(field, want string) error { return &ledger.InvalidQueryError{Field: field, Want: want} }
