package queue_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// smallVolume mounts a file system of a size, and says why not where that is impossible.
func smallVolume(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a volume that is full needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// fill writes a file until so many bytes are left of the volume, as another program might.
func fill(t *testing.T, dir string, left int64) (clear func()) {
	t.Helper()
	name := filepath.Join(dir, "somebody-else")
	file, err := os.Create(name) //nolint:gosec // a folder of the test
	if err != nil {
		t.Fatal(err)
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	free := int64(stat.Bavail) * stat.Bsize //nolint:gosec // a few megabytes
	chunk := make([]byte, 4096)
	for ; free > left; free -= int64(len(chunk)) {
		if _, err := file.Write(chunk); err != nil {
			break
		}
	}
	if err := file.Close(); err != nil && left > 0 {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// fullDisk is a server on a small volume, with clients in this process and over the network.
type fullDisk struct {
	dir            string
	server         *queue.Server
	local, network *queue.Client
	stored         []artifact.Ref // all that was acknowledged
	handed         map[artifact.Ref]bool
	next           int
}

func newFullDisk(t *testing.T, reserve int64, every time.Duration) *fullDisk {
	t.Helper()
	dir := smallVolume(t, "64m")
	password := secretFile(t, "hunter2")
	server := queuetest.StartServer(t, queue.Looking(queue.ServerConfig{
		StoreDir: filepath.Join(dir, "store"), Reserve: reserve, MaxStore: 32 << 20, Listen: "127.0.0.1:0",
		Users: []queue.User{{Name: "signer", PasswordFile: password}}, Logger: queuetest.NewLogger(t),
	}, every))
	return &fullDisk{
		dir: dir, server: server, handed: map[artifact.Ref]bool{}, local: queuetest.NewClient(t, server),
		network: queuetest.Connect(t, queue.Config{URLs: []string{"nats://" + server.Addr()}, Username: "signer", PasswordFile: password}),
	}
}

// enqueue tries to store a request, and remembers it if it was acknowledged.
func (f *fullDisk) enqueue(t *testing.T, c *queue.Client) error {
	t.Helper()
	f.next++
	r := ref(t, "demo/app", f.next)
	_, err := c.Enqueue(t.Context(), request(r, artifact.Live))
	if err == nil {
		f.stored = append(f.stored, r)
	}
	return err
}

// wantAll checks that all that was acknowledged is handed out.
func (f *fullDisk) wantAll(t *testing.T, deliveries <-chan artifact.Ref) {
	t.Helper()
	for _, r := range f.stored {
		for !f.handed[r] {
			f.handed[receive(t, deliveries, "request "+r.String())] = true
		}
	}
}

// consumeAll hands out what is stored from now on.
func consumeAll(t *testing.T, c *queue.Client) <-chan artifact.Ref {
	t.Helper()
	deliveries := make(chan artifact.Ref, 100_000)
	consume(t, c, queue.ConsumeConfig{Handle: func(ctx context.Context, d *queue.Delivery) {
		if err := d.Done(ctx); err != nil {
			return // It comes again.
		}
		deliveries <- d.Request().Ref
	}})
	return deliveries
}

func TestVolumeThatIsNearlyFullRefuses(t *testing.T) {
	t.Parallel()
	f := newFullDisk(t, 16<<20, 50*time.Millisecond)
	deliveries := consumeAll(t, f.network)
	for _, c := range []*queue.Client{f.local, f.network} {
		if err := f.enqueue(t, c); err != nil {
			t.Fatal(err)
		}
	}
	clear := fill(t, f.dir, 12<<20)
	eventually(t, "the server knows", f.server.Full)
	for name, c := range map[string]*queue.Client{"local": f.local, "network": f.network} {
		started := time.Now()
		wantFault(t, f.enqueue(t, c), fault.Transient, fault.QueueFull)
		_, err := c.Record(t.Context(), event(ref(t, "demo/app", 1), artifact.Received, "e-"+name))
		wantFault(t, err, fault.Transient, fault.QueueFull)
		if took := time.Since(started); took > time.Second {
			t.Errorf("%s: two refusals took %s", name, took)
		}
	}
	wantFault(t, f.local.Writable(t.Context()), fault.Transient, fault.QueueFull)
	if err := f.server.Healthy(); err != nil {
		t.Errorf("Healthy = %v: refusing is no illness", err)
	}
	f.wantAll(t, deliveries) // What waits is worked on meanwhile.
	clear()
	eventually(t, "requests are stored again", func() bool { return f.enqueue(t, f.local) == nil && f.enqueue(t, f.network) == nil })
	f.wantAll(t, deliveries)
	queue.ForgetRefusals(f.local)
	if err := f.local.Writable(t.Context()); err != nil {
		t.Errorf("Writable = %v, want nil", err)
	}
}

// A stream that met a full disk takes nothing until JetStream is restarted: the server does it, and nothing is lost.
func TestDiskThatWasFullHeals(t *testing.T) {
	t.Parallel()
	f := newFullDisk(t, 1<<20, 1500*time.Millisecond)
	deliveries := consumeAll(t, f.network)
	if err := f.enqueue(t, f.local); err != nil {
		t.Fatal(err)
	}
	var restarts atomic.Int64
	for range 20 {
		clear := fill(t, f.dir, 0)
		for {
			if err := f.enqueue(t, f.network); err != nil {
				break
			}
		}
		broken := f.server.Healthy()
		if broken != nil {
			t.Logf("the disk is full: %v", broken)
			if !strings.Contains(broken.Error(), "no space left") {
				t.Errorf("Healthy = %v, want what the disk said", broken)
			}
			restarts.Add(1)
		}
		clear()
		if broken != nil {
			break
		}
		eventually(t, "requests are stored again", func() bool { return f.enqueue(t, f.network) == nil })
	}
	if restarts.Load() == 0 {
		t.Fatal("the disk was never full before the server refused: the test shows nothing")
	}
	room := time.Now()
	eventually(t, "both clients can store requests again", func() bool {
		return f.server.Healthy() == nil && f.enqueue(t, f.network) == nil && f.enqueue(t, f.local) == nil
	})
	t.Logf("service resumed %s after there was room", time.Since(room))
	f.wantAll(t, deliveries)
	// What refuses still refuses after a restart.
	defer fill(t, f.dir, 512<<10)()
	eventually(t, "the server knows that it is full again", f.server.Full)
	wantFault(t, f.enqueue(t, f.network), fault.Transient, fault.QueueFull)
}
