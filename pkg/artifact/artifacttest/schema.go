// Package artifacttest checks in tests that events are as docs/events.schema.json says.
//
// It reads the document from the working tree in which the tests run, and compiles it once.
package artifacttest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// schemaURL is the name that the document gives itself.
const schemaURL = "urn:harborseal:events:v1"

// Schema is the document. It is safe for concurrent use, also where the library is not.
type Schema struct {
	mu      sync.Mutex
	any     *jsonschema.Schema // guarded by mu
	current *jsonschema.Schema // guarded by mu
	// known are the members that the document names; it never changes.
	known map[string]any
}

// Open reads the document. The test fails where it cannot.
func Open(tb testing.TB) *Schema {
	tb.Helper()
	s, err := opened()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// opened is read once for all tests of a package: fakes check each event that they take.
var opened = sync.OnceValues(open) //nolint:gochecknoglobals // it never changes, and is for tests alone

// CheckEvent is [Schema.CheckCurrent] of an event that a program hands to the queue.
func CheckEvent(e artifact.Event) error {
	s, err := opened()
	if err != nil {
		return err
	}
	data, err := artifact.EncodeEvent(e)
	if err != nil {
		return err
	}
	return s.CheckCurrent(data)
}

func open() (*Schema, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "events.schema.json")) //nolint:gosec // a file of the working tree
	if err != nil {
		return nil, fmt.Errorf("reading the schema of events: %w", err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading the schema of events: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(schemaURL, document); err != nil {
		return nil, fmt.Errorf("reading the schema of events: %w", err)
	}
	s := &Schema{}
	if s.any, err = c.Compile(schemaURL); err != nil {
		return nil, fmt.Errorf("compiling the schema of events: %w", err)
	}
	if s.current, err = c.Compile(schemaURL + "#/$defs/current"); err != nil {
		return nil, fmt.Errorf("compiling the schema of events: %w", err)
	}
	if all, ok := document.(map[string]any); ok {
		s.known, _ = all["properties"].(map[string]any)
	}
	return s, nil
}

// Root is the folder of the module in which the tests run.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("looking for the module: no go.mod above the working directory")
		}
		dir = parent
	}
}

// Check says what is wrong with an event as a program of any age may have written it.
func (s *Schema) Check(data []byte) error {
	_, err := s.check(data, func() *jsonschema.Schema { return s.any })
	return err
}

// CheckCurrent says what is wrong with an event as this version writes it: nothing is missing, and nothing is there of which the
// document says nothing.
func (s *Schema) CheckCurrent(data []byte) error {
	value, err := s.check(data, func() *jsonschema.Schema { return s.current })
	if err != nil {
		return err
	}
	members, _ := value.(map[string]any)
	for name := range members {
		if _, known := s.known[name]; !known {
			return fmt.Errorf("the schema of events does not name the member %q", name)
		}
	}
	return nil
}

func (s *Schema) check(data []byte, schema func() *jsonschema.Schema) (any, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading an event: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := schema().Validate(value); err != nil {
		return nil, fmt.Errorf("the schema of events refuses %.500s: %w", data, err)
	}
	return value, nil
}
