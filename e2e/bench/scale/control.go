package scale

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// control is what the emulator has beside Harbor's API.
type control struct {
	base   string
	client *http.Client
}

func newControl(origin string) control {
	return control{base: origin + "/_emulator/", client: &http.Client{Transport: &http.Transport{}}}
}

func (c control) synthesize(ctx context.Context, cfg harbortest.SyntheticConfig) (made harbortest.Synthetic, err error) {
	return made, c.post(ctx, "synthetic", cfg, &made)
}

func (c control) touch(ctx context.Context, cfg harbortest.TouchConfig) (touched harbortest.Touched, err error) {
	return touched, c.post(ctx, "touch", cfg, &touched)
}

// artifacts gives every synthetic digest. An error of each ends it.
func (c control) artifacts(ctx context.Context, each func(harbortest.SyntheticArtifact) error) error {
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

func (c control) post(ctx context.Context, what string, in, out any) error {
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
func (c control) do(ctx context.Context, method, what string, in io.Reader) (io.ReadCloser, error) {
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
