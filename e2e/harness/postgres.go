package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// EnvPostgres names the folder of PostgreSQL's programs, where it is not where packages put it.
	EnvPostgres = "HARBORSEAL_TEST_POSTGRES"
	// postgresUser is the database's superuser, who needs no password on the loopback interface.
	postgresUser = "harborseal"
)

// Postgres is a PostgreSQL server of one test. Its data do not outlive it: nothing is synced to the disk.
type Postgres struct {
	// Address is host and port.
	Address string

	bin     string
	dir     string
	process *Process
}

// StartPostgres makes a cluster in a temporary folder of its own and starts it on the loopback interface. As PostgreSQL
// refuses to run as root, root starts it as the user postgres, or nobody. It takes a second or two; log gets all output.
func StartPostgres(ctx context.Context, log string) (_ *Postgres, err error) {
	p := &Postgres{}
	if p.bin, err = postgresFolder(); err != nil {
		return nil, err
	}
	// The folder must be one that the other user can enter: those of tests are not.
	if p.dir, err = os.MkdirTemp("", "harborseal-postgres-"); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	as, err := p.other()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(p.dir, "data")
	initdb := append(slices.Clone(as), filepath.Join(p.bin, "initdb"), "--pgdata", data, "--username", postgresUser, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	if err := p.run(ctx, initdb...); err != nil {
		return nil, err
	}
	addresses, err := FreePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	p.Address = addresses[0]
	server := append(slices.Clone(as), filepath.Join(p.bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", portOf(p.Address), "-k", "",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	p.process, err = Launch(ctx, Command{Name: "PostgreSQL", Path: server[0], Args: server[1:], Env: []string{"LC_ALL=C"}, Log: log})
	if err != nil {
		return nil, err
	}
	return p, p.process.answers(ctx, func(ctx context.Context) error {
		return p.run(ctx, filepath.Join(p.bin, "psql"), "--no-psqlrc", "--quiet", p.URL("postgres"), "--command", "SELECT")
	})
}

// postgresFolder finds PostgreSQL's programs: where the variable says, where packages put them, the newest first, or on the path.
func postgresFolder() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, filepath.Dir(path))
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("looking for PostgreSQL: %w", err)
	}
	candidates = append(candidates, installed...)
	if named := os.Getenv(EnvPostgres); named != "" {
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
	return "", fmt.Errorf("there is no PostgreSQL in %q: install it, or name the folder of its programs by %s", candidates, EnvPostgres)
}

// other gives the folder to another user if this one is root, and the words that run a program as that user.
func (p *Postgres) other() ([]string, error) {
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
		if err := os.Chown(p.dir, uid, gid); err != nil {
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

// run runs a program to its end, in the folder, which every user may enter.
func (p *Postgres) run(ctx context.Context, words ...string) error {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...) //nolint:gosec // PostgreSQL's own programs
	cmd.Dir, cmd.Env = p.dir, []string{"LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", filepath.Base(words[0]), err, out)
	}
	return nil
}

// Create makes a database with a schema.
func (p *Postgres) Create(ctx context.Context, database, schema string) error {
	path := filepath.Join(p.dir, database+".sql")
	if err := os.WriteFile(path, []byte(schema), 0o600); err != nil {
		return fmt.Errorf("making the database %s: %w", database, err)
	}
	psql := []string{filepath.Join(p.bin, "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"}
	if err := p.run(ctx, append(slices.Clone(psql), p.URL("postgres"), "--command", "CREATE DATABASE "+database)...); err != nil {
		return err
	}
	return p.run(ctx, append(psql, p.URL(database), "--file", path)...)
}

// URL is the address of a database, as libpq and pgx read it.
func (p *Postgres) URL(database string) string {
	return "postgresql://" + postgresUser + "@" + p.Address + "/" + database + "?sslmode=disable"
}

// Close ends the server at once and removes its data.
func (p *Postgres) Close() error {
	var errs []error
	if p.process != nil && p.process.Running() {
		// SPEC: PostgreSQL, "Shutting Down the Server": SIGQUIT is the immediate shutdown, of all its processes.
		if err := p.process.cmd.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("stopping PostgreSQL: %w", err))
		}
		select {
		case <-p.process.Ended():
		case <-time.After(stopLimit):
			errs = append(errs, p.process.Kill())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}

// answers waits until a server answers, and says what it wrote if it does not.
func (p *Process) answers(ctx context.Context, ask func(context.Context) error) error {
	err := Until(ctx, startLimit, func(ctx context.Context) error {
		if !p.Running() {
			return fmt.Errorf("%s has ended: %w", p.name, errHopeless)
		}
		return ask(ctx)
	})
	if err != nil {
		return fmt.Errorf("starting %s: %w\n%s", p.name, err, strings.TrimSpace(p.Tail()))
	}
	return nil
}
