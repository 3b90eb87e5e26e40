package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"

	"github.com/knadh/koanf/v2"
)

// maxFile is the largest configuration that is read, in bytes.
const maxFile = 1 << 20

// LoadReceiver reads the configuration of cmd/receiver from the YAML file at path and from environ, which has the form of
// os.Environ. Paths in the result are absolute. Without a path, the variables are all there is, and relative paths stay as they
// are. The error names every problem that was found, one on each line.
func LoadReceiver(path string, environ []string) (*Receiver, error) {
	c := &Receiver{}
	if err := load(path, environ, reflect.ValueOf(c).Elem(), c.complete); err != nil {
		return nil, err
	}
	return c, nil
}

// LoadSigner is [LoadReceiver] for cmd/signer.
func LoadSigner(path string, environ []string) (*Signer, error) {
	c := &Signer{}
	if err := load(path, environ, reflect.ValueOf(c).Elem(), c.complete); err != nil {
		return nil, err
	}
	return c, nil
}

// load fills target. complete sets the defaults that depend on other keys, and checks the whole.
func load(path string, environ []string, target reflect.Value, complete func(given map[string]any, p *problems)) error {
	d := decoder{}
	if path != "" {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("finding the folder of the configuration %s: %w", path, err)
		}
		d.dir = filepath.Dir(absolute)
	}
	variables := environment{schema: target.Type(), environ: environ, problems: &d.problems}
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file(path), parser{}); err != nil {
			return fmt.Errorf("reading the configuration %s: %w", path, err)
		}
	}
	if err := k.Load(variables, nil, koanf.WithMergeFunc(variables.merge)); err != nil {
		return fmt.Errorf("reading the variables %s…: %w", envPrefix, err)
	}
	given := k.Raw()
	d.mapping("", given, target)
	complete(given, &d.problems)
	err := d.problems.err()
	switch {
	case err == nil:
		return nil
	case path == "":
		return fmt.Errorf("configuration, from variables alone:\n%w", err)
	default:
		return fmt.Errorf("configuration %s:\n%w", path, err)
	}
}

// file is a koanf provider.
type file string

// ReadBytes implements koanf.Provider.
func (f file) ReadBytes() ([]byte, error) {
	r, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	return bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), nil
}

// Read implements koanf.Provider.
func (file) Read() (map[string]any, error) { return nil, errors.New("a file needs a parser") }
