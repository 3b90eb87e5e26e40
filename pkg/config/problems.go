package config

import (
	"errors"
	"fmt"
	"strings"
)

// problems collects errors with their paths. The first one of a path hides those of the same path and below it: a value
// that could not be read is not reported as missing as well.
type problems struct {
	errs     []error
	reported map[string]bool
}

func (p *problems) add(path, format string, args ...any) {
	for at := path; at != ""; at = parent(at) {
		if p.reported[at] {
			return
		}
	}
	if p.reported == nil {
		p.reported = make(map[string]bool)
	}
	p.reported[path] = true
	p.errs = append(p.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

// err is nil or all problems, one on each line.
func (p *problems) err() error { return errors.Join(p.errs...) }

// parent gives the path above: "keys" for "keys[0]", "keys[0]" for "keys[0].file", "" for "keys".
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
