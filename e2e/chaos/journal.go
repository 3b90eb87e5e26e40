package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/harborseal/harborseal/e2e/checker"
)

// journal is what was really done: written when it is done, so that a run that breaks off leaves it. It is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	file *os.File       // guarded by mu
	all  bytes.Buffer   // what is in the file; guarded by mu
	errs []error        // guarded by mu
	of   map[string]int // how many of what there are; guarded by mu
}

func newJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in the folder of this run
	if err != nil {
		return nil, fmt.Errorf("writing the journal: %w", err)
	}
	return &journal{file: f, of: make(map[string]int)}, nil
}

// write appends a step. That it cannot be written comes to light when the journal is read.
func (j *journal) write(s checker.Step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	line, err := json.Marshal(s)
	if err == nil {
		line = append(line, '\n')
		j.all.Write(line)
		_, err = j.file.Write(line)
	}
	if err != nil {
		j.errs = append(j.errs, fmt.Errorf("writing the journal: %w", err))
	}
	if s.Accepted || s.Kind == checker.StepFault {
		j.of[string(s.Kind)]++
	}
}

// count is how many steps of a kind were acknowledged.
func (j *journal) count(kind checker.StepKind) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.of[string(kind)]
}

// steps reads what was written, as the checker reads it.
func (j *journal) steps() ([]checker.Step, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	steps, err := checker.ReadJournal(bytes.NewReader(j.all.Bytes()))
	return steps, errors.Join(append(j.errs, err)...)
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}
