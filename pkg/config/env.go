package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const (
	envPrefix = "HARBORSEAL_"
	// maxEntries bounds the number in a variable's name, and so what a typing error can make of a list.
	maxEntries = 100
)

// entries are overrides of single entries of a list, by their number.
type entries map[int]map[string]any

// environment is a koanf provider: the variables, nested as the file is, with [entries] in the place of lists.
type environment struct {
	schema  reflect.Type
	environ []string
	// problems belongs to the load that made this provider.
	problems *problems
}

// ReadBytes implements koanf.Provider.
func (environment) ReadBytes() ([]byte, error) {
	return nil, errors.New("variables are no file")
}

// Read implements koanf.Provider.
func (e environment) Read() (map[string]any, error) {
	tree := make(map[string]any)
	for _, variable := range slices.Sorted(slices.Values(e.environ)) {
		name, value, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if ours && !place(e.schema, tree, rest, text(value)) && !foreign(rest) {
			e.problems.add(name, "unknown variable: no key is called so")
		}
	}
	return tree, nil
}

// place puts the value where the rest of its variable's name says; false if no key is called so. A key may contain what
// another key consists of ("max" and "max_age"), so every key that fits is tried.
func place(schema reflect.Type, tree map[string]any, name string, value text) bool {
	for f := range fields(schema) {
		rest, fits := strings.CutPrefix(name, strings.ToUpper(f.key))
		if !fits {
			continue
		}
		if rest == "" && !f.mapping() && !f.list() {
			tree[f.key] = value
			return true
		}
		below, fits := strings.CutPrefix(rest, "_")
		if !fits {
			continue
		}
		switch {
		case f.mapping():
			sub, exists := tree[f.key].(map[string]any)
			if !exists {
				sub = make(map[string]any)
			}
			if place(f.typ, sub, below, value) {
				tree[f.key] = sub
				return true
			}
		case f.list():
			if placeEntry(f, tree, below, value) {
				return true
			}
		}
	}
	return false
}

func placeEntry(f field, tree map[string]any, name string, value text) bool {
	number, below, _ := strings.Cut(name, "_")
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= maxEntries || strconv.Itoa(i) != number {
		return false
	}
	list, exists := tree[f.key].(entries)
	if !exists {
		list = make(entries)
	}
	entry := list[i]
	if entry == nil {
		entry = make(map[string]any)
	}
	if !place(f.typ.Elem(), entry, below, value) {
		return false
	}
	list[i] = entry
	tree[f.key] = list
	return true
}

// merge lays the variables over the file. Where the file has something of another shape it stays, and is reported when
// it is read.
func (e environment) merge(variables, file map[string]any) error {
	e.overlay("", variables, file)
	return nil
}

func (e environment) overlay(path string, variables, file map[string]any) {
	for key, value := range variables {
		at := join(path, key)
		switch v := value.(type) {
		case map[string]any:
			sub, isMapping := file[key].(map[string]any)
			if file[key] == nil {
				sub, isMapping = make(map[string]any), true
				file[key] = sub
			}
			if isMapping {
				e.overlay(at, v, sub)
			}
		case entries:
			if list, isList := file[key].([]any); isList || file[key] == nil {
				file[key] = e.overlayEntries(at, v, list)
			}
		default:
			file[key] = v
		}
	}
}

func (e environment) overlayEntries(path string, variables entries, list []any) []any {
	for i := range maxEntries {
		changes, exists := variables[i]
		if !exists {
			continue
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case i > len(list):
			e.problems.add(at, "a variable names this entry, but the list ends before it")
		case i == len(list):
			list = append(list, changes)
		default:
			if entry, isMapping := list[i].(map[string]any); isMapping {
				e.overlay(at, changes, entry)
			}
		}
	}
	return list
}

// foreign says whether a variable is made by somebody else although its name begins with ours: the test builds'
// failpoints, and what Kubernetes tells every container about a service called "harborseal" or "harborseal-…".
func foreign(name string) bool {
	if name == "FAILPOINT" || name == "FAILPOINT_ONCE" || name == "CLOCK_FILE" {
		return true
	}
	name = "_" + name
	for _, suffix := range []string{"_SERVICE_HOST", "_SERVICE_PORT", "_PORT"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	if strings.Contains(name, "_SERVICE_PORT_") {
		return true
	}
	_, after, found := strings.Cut(name, "_PORT_")
	number, after, _ := strings.Cut(after, "_")
	protocol, _, _ := strings.Cut(after, "_")
	_, err := strconv.ParseUint(number, 10, 16)
	return found && err == nil && slices.Contains([]string{"TCP", "UDP", "SCTP"}, protocol)
}
