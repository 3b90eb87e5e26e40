package compare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"
)

const (
	// pushers is how many images are pushed at once.
	pushers      = 16
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// images makes a new repository with so many images, which differ in one annotation, and gives its name and their digests.
func (s *stage) images(ctx context.Context, n int) (repository string, digests []string, err error) {
	s.repositories++
	repository = fmt.Sprintf("%s/r%d", s.project, s.repositories)
	client, err := s.authorized(ctx, repository)
	if err != nil {
		return "", nil, err
	}
	p := pusher{url: s.url + "/v2/" + repository, client: client}
	layer := []byte("a layer")
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf(layer))
	for _, blob := range [][]byte{layer, config} {
		if err := p.blob(ctx, blob); err != nil {
			return "", nil, err
		}
	}
	digests = make([]string, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pushers)
	for i := range n {
		g.Go(func() error {
			m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":%d,"digest":%q},`+
				`"layers":[{"mediaType":%q,"size":%d,"digest":%q}],"annotations":{"number":"%d"}}`,
				manifestType, configType, len(config), digestOf(config), layerType, len(layer), digestOf(layer), i)
			digests[i] = digestOf(m)
			_, err := p.send(ctx, http.MethodPut, p.url+"/manifests/"+digests[i], manifestType, m, http.StatusCreated)
			return err
		})
	}
	return repository, digests, g.Wait()
}

// authorized gives a client whose requests carry what the registry asks for.
func (s *stage) authorized(ctx context.Context, repository string) (*http.Client, error) {
	var options []name.Option
	if strings.HasPrefix(s.url, "http://") {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(s.host+"/"+repository, options...)
	if err != nil {
		return nil, fmt.Errorf("naming a repository: %w", err)
	}
	tripper, err := transport.NewWithContext(ctx, repo.Registry, &authn.Basic{Username: s.pusher, Password: s.pusherSecret},
		s.client.Transport, []string{repo.Scope(transport.PushScope)})
	if err != nil {
		return nil, fmt.Errorf("getting a token: %w", err)
	}
	return &http.Client{Transport: tripper}, nil
}

// pusher writes into one repository.
type pusher struct {
	url    string
	client *http.Client
}

func (p pusher) blob(ctx context.Context, content []byte) error {
	header, err := p.send(ctx, http.MethodPost, p.url+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	base, err := url.Parse(p.url)
	if err != nil {
		return fmt.Errorf("pushing a blob: %w", err)
	}
	location, err := base.Parse(header.Get("Location"))
	if err != nil {
		return fmt.Errorf("pushing a blob: %w", err)
	}
	query := location.Query()
	query.Set("digest", digestOf(content))
	location.RawQuery = query.Encode()
	_, err = p.send(ctx, http.MethodPut, location.String(), "application/octet-stream", content, http.StatusCreated)
	return err
}

func (p pusher) send(ctx context.Context, method, target, contentType string, body []byte, want int) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("pushing an image: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("pushing an image: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("pushing an image: %w", err)
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("pushing an image: %s %s: the answer is %d: %.200s", method, req.URL.Path, resp.StatusCode, answer)
	}
	return resp.Header, nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
