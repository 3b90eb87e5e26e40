package receiver_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// installation is a receiver's configuration with an embedded queue, without a receiver.
type installation struct {
	dir string
	cfg *config.Receiver
}

func install(t *testing.T) *installation {
	t.Helper()
	i := &installation{dir: t.TempDir()}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String() // Commands have to know it before somebody listens there.
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"signer": "hunter2\n", "hook": strings.Repeat("x", 40) + "\n"} {
		if err := os.WriteFile(filepath.Join(i.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(i.dir, "receiver.yaml")
	text := fmt.Sprintf(`
harbor: {public_host: harbor.example.com}
policies: [{projects: [shop, team], backfill: all}]
http: {allow_plain_http: true}
webhook: {secret_files: [hook]}
ledger: {sqlite: {path: ledger.db}}
queue: {embedded: {store_dir: nats, listen: %q, users: [{name: signer, password_file: signer}]}}
`, address)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if i.cfg, err = config.LoadReceiver(path, nil); err != nil {
		t.Fatal(err)
	}
	return i
}

// start runs the queue as a receiver does, and publishes what the configuration declares.
func (i *installation) start(t *testing.T) (*queue.Server, *queue.Client) {
	t.Helper()
	e := i.cfg.Queue.Embedded
	server := queuetest.StartServer(t, queue.ServerConfig{
		StoreDir: e.StoreDir, Listen: e.Listen, Users: []queue.User{{Name: e.Users[0].Name, PasswordFile: e.Users[0].PasswordFile}},
	})
	client := queuetest.NewClient(t, server)
	declared, err := i.cfg.Declared()
	if err != nil {
		t.Fatal(err)
	}
	value, err := declared.Encode()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := client.GetPolicy(t.Context(), book.Declared, "")
	if err == nil {
		_, err = client.PutPolicy(t.Context(), book.Declared, "", value, entry.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

func options(dir string) receiver.BackupOptions {
	return receiver.BackupOptions{Dir: dir, Actor: enroll.Actor{Name: "ops@host", From: "cli"}, Logger: zerolog.Nop()}
}

// kinds reads the ledger up to what it holds now.
func kinds(t *testing.T, client *queue.Client) (found []artifact.Kind, last artifact.Event) {
	t.Helper()
	end, err := client.LedgerSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_ = client.Events(ctx, 0, func(_ context.Context, entries []artifact.Entry) error {
		for _, e := range entries {
			found = append(found, e.Event.Kind)
			if e.Event.Kind == artifact.Restored {
				last = e.Event
			}
			if e.Seq >= end {
				cancel()
			}
		}
		return nil
	})
	return found, last
}

// ticks gives the projects of which full sweeps are asked for.
func ticks(t *testing.T, client *queue.Client, want int) (projects []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := client.ConsumeTicks(ctx, reconcile.Full, 1, func(_ context.Context, tick queue.Tick) error {
		if tick.Slot >= 0 {
			t.Errorf("a tick of slot %d, want one that somebody asked for", tick.Slot)
		}
		if projects = append(projects, tick.Key); len(projects) == want {
			cancel()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(projects)
	return projects
}

func TestBackupAndRestore(t *testing.T) {
	i := install(t)
	server, client := i.start(t)
	r, err := artifact.NewRef("shop/cart", "sha256:"+strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	received := artifact.Event{ID: "1", Kind: artifact.Received, Ref: r, Time: time.Now(), Origin: artifact.OriginWebhook, CorrelationID: "c"}
	if _, err := client.Record(t.Context(), received); err != nil {
		t.Fatal(err)
	}
	if err := enroll.SetPause(t.Context(), client, enroll.Actor{Name: "alice"}, "", true, "key ceremony"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "monday")
	m, err := receiver.Backup(t.Context(), i.cfg, options(dir))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := kinds(t, client); !slices.Equal(got, []artifact.Kind{artifact.Received, artifact.Paused, artifact.BackupMade}) {
		t.Errorf("the ledger has %v", got)
	}
	if _, err := receiver.Restore(t.Context(), i.cfg, options(dir)); err == nil || !strings.Contains(err.Error(), "stop the receiver first") {
		t.Errorf("restoring beside a running receiver: %v", err)
	}
	client.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := receiver.Restore(t.Context(), i.cfg, options(dir)); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restoring into a queue with streams: %v", err)
	}
	if err := os.RemoveAll(i.cfg.Queue.Embedded.StoreDir); err != nil {
		t.Fatal(err)
	}
	done, err := receiver.Restore(t.Context(), i.cfg, options(dir))
	if err != nil {
		t.Fatal(err)
	}
	if done.Manifest.SHA256 != m.SHA256 || !slices.Equal(done.Swept, []string{"shop", "team"}) || done.Globs {
		t.Errorf("restored: %+v", done)
	}

	_, client = i.start(t)
	got, restored := kinds(t, client)
	want := []artifact.Kind{artifact.Received, artifact.Paused, artifact.Paused, artifact.Restored}
	if !slices.Equal(got, want) {
		t.Errorf("the ledger has %v, want %v", got, want)
	}
	if restored.Actor != "ops@host" || !strings.Contains(restored.Detail, m.SHA256) {
		t.Errorf("the event says %+v", restored)
	}
	entry, err := client.GetPolicy(t.Context(), book.Pause, "")
	if err != nil {
		t.Fatal(err)
	}
	pause, err := policy.DecodePause(entry.Value)
	if err != nil || !pause.Paused || !strings.Contains(pause.Reason, "restored from the backup") || !strings.Contains(pause.Reason, "key ceremony") {
		t.Errorf("the pause is %+v, %v", pause, err)
	}
	if got := ticks(t, client, 2); !slices.Equal(got, []string{"shop", "team"}) {
		t.Errorf("sweeps are asked for of %v", got)
	}
}

func TestRestoreChecksBeforeItTouchesAnything(t *testing.T) {
	i := install(t)
	server, client := i.start(t)
	dir := filepath.Join(t.TempDir(), "monday")
	if _, err := receiver.Backup(t.Context(), i.cfg, options(dir)); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(i.cfg.Queue.Embedded.StoreDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "KV_POLICIES.snapshot"), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := receiver.Restore(t.Context(), i.cfg, options(dir)); err == nil || !strings.Contains(err.Error(), "KV_POLICIES.snapshot is damaged") {
		t.Errorf("a damaged backup: %v", err)
	}
	if _, err := os.Stat(i.cfg.Queue.Embedded.StoreDir); !os.IsNotExist(err) {
		t.Errorf("the store was touched: %v", err)
	}
}

func TestSweep(t *testing.T) {
	i := install(t)
	if _, err := receiver.Sweep(t.Context(), i.cfg, receiver.SweepOptions{Projects: []string{"shop"}}); err == nil || !strings.Contains(err.Error(), "no receiver answers") {
		t.Errorf("without a receiver: %v", err)
	}
	_, client := i.start(t)
	for _, c := range []struct {
		name      string
		o         receiver.SweepOptions
		want      []string
		suspended bool
	}{
		{"one project", receiver.SweepOptions{Projects: []string{"shop"}}, []string{"shop"}, false},
		{"all, and signing goes on", receiver.SweepOptions{All: true, KeepSigning: true}, []string{"shop", "team"}, false},
		{"all", receiver.SweepOptions{All: true, Reason: "Harbor was restored"}, []string{"shop", "team"}, true},
	} {
		c.o.Actor, c.o.Logger = enroll.Actor{Name: "ops", From: "cli"}, zerolog.Nop()
		asked, err := receiver.Sweep(t.Context(), i.cfg, c.o)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !slices.Equal(asked.Projects, c.want) || asked.Suspended != c.suspended {
			t.Errorf("%s: got %+v, want %v, suspended %t", c.name, asked, c.want, c.suspended)
		}
		if got := ticks(t, client, len(c.want)); !slices.Equal(got, c.want) {
			t.Errorf("%s: ticks of %v, want %v", c.name, got, c.want)
		}
		entry, err := client.GetPolicy(t.Context(), book.Pause, "")
		if err != nil || len(entry.Value) > 0 != c.suspended {
			t.Errorf("%s: the pause is %s, %v", c.name, entry.Value, err)
		}
	}
}

func TestToolUser(t *testing.T) {
	i := install(t)
	i.start(t)
	wrong := filepath.Join(i.dir, "wrong")
	if err := os.WriteFile(wrong, []byte("guess\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		as   receiver.ToolUser
		want string
	}{
		"that of the configuration": {receiver.ToolUser{}, ""},
		"another one":               {receiver.ToolUser{Name: "signer", PasswordFile: filepath.Join(i.dir, "signer")}, ""},
		"without a password":        {receiver.ToolUser{Name: "signer"}, "want both"},
		"with a wrong one":          {receiver.ToolUser{Name: "signer", PasswordFile: wrong}, "refuses user"},
	} {
		_, closing, err := receiver.Tool(t.Context(), i.cfg, c.as, zerolog.Nop())
		if c.want == "" && err == nil {
			closing()
			continue
		}
		if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "guess") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
