package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopLimit is how long a program may take to drain before it is killed.
const stopLimit = 40 * time.Second

// Process is one running program. Its methods are safe for concurrent use.
type Process struct {
	name string
	log  string
	cmd  *exec.Cmd
	// ended is closed when the process has ended and was waited for; err is set before.
	ended chan struct{}
	err   error
}

// Command is a program to be started.
type Command struct {
	// Name is what the process is called in errors.
	Name string
	Path string
	Args []string
	// Env is the whole environment: nothing is inherited.
	Env []string
	// Log is the file that gets all output; it is appended to.
	Log string
}

// Launch starts a program in a process group of its own, so that Ctrl-C reaches only its parent, which stops it in order.
func Launch(ctx context.Context, c Command) (*Process, error) {
	log, err := os.OpenFile(c.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	defer func() { _ = log.Close() }() // The process has a copy of its own.
	// The end of ctx is not the end of the process: whoever started it stops it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), c.Path, c.Args...) //nolint:gosec // one of the built programs
	cmd.Env, cmd.Stdout, cmd.Stderr = c.Env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	p := &Process{name: c.Name, log: c.Log, cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Name is what the process is called.
func (p *Process) Name() string { return p.name }

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Killed says whether the process was ended by SIGKILL.
func (p *Process) Killed() bool {
	<-p.ended
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Terminate sends SIGTERM and returns at once.
func (p *Process) Terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("asking %s to end: %w", p.name, err)
	}
	return nil
}

// Stop asks the process to end and waits. It is an error if the process ends with another status than 0, or not in time:
// then it is killed. A process that has ended before is asked nothing.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	if err := p.Terminate(); err != nil {
		return err
	}
	return p.Await()
}

// Await waits for the end of a process that was asked to end, as Stop does. A second signal would end it at once.
func (p *Process) Await() error {
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%s ended badly: %w\n%s", p.name, p.err, p.Tail())
		}
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s did not end within %s\n%s", p.name, stopLimit, p.Tail()), p.Kill())
	}
}

// Kill sends SIGKILL and waits.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// Tail gives the last lines of the process's output.
func (p *Process) Tail() string {
	const most = 25
	content, err := os.ReadFile(p.log)
	if err != nil {
		return "no log: " + err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return fmt.Sprintf("--- last lines of %s ---\n%s\n", p.name, bytes.Join(lines, []byte("\n")))
}
