package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
)

// Credentials are what a caller of the receiver's API brings: an account of Harbor, or a token; neither for a stranger.
type Credentials struct {
	Name, Secret string
	Token        string
}

// Admin are the credentials of Harbor's administrator.
func (h *Harbor) Admin() Credentials { return Credentials{Name: h.Username, Secret: h.Password} }

// Answer is what the receiver's API answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Decode reads the body.
func (a Answer) Decode(into any) error {
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("reading the answer %.300q: %w", a.Body, err)
	}
	return nil
}

// Call asks the receiver's API, such as PUT /api/v1/projects/demo. body and header may be nil; a status is no error.
func (s *System) Call(ctx context.Context, who Credentials, method, path string, body any, header http.Header) (Answer, error) {
	var reader io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return Answer{}, fmt.Errorf("asking the receiver: %w", err)
		}
		reader = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, reader)
	if err != nil {
		return Answer{}, fmt.Errorf("asking the receiver: %w", err)
	}
	maps.Copy(req.Header, header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case who.Token != "":
		req.Header.Set("Authorization", "Bearer "+who.Token)
	case who.Name != "":
		req.SetBasicAuth(who.Name, who.Secret)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("asking the receiver: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("asking the receiver: %s %s: %w", method, path, err)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: raw}, nil
}
