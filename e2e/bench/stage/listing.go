package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	return nil
}

// split gives the project of a repository, and its name there.
func split(repository string) (project, name string) {
	project, name, _ = strings.Cut(repository, "/")
	return project, name
}

// Count asks Harbor itself how many digests a project has, and how many of them nothing has signed.
func (s *Stage) Count(ctx context.Context, project string) (digests, unsigned int, err error) {
	const perPage = 100
	seen := map[string]bool{}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for page := 1; ; page++ {
		url := fmt.Sprintf("%s/api/v2.0/projects/%s/artifacts?q=base=*&with_tag=false&with_accessory=true&page_size=%d&page=%d",
			s.Harbor.URL, project, perPage, page)
		some, err := s.list(ctx, client, url)
		if err != nil {
			return 0, 0, err
		}
		for _, a := range some {
			seen[a.Repository+"@"+a.Digest] = seen[a.Repository+"@"+a.Digest] || a.signed()
		}
		if len(some) < perPage {
			break
		}
	}
	for _, signed := range seen {
		if !signed {
			unsigned++
		}
	}
	return len(seen), unsigned, nil
}

// listed is one of Harbor's listing.
type listed struct {
	Digest      string `json:"digest"`
	Repository  string `json:"repository_name"`
	Accessories []struct {
		Type string `json:"type"`
	} `json:"accessories"`
}

func (a listed) signed() bool {
	for _, accessory := range a.Accessories {
		if accessory.Type == "signature.cosign" {
			return true
		}
	}
	return false
}

func (s *Stage) list(ctx context.Context, client *http.Client, url string) ([]listed, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking Harbor: %w", err)
	}
	req.SetBasicAuth(s.Harbor.Username, s.Harbor.Password)
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking Harbor: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking Harbor for a listing: the answer is %d", resp.StatusCode)
	}
	var some []listed
	if err := json.NewDecoder(resp.Body).Decode(&some); err != nil {
		return nil, fmt.Errorf("asking Harbor for a listing: %w", err)
	}
	return some, nil
}
