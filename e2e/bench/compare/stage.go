package compare

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// stage is the registry in which everybody signs: the one in memory, or a real Harbor.
type stage struct {
	url, host string
	// username and secret are those of the contenders; secretFile has the secret, too.
	username, secret, secretFile string
	// pusher and pusherSecret are those of whoever pushes the images.
	pusher, pusherSecret string
	project              string
	repositories         int
	client               *http.Client

	memory *process      // nil if there is none
	site   *harness.Site // nil if there is none
}

// newStage starts the registry in memory, or makes a project in Harbor if that is not nil.
func newStage(ctx context.Context, dir string, harbor *harness.Harbor) (*stage, error) {
	s := &stage{project: harness.Random("bench-"), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pushers}}}
	if err := s.open(ctx, dir, harbor); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	s.host = strings.TrimPrefix(strings.TrimPrefix(s.url, "http://"), "https://")
	s.secretFile = filepath.Join(dir, "robot.secret")
	if err := os.WriteFile(s.secretFile, []byte(s.secret+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the secret: %w", err), s.close(ctx))
	}
	return s, nil
}

func (s *stage) open(ctx context.Context, dir string, harbor *harness.Harbor) error {
	var err error
	if harbor != nil {
		if s.site, err = harness.NewSite(ctx, harbor, s.project); err != nil {
			return err
		}
		s.url = harbor.URL
		s.username, s.secret = s.site.Signer.Name, s.site.Signer.Secret
		s.pusher, s.pusherSecret = s.site.Developer.Name, s.site.Developer.Secret
		return nil
	}
	s.username, s.secret = "robot$bench", rand.Text()
	s.pusher, s.pusherSecret = s.username, s.secret
	if s.memory, err = launch(ctx, filepath.Join(dir, "registry"), []string{"SECRET=" + s.secret},
		"-username", s.username, "-secret-variable", "SECRET"); err != nil {
		return err
	}
	var announced struct{ URL string }
	if err := s.memory.output.Decode(&announced); err != nil {
		return s.memory.failed("waiting for", err)
	}
	s.url = announced.URL
	return nil
}

func (s *stage) close(ctx context.Context) error {
	s.client.CloseIdleConnections()
	switch {
	case s.memory != nil:
		return s.memory.stop()
	case s.site != nil:
		return s.site.Remove(context.WithoutCancel(ctx))
	default:
		return nil
	}
}

// counts says whether the registry tells how many requests it got: Harbor does not.
func (s *stage) counts() bool { return s.memory != nil }

// requests gives how many the registry got so far, by kind.
func (s *stage) requests(ctx context.Context) (map[string]int64, error) {
	var counted map[string]int64
	err := s.ask(ctx, http.MethodGet, "/_bench/requests", http.StatusOK, &counted)
	return counted, err
}

// cpu is what the registry has used so far; 0 if nobody can tell.
func (s *stage) cpu(ctx context.Context) (time.Duration, error) {
	if s.memory == nil {
		return 0, nil
	}
	var used time.Duration
	err := s.ask(ctx, http.MethodGet, "/_bench/cpu", http.StatusOK, &used)
	return used, err
}

// clear forgets what the registry in memory holds, so that it stays small. A Harbor keeps all until the end.
func (s *stage) clear(ctx context.Context) error {
	if s.memory == nil {
		return nil
	}
	return s.ask(ctx, http.MethodDelete, "/_bench/content", http.StatusNoContent, nil)
}

func (s *stage) ask(ctx context.Context, method, path string, want int, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, nil)
	if err != nil {
		return fmt.Errorf("asking the registry: %w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the registry: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != want {
		return fmt.Errorf("asking the registry: the answer is %d", resp.StatusCode)
	}
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("asking the registry: %w", err)
	}
	return nil
}
