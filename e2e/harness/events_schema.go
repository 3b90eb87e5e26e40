package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// EventSchema is docs/events.schema.json, as an auditor's own program would use it.
type EventSchema struct {
	any, current *jsonschema.Schema
}

// OpenEventSchema reads the document from this checkout.
func OpenEventSchema(ctx context.Context) (*EventSchema, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "events.schema.json")) //nolint:gosec // a file of this checkout
	if err != nil {
		return nil, fmt.Errorf("reading the schema of events: %w", err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading the schema of events: %w", err)
	}
	const url = "urn:harborseal:events:v1"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(url, document); err != nil {
		return nil, fmt.Errorf("reading the schema of events: %w", err)
	}
	s := &EventSchema{}
	if s.any, err = c.Compile(url); err != nil {
		return nil, fmt.Errorf("compiling the schema of events: %w", err)
	}
	if s.current, err = c.Compile(url + "#/$defs/current"); err != nil {
		return nil, fmt.Errorf("compiling the schema of events: %w", err)
	}
	return s, nil
}

// Check reads what [Ledger.Export] has written, and says how many events there are and what is wrong with them. current says
// that programs of this version alone have written them.
func (s *EventSchema) Check(exported io.Reader, current bool) (events int, err error) {
	schema := s.any
	if current {
		schema = s.current
	}
	var wrong []error
	for lines := json.NewDecoder(exported); ; {
		var line struct {
			Seq   uint64          `json:"seq"`
			Event json.RawMessage `json:"event"`
		}
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			return events, errors.Join(wrong...)
		}
		if err != nil {
			return events, errors.Join(append(wrong, fmt.Errorf("reading the exported ledger: %w", err))...)
		}
		events++
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line.Event))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil && len(wrong) < 10 {
			wrong = append(wrong, fmt.Errorf("event %d, %.500s: %w", line.Seq, line.Event, err))
		}
	}
}
