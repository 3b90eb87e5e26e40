package checker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// ErrNotFound says that the registry has no such manifest, blob or repository.
var ErrNotFound = errors.New("not found in the registry")

const (
	maxAnswer = 16 << 20
	// tokenLife is well below the 1800 s of a real Harbor and the least that distribution allows.
	tokenLife = 50 * time.Second
	// userAgent contains "cosign", because Harbor's pull policy lets nobody else look at what is not signed.
	userAgent = "harborseal-checker cosign"
)

// Access is how the registry is reached.
type Access struct {
	// URL is the origin: scheme, host and port.
	URL string
	// Username and Password are those of an account that may pull; with Harbor's pull policy also push. Empty for a
	// registry that asks for none.
	Username, Password string
	// Transport carries the requests; nil for one that uses no proxy.
	Transport http.RoundTripper
}

// Registry reads manifests, blobs, tags and referrers. It is safe for concurrent use.
type Registry struct {
	access Access
	client *http.Client

	mu     sync.Mutex
	tokens map[string]token // by repository; guarded by mu
}

type token struct {
	value   string
	expires time.Time
}

// NewRegistry makes a reader. It sends nothing.
func NewRegistry(a Access) *Registry {
	a.URL = strings.TrimSuffix(a.URL, "/")
	if a.Transport == nil {
		a.Transport = &http.Transport{}
	}
	return &Registry{
		access: a,
		client: &http.Client{Transport: a.Transport, Timeout: 30 * time.Second},
		tokens: make(map[string]token),
	}
}

// Manifest is a manifest as the registry gave it.
type Manifest struct {
	Digest    string
	MediaType string
	Content   []byte
}

// Descriptor names a manifest that refers to another one.
type Descriptor struct {
	MediaType    string `json:"mediaType"`
	Digest       string `json:"digest"`
	ArtifactType string `json:"artifactType"`
}

// Manifest reads a manifest by tag or digest, and computes its digest. A manifest whose content has another digest than
// the one asked for is an error.
func (r *Registry) Manifest(ctx context.Context, repository, reference string) (Manifest, error) {
	answer, err := r.get(ctx, repository, "manifests/"+reference, manifestTypes())
	if err != nil {
		return Manifest{}, fmt.Errorf("reading manifest %s of %s: %w", reference, repository, err)
	}
	m := Manifest{Digest: sum(answer.body), MediaType: answer.header.Get("Content-Type"), Content: answer.body}
	if strings.HasPrefix(reference, "sha256:") && m.Digest != reference {
		return Manifest{}, fmt.Errorf("reading manifest %s of %s: its content hashes to %s", reference, repository, m.Digest)
	}
	return m, nil
}

// Blob reads a blob without comparing its digest.
func (r *Registry) Blob(ctx context.Context, repository, digest string) ([]byte, error) {
	answer, err := r.get(ctx, repository, "blobs/"+digest, "")
	if err != nil {
		return nil, fmt.Errorf("reading blob %s of %s: %w", digest, repository, err)
	}
	return answer.body, nil
}

