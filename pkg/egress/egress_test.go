package egress_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen gives the address of a listener that accepts and closes.
func listen(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func dial(t *testing.T, d *egress.Dialer, address string) {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("dialling %s: %v", address, err)
	}
	_ = conn.Close()
}

type line struct {
	Time    time.Time `json:"time"`
	Network string    `json:"network"`
	Address string    `json:"address"`
}

func parse(t *testing.T, record []byte) []line {
	t.Helper()
	var lines []line
	for text := range bytes.Lines(record) {
		var l line
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func addresses(lines []line) []string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Address)
	}
	slices.Sort(all)
	return all
}

func TestZeroDialer(t *testing.T) {
	var d egress.Dialer
	dial(t, &d, listen(t))
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}

func TestRecord(t *testing.T) {
	one := listen(t)
	_, port, err := net.SplitHostPort(listen(t))
	if err != nil {
		t.Fatal(err)
	}
	// Recorded as asked for, not as resolved.
	two := "localhost:" + port
	dir := t.TempDir()
	file := filepath.Join(dir, "record.jsonl")
	begin := time.Now()
	var writer bytes.Buffer
	d, err := egress.NewDialer(egress.Config{RecordFile: file, Record: &writer})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{one, two, one, two, one} {
		dial(t, d, address)
	}
	// What cannot be reached was asked for all the same.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.DialContext(ended, "tcp", "127.0.0.1:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: got %v, want %v", err, context.Canceled)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := fs.ReadFile(os.DirFS(dir), filepath.Base(file))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content, writer.Bytes()) {
		t.Errorf("got %s in the file and %s in the writer, want the same", content, writer.Bytes())
	}
	lines := parse(t, content)
	want := []string{one, two, "127.0.0.1:1"}
	slices.Sort(want)
	if got := addresses(lines); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, l := range lines {
		if l.Network != "tcp" || l.Time.Before(begin.Add(-time.Millisecond)) || l.Time.After(time.Now()) {
			t.Errorf("got %+v, want tcp and the time of the dial", l)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v (%v), want mode 0600", info.Mode(), err)
	}
}

func TestTimesAreUTC(t *testing.T) {
	local := time.Local
	t.Cleanup(func() { time.Local = local })
	time.Local = time.FixedZone("Tokyo", 9*60*60)
	var record bytes.Buffer
	d, err := egress.NewDialer(egress.Config{Record: &record})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = d.DialContext(ended, "tcp", "127.0.0.1:1")
	if lines := parse(t, record.Bytes()); len(lines) != 1 || lines[0].Time.Location() != time.UTC {
		t.Errorf("got %s, want one time in UTC", record.Bytes())
	}
}

func TestRecordIsAppendedTo(t *testing.T) {
	address := listen(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "record.jsonl")
	for range 2 {
		d, err := egress.NewDialer(egress.Config{RecordFile: file})
		if err != nil {
			t.Fatal(err)
		}
		dial(t, d, address)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	content, err := fs.ReadFile(os.DirFS(dir), filepath.Base(file))
	if err != nil {
		t.Fatal(err)
	}
	if got := addresses(parse(t, content)); !slices.Equal(got, []string{address, address}) {
		t.Errorf("got %q, want a line of each process", got)
	}
}

func TestConcurrentDials(t *testing.T) {
	address := listen(t)
	var record bytes.Buffer
	d, err := egress.NewDialer(egress.Config{Record: &record})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { dial(t, d, address) })
	}
	all.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := addresses(parse(t, record.Bytes())); !slices.Equal(got, []string{address}) {
		t.Errorf("got %q, want one line", got)
	}
}

// full takes nothing until it has room.
type full struct {
	room bool
	bytes.Buffer
}

var errFull = errors.New("disk full")

func (f *full) Write(p []byte) (int, error) {
	if !f.room {
		return 0, errFull
	}
	return f.Buffer.Write(p)
}

func TestRecordThatCannotBeWritten(t *testing.T) {
	address := listen(t)
	var record full
	d, err := egress.NewDialer(egress.Config{Record: &record})
	if err != nil {
		t.Fatal(err)
	}
	dial(t, d, address)
	record.room = true
	dial(t, d, address)
	if got := addresses(parse(t, record.Bytes())); !slices.Equal(got, []string{address}) {
		t.Errorf("got %q, want the destination once there is room", got)
	}
	if err := d.Close(); !errors.Is(err, errFull) {
		t.Errorf("closing: got %v, want %v", err, errFull)
	}
}

func TestRecordThatCannotBeOpened(t *testing.T) {
	_, err := egress.NewDialer(egress.Config{RecordFile: filepath.Join(t.TempDir(), "no", "folder")})
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "opening the record of destinations: ") {
		t.Errorf("got %v, want one that says so", err)
	}
}
