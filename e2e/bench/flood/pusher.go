package flood

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/harborseal/harborseal/e2e/harness"
)

// pusher pushes manifests into one repository whose blobs are there already: one request each, as the last one of docker push.
// It is safe for concurrent use.
type pusher struct {
	client     *http.Client
	origin     string
	repository string
	token      string
	like       *v1.Manifest
	pushes     atomic.Int64
}

// newPusher pushes a first image, and asks for a token that lasts for half an hour.
func (b *bench) newPusher(ctx context.Context, project string) (*pusher, error) {
	p := &pusher{client: b.client, origin: b.Harbor.URL, repository: project + "/app"}
	img, err := harness.NewImage(false)
	if err != nil {
		return nil, err
	}
	if _, err := b.Harbor.NewDeveloper(b.Site.Developer).Push(ctx, p.repository, "first", img); err != nil {
		return nil, err
	}
	if p.like, err = img.Manifest(); err != nil {
		return nil, fmt.Errorf("making images: %w", err)
	}
	address := fmt.Sprintf("%s/service/token?service=harbor-registry&scope=repository:%s:pull,push", p.origin, p.repository)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking for a token: %w", err)
	}
	req.SetBasicAuth(b.Site.Developer.Name, b.Site.Developer.Secret)
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for a token: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("asking for a token: the answer is %d: %w", resp.StatusCode, err)
	}
	p.token = answer.Token
	return p, nil
}

// push pushes another image under a tag of its own, and gives its digest.
func (p *pusher) push(ctx context.Context) (digest string, err error) {
	tag := "v" + strconv.FormatInt(p.pushes.Add(1), 10)
	manifest := p.like.DeepCopy()
	manifest.Annotations = map[string]string{"com.example.number": tag}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return "", fmt.Errorf("making an image: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/%s", p.origin, p.repository, tag), bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("pushing: %w", err)
	}
	req.Header.Set("Content-Type", string(p.like.MediaType))
	req.Header.Set("Authorization", "Bearer "+p.token)
	resp, err := p.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("pushing: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what there is of it
		return "", fmt.Errorf("pushing to %s: the answer is %d: %s", p.repository, resp.StatusCode, text)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), nil
}
