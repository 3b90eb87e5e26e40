package compare

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/e2e/harness"
)

// cosign runs the cosign program once for each image, as a pipeline does.
type cosign struct {
	path string
	args []string
	env  []string
	host string
}

func findCosign() error {
	path := os.Getenv(harness.EnvCosignV2)
	if _, err := os.Stat(path); path == "" || err != nil { //nolint:gosec // the variable is there to name any program
		return fmt.Errorf("%s names no program (%q): run make tools, and call this by make", harness.EnvCosignV2, path)
	}
	return nil
}

// newCosign prepares the folder that the program gets for its configuration.
func newCosign(dir string, s *stage, k keyFiles) (*cosign, error) {
	c := &cosign{path: os.Getenv(harness.EnvCosignV2), host: s.host}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("preparing cosign: %w", err)
	}
	login := base64.StdEncoding.EncodeToString([]byte(s.username + ":" + s.secret))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{s.host: map[string]string{"auth": login}}})
	if err != nil {
		return nil, fmt.Errorf("preparing cosign: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		return nil, fmt.Errorf("preparing cosign: %w", err)
	}
	c.env = []string{"HOME=" + dir, "DOCKER_CONFIG=" + dir, "TUF_ROOT=" + filepath.Join(dir, "tuf"), "COSIGN_PASSWORD=" + k.password}
	c.args = []string{"sign", "--yes", "--key", k.encrypted, "--tlog-upload=false", "--allow-http-registry"}
	return c, nil
}

func (c *cosign) order(ctx context.Context, o contender.Order) (contender.Result, error) {
	result := contender.Result{Signatures: len(o.Digests)}
	var mu sync.Mutex // guards what result has used
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(o.InFlight, 1))
	started := time.Now()
	for _, digest := range o.Digests {
		g.Go(func() error {
			image := c.host + "/" + o.Repository + "@" + digest
			cmd := exec.CommandContext(ctx, c.path, append(slices.Clip(c.args), image)...) //nolint:gosec // a tool of the project
			cmd.Env = c.env
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("running cosign: %w\n%s", err, out)
			}
			used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok {
				return errors.New("the system does not tell what a process has used")
			}
			mu.Lock()
			defer mu.Unlock()
			result.CPU += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			result.PeakRSS = max(result.PeakRSS, used.Maxrss<<10)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return contender.Result{}, err
	}
	result.Took = time.Since(started)
	return result, nil
}

func (c *cosign) stop() error { return nil }
