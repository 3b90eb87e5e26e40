package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are the paths of the built programs.
type Programs struct {
	Receiver, Signer, Emulator string
}

// Build compiles the programs into dir, with the given build tags.
func Build(ctx context.Context, dir string, tags ...string) (Programs, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return Programs{}, err
	}
	_, err = goCommand(ctx, root, "build", "-tags", strings.Join(tags, ","), "-o", dir+string(filepath.Separator),
		"./cmd/receiver", "./cmd/signer", "./e2e/emulator")
	if err != nil {
		return Programs{}, err
	}
	return Programs{
		Receiver: filepath.Join(dir, "receiver"),
		Signer:   filepath.Join(dir, "signer"),
		Emulator: filepath.Join(dir, "emulator"),
	}, nil
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the arguments are the harness's own
	cmd.Dir = dir
	cmd.Env = os.Environ()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running go %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return string(out), nil
}
