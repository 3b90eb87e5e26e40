package config

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// text is a value that came from a variable or from a default, and so is read by the type of its field. A value from the
// file has the type that YAML gave it.
type text string

type unit struct {
	name  string
	bytes int64
}

// units are the units of sizes, largest first.
func units() []unit {
	return []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// The errors say what is wanted, and never what was found: that may be a secret in the wrong place.
var (
	errWantText     = errors.New("want text; put numbers and the like into quotes")
	errWantBool     = errors.New("want true or false")
	errWantInt      = errors.New("want a whole number")
	errWantNumber   = errors.New("want a number")
	errWantTime     = errors.New("want a time such as 2026-12-31T00:00:00Z")
	errWantDuration = errors.New("want a duration such as 90s, 5m or 24h")
	errWantSize     = errors.New("want a size such as 8GiB, 512MiB or a number of bytes")
	errWantList     = errors.New("want a list of texts")
	errWantTexts    = errors.New("want a mapping of texts; put numbers and the like into quotes")
	errWantPairs    = errors.New("want key=value, and commas between several, each key once")
)

// setLeaf reads value into a field that is neither a mapping nor a list of mappings.
func setLeaf(field reflect.Value, value any) error {
	switch target := field.Addr().Interface().(type) {
	case *time.Duration:
		d, err := time.ParseDuration(asText(value))
		if err != nil {
			return errWantDuration
		}
		*target = d
	case *Size:
		size, err := parseSize(value)
		if err != nil {
			return err
		}
		*target = size
	case *time.Time:
		at, err := parseTime(value)
		if err != nil {
			return err
		}
		*target = at
	case *[]string:
		list, err := parseList(value)
		if err != nil {
			return err
		}
		*target = list
	case *map[string]string:
		texts, err := parseTexts(value)
		if err != nil {
			return err
		}
		*target = texts
	default:
		return setScalar(field, value)
	}
	return nil
}

func setScalar(field reflect.Value, value any) error {
	switch field.Kind() {
	case reflect.Bool:
		b, ok := value.(bool)
		if t, isText := value.(text); isText {
			b, ok = t == "true", t == "true" || t == "false"
		}
		if !ok {
			return errWantBool
		}
		field.SetBool(b)
	case reflect.Int:
		n, err := parseInt(value)
		if err != nil {
			return errWantInt
		}
		field.SetInt(n)
	case reflect.Float64:
		n, err := parseFloat(value)
		if err != nil {
			return errWantNumber
		}
		field.SetFloat(n)
	case reflect.String:
		switch s := value.(type) {
		case string:
			field.SetString(s)
		case text:
			field.SetString(string(s))
		default:
			return errWantText
		}
	default:
		panic("config: no values of type " + field.Type().String())
	}
	return nil
}

// asText gives the text of a value, and "" for what is none.
func asText(value any) string {
	switch s := value.(type) {
	case string:
		return s
	case text:
		return string(s)
	default:
		return ""
	}
}

func parseInt(value any) (int64, error) {
	switch n := value.(type) {
	case int:
		return int64(n), nil
	case text:
		return strconv.ParseInt(string(n), 10, 64)
	default:
		return 0, errWantInt
	}
}

func parseFloat(value any) (float64, error) {
	switch n := value.(type) {
	case float64:
		return n, nil
	case int:
		return float64(n), nil
	case text:
		return strconv.ParseFloat(string(n), 64)
	default:
		return 0, errWantNumber
	}
}

// parseTime reads what YAML takes for a time of itself, or a text.
func parseTime(value any) (time.Time, error) {
	if at, ok := value.(time.Time); ok {
		return at.UTC(), nil
	}
	at, err := time.Parse(time.RFC3339, asText(value))
	if err != nil {
		return time.Time{}, errWantTime
	}
	return at.UTC(), nil
}

func parseSize(value any) (Size, error) {
	s := asText(value)
	if n, ok := value.(int); ok {
		s = strconv.Itoa(n)
	}
	factor := int64(1)
	for _, u := range units() {
		if number, found := strings.CutSuffix(s, u.name); found {
			s, factor = strings.TrimSpace(number), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/factor {
		return 0, errWantSize
	}
	return Size(n * factor), nil
}

// parseList reads a YAML list, or the entries of a variable between its commas.
func parseList(value any) ([]string, error) {
	list := []string{}
	switch v := value.(type) {
	case text:
		if strings.TrimSpace(string(v)) == "" {
			return list, nil
		}
		for entry := range strings.SplitSeq(string(v), ",") {
			list = append(list, strings.TrimSpace(entry))
		}
	case []any:
		for _, entry := range v {
			s, ok := entry.(string)
			if !ok {
				return nil, errWantList
			}
			list = append(list, s)
		}
	default:
		return nil, errWantList
	}
	return list, nil
}

// parseTexts reads a YAML mapping of texts, or the pairs of a variable between its commas. The result is never nil: a
// mapping without keys is a value too.
func parseTexts(value any) (map[string]string, error) {
	texts := make(map[string]string)
	switch v := value.(type) {
	case text:
		if strings.TrimSpace(string(v)) == "" {
			return texts, nil
		}
		for pair := range strings.SplitSeq(string(v), ",") {
			key, value, found := strings.Cut(pair, "=")
			key = strings.TrimSpace(key)
			if _, twice := texts[key]; twice || !found {
				return nil, errWantPairs
			}
			texts[key] = strings.TrimSpace(value)
		}
	case map[string]any:
		for key, value := range v {
			s, ok := value.(string)
			if !ok {
				return nil, errWantTexts
			}
			texts[key] = s
		}
	default:
		return nil, errWantTexts
	}
	return texts, nil
}