// Tags lists all tags; none if there is no such repository.
func (r *Registry) Tags(ctx context.Context, repository string) ([]string, error) {
	var all []string
	for path := "tags/list?n=100"; path != ""; {
		answer, err := r.get(ctx, repository, path, "application/json")
		if errors.Is(err, ErrNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the tags of %s: %w", repository, err)
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(answer.body, &page); err != nil {
			return nil, fmt.Errorf("listing the tags of %s: %w", repository, err)
		}
		all = append(all, page.Tags...)
		path = nextPage(answer.header.Get("Link"))
	}
	return all, nil
}

// Referrers lists the manifests that name digest as their subject; none where the registry knows no referrers.
func (r *Registry) Referrers(ctx context.Context, repository, digest string) ([]Descriptor, error) {
	answer, err := r.get(ctx, repository, "referrers/"+digest, "application/vnd.oci.image.index.v1+json")
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the referrers of %s in %s: %w", digest, repository, err)
	}
	var index struct {
		Manifests []Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(answer.body, &index); err != nil {
		return nil, fmt.Errorf("listing the referrers of %s in %s: %w", digest, repository, err)
	}
	return index.Manifests, nil
}

type answer struct {
	header http.Header
	body   []byte
}

// get reads below /v2/<repository>/, with a token where the registry asks for one.
func (r *Registry) get(ctx context.Context, repository, path, accept string) (answer, error) {
	target := r.access.URL + "/v2/" + repository + "/" + path
	status, got, err := r.do(ctx, target, accept, r.known(repository))
	if err == nil && status == http.StatusUnauthorized {
		var fresh string
		if fresh, err = r.authorize(ctx, repository, got.header.Get("WWW-Authenticate")); err == nil {
			status, got, err = r.do(ctx, target, accept, fresh)
		}
	}
	switch {
	case err != nil:
		return answer{}, err
	case status == http.StatusNotFound:
		return answer{}, ErrNotFound
	case status != http.StatusOK:
		return answer{}, fmt.Errorf("the registry answered %d: %.200s", status, got.body)
	default:
		return got, nil
	}
}

func (r *Registry) do(ctx context.Context, target, accept, authorization string) (int, answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return 0, answer{}, err
	}
	req.Header.Set("User-Agent", userAgent)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // Everything was read by then.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, answer{}, fmt.Errorf("reading the answer: %w", err)
	case len(body) > maxAnswer:
		return 0, answer{}, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return resp.StatusCode, answer{header: resp.Header, body: body}, nil
}

// known gives the token of a repository while it lasts.
func (r *Registry) known(repository string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tokens[repository]; time.Now().Before(t.expires) {
		return t.value
	}
	return ""
}

// authorize follows the challenge of a refused request.
//
// SPEC: distribution, token authentication: the realm is asked for a token for a service and a scope.
func (r *Registry) authorize(ctx context.Context, repository, challenge string) (string, error) {
	scheme, rest, _ := strings.Cut(challenge, " ")
	if !strings.EqualFold(scheme, "Bearer") || r.access.Username == "" {
		return "", fmt.Errorf("the registry wants authentication %q, and there are no credentials for it", scheme)
	}
	params := parameters(rest)
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" {
		return "", errors.New("the registry names no realm for tokens")
	}
	query := realm.Query()
	query.Set("service", params["service"])
	// Push belongs to it: Harbor's pull policy shows unsigned manifests only to those who may sign them.
	query.Set("scope", "repository:"+repository+":pull,push")
	realm.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), http.NoBody)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(r.access.Username, r.access.Password)
	status, got, err := r.do(ctx, realm.String(), "", req.Header.Get("Authorization"))
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	var issued struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(got.body, &issued); err != nil || status != http.StatusOK {
		return "", fmt.Errorf("asking for a token: the answer %d is no token", status)
	}
	value := "Bearer " + issued.Token
	if issued.Token == "" {
		value = "Bearer " + issued.AccessToken
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[repository] = token{value: value, expires: time.Now().Add(tokenLife)}
	return value, nil
}

// parameters reads key="value", key="value" of a challenge.
func parameters(s string) map[string]string {
	all := make(map[string]string)
	for s != "" {
		var key, value string
		key, s, _ = strings.Cut(s, "=")
		if rest, quoted := strings.CutPrefix(s, `"`); quoted {
			value, s, _ = strings.Cut(rest, `"`)
			_, s, _ = strings.Cut(s, ",")
		} else {
			value, s, _ = strings.Cut(s, ",")
		}
		all[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
	}
	return all
}

// nextPage gives the path below the repository that a Link header names as the next page of tags.
func nextPage(link string) string {
	target, rel, _ := strings.Cut(link, ";")
	if !strings.Contains(rel, `rel="next"`) {
		return ""
	}
	u, err := url.Parse(strings.Trim(strings.TrimSpace(target), "<>"))
	if err != nil {
		return ""
	}
	return "tags/list?" + u.RawQuery
}

func manifestTypes() string {
	return strings.Join([]string{
		"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
	}, ", ")
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(digest[:])
}
