package config

import (
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// The options of a key's tag.
const (
	optionFile = "file"
	optionPath = "path"
)

// field is one key of the schema.
type field struct {
	key        string
	index      []int // of the struct field, from the struct that the walk began with
	typ        reflect.Type
	option     string // optionFile, optionPath or ""
	fallback   string
	hasDefault bool
}

// mapping says whether the field holds keys of its own.
func (f field) mapping() bool {
	return f.typ.Kind() == reflect.Struct && f.typ != reflect.TypeFor[time.Time]()
}

// list says whether the field holds a list of mappings.
func (f field) list() bool {
	return f.typ.Kind() == reflect.Slice && f.typ.Elem().Kind() == reflect.Struct
}

// fields gives the keys of a struct, in its order; those of an embedded struct count as its own.
func fields(t reflect.Type) iter.Seq[field] {
	return func(yield func(field) bool) {
		for _, sf := range reflect.VisibleFields(t) {
			tag, tagged := sf.Tag.Lookup("key")
			if !tagged {
				continue
			}
			key, option, _ := strings.Cut(tag, ",")
			fallback, hasDefault := sf.Tag.Lookup("default")
			if !yield(field{key: key, index: sf.Index, typ: sf.Type, option: option, fallback: fallback, hasDefault: hasDefault}) {
				return
			}
		}
	}
}

// decoder fills structs from what koanf merged.
type decoder struct {
	// dir is what relative paths are relative to: an absolute path, or "" for wherever the program runs.
	dir      string
	problems problems
}

// mapping fills target, a struct, from raw, which may be nil: then every key has its default.
func (d *decoder) mapping(path string, raw map[string]any, target reflect.Value) {
	known := make(map[string]bool)
	for f := range fields(target.Type()) {
		known[f.key] = true
		at, value := join(path, f.key), raw[f.key]
		switch dst := target.FieldByIndex(f.index); {
		case f.mapping():
			d.mapping(at, d.asMapping(at, value), dst)
		case f.list():
			d.list(at, value, dst)
		default:
			d.leaf(at, f, value, dst)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if !known[key] {
			d.problems.add(join(path, key), "unknown key%s", moved(target.Type(), join(path, key)))
		}
	}
}

// moved says what has become of keys that older versions had.
func moved(schema reflect.Type, path string) string {
	switch {
	case schema == reflect.TypeFor[Receiver]() && path == "projects":
		return ": write policies: [{projects: [...], backfill: all}]"
	case schema == reflect.TypeFor[Signer]() && (path == "projects" || path == "policies"):
		return ": policies stand in the receiver's configuration, or are set through its API"
	case schema == reflect.TypeFor[Sweep]() && path == "sweep.interval":
		return ": it is sweep.full now, and sweep.incremental for the newest pushes"
	default:
		return ""
	}
}

func (d *decoder) asMapping(path string, value any) map[string]any {
	mapping, ok := value.(map[string]any)
	if !ok && value != nil {
		d.problems.add(path, "want a mapping of keys")
	}
	return mapping
}

func (d *decoder) list(path string, value any, target reflect.Value) {
	entries, ok := value.([]any)
	if !ok && value != nil {
		d.problems.add(path, "want a list of mappings")
		return
	}
	list := reflect.MakeSlice(target.Type(), len(entries), len(entries))
	for i, entry := range entries {
		at := fmt.Sprintf("%s[%d]", path, i)
		mapping, ok := entry.(map[string]any)
		if !ok {
			d.problems.add(at, "want a mapping of keys")
			continue
		}
		d.mapping(at, mapping, list.Index(i))
	}
	if len(entries) > 0 {
		target.Set(list)
	}
}

func (d *decoder) leaf(path string, f field, value any, target reflect.Value) {
	if value == nil {
		if !f.hasDefault {
			return
		}
		value = text(f.fallback)
	}
	if err := setLeaf(target, value); err != nil {
		d.problems.add(path, "%s", err)
		return
	}
	if f.option != optionFile && f.option != optionPath {
		return
	}
	switch v := target.Addr().Interface().(type) {
	case *string:
		*v = d.resolve(*v)
	case *[]string:
		for i := range *v {
			(*v)[i] = d.resolve((*v)[i])
		}
	}
}

func (d *decoder) resolve(path string) string {
	if strings.TrimSpace(path) == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
