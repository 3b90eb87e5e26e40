// Package postgrestest starts a PostgreSQL server for tests, on the loopback interface, with data that do not outlive it.
//
// It assumes PostgreSQL's programs where packages put them, on the path, or where [EnvPrograms] says. It guarantees nothing about a
// crash of the machine: nothing is synced to the disk.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// EnvPrograms names the folder of PostgreSQL's programs, where it is not where packages put it.
	EnvPrograms = "HARBORSEAL_TEST_POSTGRES"
	// User is the superuser, who needs no password on the loopback interface.
	User = "harborseal"

	startLimit = 60 * time.Second
	stopLimit  = 20 * time.Second
)

// ErrMissing says that PostgreSQL's programs are not there.
var ErrMissing = errors.New("there is no PostgreSQL: install it, or name the folder of its programs by " + EnvPrograms)

// Server is a PostgreSQL server. It is for one goroutine, but for Create and URL.
type Server struct {
	// Address is host and port.
	Address string

	bin     string
	dir     string
	as      []string // the words that run a program as another user
	log     io.Writer
	process *exec.Cmd
	ended   chan struct{} // closed when process has ended
	made    atomic.Int64
}

// Start makes a cluster in a temporary folder of its own and starts it. As PostgreSQL refuses to run as root, root starts it as the
// user postgres, or nobody. It takes a second or two; log gets all output, if it is not nil.
func Start(ctx context.Context, log io.Writer) (_ *Server, err error) {
	s := &Server{log: log}
	if s.bin, err = programs(); err != nil {
		return nil, err
	}
	// The folder must be one that the other user can enter: those of tests are not.
	if s.dir, err = os.MkdirTemp("", "harborseal-postgres-"); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.as, err = other(s.dir); err != nil {
		return nil, err
	}
	initdb := append(slices.Clone(s.as), filepath.Join(s.bin, "initdb"), "--pgdata", s.data(), "--username", User, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	if err := s.run(ctx, initdb...); err != nil {
		return nil, err
	}
	if s.Address, err = freePort(ctx); err != nil {
		return nil, err
	}
	return s, s.Up(ctx)
}

// programs finds PostgreSQL's programs: where the variable says, where packages put them, the newest first, or on the path.
func programs() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, filepath.Dir(path))
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("looking for PostgreSQL: %w", err)
	}
	candidates = append(candidates, installed...)
	if named := os.Getenv(EnvPrograms); named != "" {
		candidates = []string{named}
	}
	for _, dir := range slices.Backward(candidates) {
		if !slices.ContainsFunc([]string{"initdb", "postgres", "psql"}, func(name string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err != nil
		}) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("looking in %q: %w", candidates, ErrMissing)
}

// other gives the folder to another user if this one is root, and the words that run a program as that user.
func other(dir string) ([]string, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var missing []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, fmt.Errorf("starting PostgreSQL as %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, fmt.Errorf("starting PostgreSQL as %s: %w", name, err)
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, fmt.Errorf("starting PostgreSQL as %s: %w", name, err)
		}
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			return nil, fmt.Errorf("starting PostgreSQL as %s: %w", name, err)
		}
		return []string{setpriv, "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups", "--"}, nil
	}
	return nil, fmt.Errorf("starting PostgreSQL: root must not, and there is nobody else: %w", errors.Join(missing...))
}

func freePort(ctx context.Context) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	return address, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// run runs a program to its end, in the folder, which every user may enter.
func (s *Server) run(ctx context.Context, words ...string) error {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...) //nolint:gosec // PostgreSQL's own programs
	cmd.Dir, cmd.Env = s.dir, []string{"LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", filepath.Base(words[0]), err, bytes.TrimSpace(out))
	}
	return nil
}

// Up starts the server, which is down, at the same address and with the same data, and waits until it answers.
func (s *Server) Up(ctx context.Context) error {
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	words := append(slices.Clone(s.as), filepath.Join(s.bin, "postgres"), "-D", s.data(), "-h", "127.0.0.1", "-p", port, "-k", "",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	cmd := exec.Command(words[0], words[1:]...) //nolint:gosec,noctx // it outlives the call
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, []string{"LC_ALL=C"}, s.log, s.log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it was told to end
		close(ended)
	}()
	s.process, s.ended = cmd, ended
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.run(ctx, filepath.Join(s.bin, "psql"), "--no-psqlrc", "--quiet", s.URL("postgres"), "--command", "SELECT")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return fmt.Errorf("starting PostgreSQL: it has ended: %w", err)
		case <-limit.C:
			return fmt.Errorf("starting PostgreSQL: %w", err)
		case <-tick.C:
		}
	}
}

// Down ends the server at once, as a crash does. Its data stay.
func (s *Server) Down() error {
	if s.process == nil {
		return nil
	}
	// SPEC: PostgreSQL, "Shutting Down the Server": SIGQUIT is the immediate shutdown, of all its processes.
	if err := s.process.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping PostgreSQL: %w", err)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-s.ended:
	case <-limit.C:
		if err := s.process.Process.Kill(); err != nil {
			return fmt.Errorf("stopping PostgreSQL: %w", err)
		}
		<-s.ended
	}
	s.process = nil
	return nil
}

// Create makes an empty database with a name of its own.
func (s *Server) Create(ctx context.Context) (database string, err error) {
	database = fmt.Sprintf("test_%d", s.made.Add(1))
	return database, s.Exec(ctx, "postgres", "CREATE DATABASE "+database)
}

// Exec runs statements of SQL in a database.
func (s *Server) Exec(ctx context.Context, database, statements string) error {
	return s.run(ctx, filepath.Join(s.bin, "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", s.URL(database), "--command", statements)
}

// URL is the address of a database, as libpq and pgx read it.
func (s *Server) URL(database string) string {
	return "postgresql://" + User + "@" + s.Address + "/" + database + "?sslmode=disable"
}

// Close ends the server at once and removes its data.
func (s *Server) Close() error { return errors.Join(s.Down(), os.RemoveAll(s.dir)) }
