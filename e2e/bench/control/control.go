// Package control asks the Harbor emulator for what no Harbor has: content by the million.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Control is what the emulator has beside Harbor's API.
type Control struct {
	base   string
	client *http.Client
}

// New makes the control of the emulator at an origin.
func New(origin string) Control {
	return Control{base: origin + "/_emulator/", client: &http.Client{Transport: &http.Transport{}}}
}

// Synthesize makes content, once.
func (c Control) Synthesize(ctx context.Context, cfg harbortest.SyntheticConfig) (made harbortest.Synthetic, err error) {
	return made, c.post(ctx, "synthetic", cfg, &made)
}

// Touch pushes into the content and pulls from it.
func (c Control) Touch(ctx context.Context, cfg harbortest.TouchConfig) (touched harbortest.Touched, err error) {
	return touched, c.post(ctx, "touch", cfg, &touched)
}

// Artifacts gives every synthetic digest. An error of each ends it.
func (c Control) Artifacts(ctx context.Context, each func(harbortest.SyntheticArtifact) error) error {
	body, err := c.do(ctx, http.MethodGet, "synthetic", http.NoBody)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	lines := json.NewDecoder(body)
	for lines.More() {
		var a harbortest.SyntheticArtifact
		if err := lines.Decode(&a); err != nil {
			return fmt.Errorf("listing the synthetic content: %w", err)
		}
		if err := each(a); err != nil {
			return err
		}
	}
	return nil
}

func (c Control) post(ctx context.Context, what string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("asking the emulator for %s: %w", what, err)
	}
	body, err := c.do(ctx, http.MethodPost, what, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("asking the emulator for %s: %w", what, err)
	}
	return nil
}

// do gives the body of an answer 200, which the caller closes.
func (c Control) do(ctx context.Context, method, what string, in io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+what, in)
	if err != nil {
		return nil, fmt.Errorf("asking the emulator for %s: %w", what, err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the emulator for %s: %w", what, err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what there is of it
		_ = resp.Body.Close()
		return nil, fmt.Errorf("asking the emulator for %s: the answer is %d: %s", what, resp.StatusCode, text)
	}
	return resp.Body, nil
}
