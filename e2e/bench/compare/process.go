package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/harborseal/harborseal/e2e/bench/contender"
)

// signer is whoever fills orders, one after the other.
type signer interface {
	order(ctx context.Context, o contender.Order) (contender.Result, error)
	stop() error
}

// build compiles the programs of the benchmark into dir.
func build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), //nolint:gosec // the arguments are our own
		"github.com/harborseal/harborseal/e2e/bench/programs/...")
	cmd.Env = os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

// process is a running program that ends when its standard input does. It is for one goroutine.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	orders *json.Encoder
	output *json.Decoder
	stderr bytes.Buffer
}

// launch starts a program with some more variables than this one has. The end of ctx kills it.
func launch(ctx context.Context, path string, env []string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(path)}
	p.cmd = exec.CommandContext(ctx, path, args...) //nolint:gosec // one of the built programs
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), env...), &p.stderr
	stdin, inErr := p.cmd.StdinPipe()
	stdout, outErr := p.cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, p.cmd.Start()); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.stdin, p.orders, p.output = stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)
	return p, nil
}

func (p *process) order(_ context.Context, o contender.Order) (contender.Result, error) {
	var r contender.Result
	if err := p.orders.Encode(o); err != nil {
		return r, p.failed("giving an order to", err)
	}
	if err := p.output.Decode(&r); err != nil {
		return r, p.failed("waiting for", err)
	}
	return r, nil
}

// failed adds what the process said. It has ended, or is of no use any more.
func (p *process) failed(doing string, err error) error {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // it ended badly, as is said here
	return fmt.Errorf("%s %s: %w: %s", doing, p.name, err, strings.TrimSpace(p.stderr.String()))
}

func (p *process) stop() error {
	if p.cmd.ProcessState != nil {
		return nil // it failed, which was said
	}
	_ = p.stdin.Close() // Wait tells
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("stopping %s: %w: %s", p.name, err, strings.TrimSpace(p.stderr.String()))
	}
	return nil
}
