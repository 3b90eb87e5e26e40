package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parser reads YAML for koanf. Its errors, unlike the library's, never repeat a value: somebody may have put a secret
// there, or named the wrong file.
type parser struct{}

// Unmarshal implements koanf.Parser.
func (parser) Unmarshal(content []byte) (map[string]any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return map[string]any{}, nil
	case err != nil:
		return nil, syntaxError(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one YAML document; there is something after it")
	}
	if top := document.Content[0]; top.Kind != yaml.MappingNode && top.Tag != "!!null" {
		return nil, errors.New("want a mapping of keys at the top")
	}
	tree := make(map[string]any)
	if err := document.Decode(&tree); err != nil {
		return nil, valueErrors(err)
	}
	if tree == nil {
		tree = make(map[string]any)
	}
	return tree, nil
}

// Marshal implements koanf.Parser.
func (parser) Marshal(map[string]any) ([]byte, error) {
	return nil, errors.New("configuration is not written")
}

// syntaxError keeps where the grammar broke, and how. Such sentences repeat nothing but an anchor's name, between quotes;
// the punctuation that the grammar wants stands between quotes as well.
func syntaxError(err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	wanted := regexp.MustCompile(`'[^\w'"]'`)
	if strings.ContainsAny(wanted.ReplaceAllString(message, ""), `'"`) {
		return unreadable(message)
	}
	return errors.New(message)
}

// valueErrors keeps which keys stand twice; every other sentence may repeat a value.
func valueErrors(err error) error {
	messages := []string{err.Error()}
	if typeError, ok := errors.AsType[*yaml.TypeError](err); ok {
		messages = typeError.Errors
	}
	duplicate := regexp.MustCompile(`^line \d+: mapping key "[a-z0-9_]+" already defined at line \d+$`)
	errs := make([]error, 0, len(messages))
	for _, message := range messages {
		if duplicate.MatchString(message) {
			errs = append(errs, errors.New(message))
		} else {
			errs = append(errs, unreadable(message))
		}
	}
	return errors.Join(errs...)
}

func unreadable(message string) error {
	if line := regexp.MustCompile(`line \d+`).FindString(message); line != "" {
		return fmt.Errorf("%s: cannot be read", line)
	}
	return errors.New("cannot be read")
}
