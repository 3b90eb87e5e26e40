package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// strict reads a JSON object into the struct that into points to. Package encoding/json alone takes names in any case, and
// names twice, and passes over null: a policy must not mean something else than what its author wrote. The error is a
// [*refusal] that names the path of the field.
//
// It reads types made of structs, maps, slices, times, texts, numbers and truth values. How deep it goes is bounded by them.
func strict(raw []byte, into any) error {
	r := reader{json.NewDecoder(bytes.NewReader(raw))}
	r.tokens.UseNumber()
	if err := r.value(reflect.TypeOf(into).Elem(), ""); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return malformed("body", "want one JSON object and nothing behind it")
	}
	return nil
}

type reader struct{ tokens *json.Decoder }

// value reads one value that should have the type. path is where it stands; empty for the whole.
func (r reader) value(t reflect.Type, path string) error {
	token, err := r.tokens.Token()
	if err != nil {
		return malformed("body", fmt.Sprintf("it is no JSON, at byte %d", r.tokens.InputOffset()))
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		s, ok := token.(string)
		if _, err := time.Parse(time.RFC3339, s); !ok || err != nil {
			return mistyped(path, "a time such as 2026-12-31T00:00:00Z")
		}
		return nil
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		if token != json.Delim('{') {
			return mistyped(path, "a JSON object")
		}
		return r.object(t, path)
	case t.Kind() == reflect.Slice:
		if token != json.Delim('[') {
			return mistyped(path, "a list")
		}
		for i := 0; r.tokens.More(); i++ {
			if err := r.value(t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return r.end()
	default:
		return scalar(token, t, path)
	}
}

// object reads the rest of an object.
func (r reader) object(t reflect.Type, path string) error {
	seen := map[string]bool{}
	for r.tokens.More() {
		token, err := r.tokens.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return malformed("body", fmt.Sprintf("it is no JSON, at byte %d", r.tokens.InputOffset()))
		}
		at := strings.TrimPrefix(path+"."+clipped(name), ".")
		of, known := member(t, name)
		switch {
		case !known:
			return malformed(at, "there is no such field")
		case seen[name]:
			return malformed(at, "given more than once")
		}
		seen[name] = true
		if err := r.value(of, at); err != nil {
			return err
		}
	}
	return r.end()
}

// end reads the bracket that closes a list or an object.
func (r reader) end() error {
	if _, err := r.tokens.Token(); err != nil {
		return malformed("body", fmt.Sprintf("it is no JSON, at byte %d", r.tokens.InputOffset()))
	}
	return nil
}

// member gives the type of what stands under a name.
func member(t reflect.Type, name string) (reflect.Type, bool) {
	if t.Kind() == reflect.Map {
		return t.Elem(), true
	}
	for _, f := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && tag == name && name != "" {
			return f.Type, true
		}
	}
	return nil, false
}

func scalar(token json.Token, t reflect.Type, path string) error {
	number, isNumber := token.(json.Number)
	switch t.Kind() {
	case reflect.String:
		if _, ok := token.(string); !ok {
			return mistyped(path, "a text")
		}
	case reflect.Bool:
		if _, ok := token.(bool); !ok {
			return mistyped(path, "true or false")
		}
	case reflect.Int:
		if _, err := strconv.Atoi(number.String()); !isNumber || err != nil {
			return mistyped(path, "a whole number")
		}
	case reflect.Float64:
		if _, err := number.Float64(); !isNumber || err != nil {
			return mistyped(path, "a number")
		}
	default:
		return mistyped(path, "something that this program can read")
	}
	return nil
}

func mistyped(path, want string) error {
	if path == "" {
		path = "body"
	}
	return malformed(path, "want "+want+", or leave it out")
}

// clipped keeps answers short, and free of what could not be shown.
func clipped(name string) string {
	return strings.ToValidUTF8(fmt.Sprintf("%.64s", name), "")
}
