package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// send makes one request and reads its answer to the end.
func (l *loop) send(ctx context.Context, r *repository, method, target, contentType string, body []byte, want int) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("User-Agent", "cosign/bare")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	} else {
		req.Header.Set("Accept", manifestType)
	}
	if r.authorization != "" {
		req.Header.Set("Authorization", r.authorization)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("sending a request: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("reading an answer: %w", err)
	}
	if resp.StatusCode != want {
		return nil, nil, fmt.Errorf("%s %s: the answer is %d, want %d: %.200s", method, req.URL.Path, resp.StatusCode, want, answer)
	}
	return answer, resp.Header, nil
}

// authorize gives the Authorization header for a repository, empty where the registry wants none.
func (l *loop) authorize(ctx context.Context, name string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/v2/", nil)
	if err != nil {
		return "", fmt.Errorf("asking how to authenticate: %w", err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking how to authenticate: %w", err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode == http.StatusOK {
		return "", err
	}
	challenge := resp.Header.Get("Www-Authenticate")
	query := url.Values{"service": {parameter(challenge, "service")}, "scope": {"repository:" + name + ":pull,push"}}
	req, err = http.NewRequestWithContext(ctx, http.MethodGet, parameter(challenge, "realm")+"?"+query.Encode(), nil)
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	req.SetBasicAuth(l.username, l.secret)
	if resp, err = l.client.Do(req); err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("asking for a token: the answer is %d: %w", resp.StatusCode, err)
	}
	return "Bearer " + answer.Token, nil
}

// parameter finds name="value" in a challenge.
func parameter(challenge, name string) string {
	_, rest, _ := strings.Cut(challenge, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
