package harness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Variables that name the tools; make sets them.
const (
	EnvCosignV2 = "HARBORSEAL_TEST_COSIGN_V2"
	EnvCosignV3 = "HARBORSEAL_TEST_COSIGN_V3"
	EnvCrane    = "HARBORSEAL_TEST_CRANE"
)

// Tool runs a foreign program with credentials for one registry and nothing of the user's own configuration. It is safe
// for concurrent use.
type Tool struct {
	path string
	env  []string
	root string
}

// NewTool finds the program that a variable names. The folder gets its configuration, with the robot's credentials.
func NewTool(variable, dir string, h *Harbor, robot Robot, env []string) (*Tool, error) {
	path := os.Getenv(variable)
	if _, err := os.Stat(path); path == "" || err != nil { //nolint:gosec // the variable is there to name any program
		return nil, fmt.Errorf("%s names no program (%q): run make tools, and call this by make", variable, path)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	login := base64.StdEncoding.EncodeToString([]byte(robot.Name + ":" + robot.Secret))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{h.Host: map[string]string{"auth": login}}})
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	own := []string{"HOME=" + dir, "DOCKER_CONFIG=" + dir, "TUF_ROOT=" + filepath.Join(dir, "tuf"), "NO_COLOR=1"}
	root := filepath.Join(dir, "trusted-root.json")
	if err := os.WriteFile(root, []byte(emptyRoot), 0o600); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	return &Tool{path: path, env: append(own, env...), root: root}, nil
}

// emptyRoot is what "cosign trusted-root create" writes where nothing is trusted but keys.
const emptyRoot = `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`

// Path is the program's path.
func (t *Tool) Path() string { return t.path }

// Run runs the program. The error holds what it wrote.
func (t *Tool) Run(ctx context.Context, args ...string) (string, error) {
	return t.RunWith(ctx, nil, args...)
}

// RunWith is Run with further variables.
func (t *Tool) RunWith(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, t.path, args...) //nolint:gosec // a tool of the project
	cmd.Env = append(append([]string{"PATH=" + os.Getenv("PATH")}, t.env...), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("running %s %v: %w\n%s", filepath.Base(t.path), args, err, out.Bytes())
	}
	return out.String(), nil
}

// VerifyArgs are the arguments of cosign verify for images signed by the key, without a transparency log. Without a trusted
// root of one's own, cosign v2 asks the public sigstore for one first, and goes on when nobody answers.
func (t *Tool) VerifyArgs(key string, images ...string) []string {
	return append([]string{"verify", "--key", key, "--trusted-root", t.root, "--insecure-ignore-tlog"}, images...)
}

// LegacyOnly makes cosign v3 verify the signatures on the .sig tag where there are bundles too. Version 2 has no such option
// for images, and looks at bundles alone then.
const LegacyOnly = "--new-bundle-format=false"

// Verify runs cosign verify.
func (t *Tool) Verify(ctx context.Context, key string, images ...string) error {
	_, err := t.Run(ctx, t.VerifyArgs(key, images...)...)
	return err
}
