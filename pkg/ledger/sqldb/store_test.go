package sqldb_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

func TestView(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		ledgertest.TestView(t, func(t *testing.T) ledgertest.View {
			t.Helper()
			if d.name == "postgres" {
				return sqldb.AnyOrder{Store: postgresDatabase(t).open(t)}
			}
			return sqldb.AnyOrder{Store: sqliteDatabase(t).open(t)}
		})
	})
}

func open(t *testing.T, path string) *sqldb.Store {
	t.Helper()
	store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
	if err != nil {
		t.Fatalf("Open(%s): %v", path, err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return store
}

// raw opens a file without the store, to look at it or to harm it.
func raw(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("closing: %v", err)
		}
	})
	return db
}

func exec(tb testing.TB, db *sql.DB, statement string) {
	tb.Helper()
	if _, err := db.ExecContext(tb.Context(), statement); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}

func history() []artifact.Entry {
	ref := ledgertest.Ref("demo/app", 1)
	received, signed := ledgertest.Event(artifact.Received, ref), ledgertest.Event(artifact.Signed, ref)
	received.Tag, signed.Parent = "v1", ledgertest.Ref("demo/app", 2).Digest()
	return ledgertest.Entries(received, signed, ledgertest.ProjectEvent(artifact.Drifted, "demo"))
}

func TestReopen(t *testing.T) {
	// A path that would mean something else in an address.
	path := filepath.Join(t.TempDir(), "the ledger?mode=memory&x=%41#y.db")
	first, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	ledgertest.Apply(t, first, ledgertest.Begin(t, first), history()...)
	want := ledgertest.All(t, first, ledger.Query{})
	wantPosition, err := first.Position(t.Context())
	if err != nil || len(want) != 1 {
		t.Fatalf("%d rows, %v; want 1", len(want), err)
	}
	if err := first.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat = %v, %v; want a file that only its owner may read", info, err)
	}

	second := open(t, path)
	if got := ledgertest.All(t, second, ledger.Query{}); !reflect.DeepEqual(got, want) {
		t.Errorf("rows after opening again = %+v, want %+v", got, want)
	}
	if got, err := second.Position(t.Context()); err != nil || !got.Equal(wantPosition) {
		t.Errorf("Position() = %+v, %v; want %+v", got, err, wantPosition)
	}
}

// TestApplyIsAllOrNothing makes each write of a batch fail in turn, as a crash between two of them would.
func TestApplyIsAllOrNothing(t *testing.T) {
	for _, write := range []string{
		"INSERT ON units", "INSERT ON tags", "INSERT ON parents", "INSERT ON project_events", "UPDATE ON view_position",
	} {
		t.Run(write, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			store := open(t, path)
			basis := ledgertest.Begin(t, store)
			db := raw(t, path)
			exec(t, db, "CREATE TRIGGER broken BEFORE "+write+" BEGIN SELECT RAISE(ABORT, 'broken'); END")

			err := store.Apply(t.Context(), basis, history())
			if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.StorageUnavailable {
				t.Errorf("Apply = %v (%+v), want a transient fault of the storage", err, got)
			}
			if got := ledgertest.All(t, store, ledger.Query{}); len(got) != 0 {
				t.Errorf("rows of a failed batch = %+v, want none", got)
			}
			if got := ledgertest.AllEvents(t, store, ledger.EventQuery{}); len(got) != 0 {
				t.Errorf("events of a failed batch = %+v, want none", got)
			}
			if got, err := store.Position(t.Context()); err != nil || got.Seq != 0 {
				t.Errorf("Position() = %+v, %v; want sequence 0", got, err)
			}

			exec(t, db, "DROP TRIGGER broken")
			ledgertest.Apply(t, store, basis, history()...)
			if got := ledgertest.All(t, store, ledger.Query{}); len(got) != 1 || len(got[0].Tags) != 1 || len(got[0].Parents) != 1 {
				t.Errorf("rows = %+v, want one with its tag and parent", got)
			}
			if got := ledgertest.AllEvents(t, store, ledger.EventQuery{}); len(got) != 1 {
				t.Errorf("events = %+v, want one", got)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		kind    fault.Kind
		reason  fault.Reason
		says    string
	}{
		{
			"newer schema",
			func(t *testing.T, path string) {
				t.Helper()
				closeNow(t, path)
				exec(t, raw(t, path), "INSERT INTO ledger_schema (version_id, is_applied) VALUES (99, TRUE)")
			},
			fault.Permanent, fault.NewerVersion, "schema version 99, this program knows up to",
		},
		{
			"another program's database",
			func(t *testing.T, path string) {
				t.Helper()
				exec(t, raw(t, path), "CREATE TABLE units (id INTEGER)")
			},
			fault.Permanent, fault.StorageUnavailable, "tables of another program",
		},
		{
			"no file",
			func(t *testing.T, path string) {
				t.Helper()
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
			},
			fault.Transient, fault.StorageUnavailable, "is a directory",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			tt.prepare(t, path)
			store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
			if err == nil {
				t.Fatalf("Open succeeds, want an error; closing: %v", store.Close())
			}
			if got := fault.Of(err); got.Kind != tt.kind || got.Reason != tt.reason || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Open: error %v (%s, %s); want %s, %s, with %q", err, got.Kind, got.Reason, tt.kind, tt.reason, tt.says)
			}
		})
	}
	if _, err := sqldb.Open(t.Context(), sqldb.Config{}); err == nil {
		t.Error("Open without a path: no error")
	}
}

// TestDamagedDatabaseIsReplaced harms the file in several ways. The view is disposable: a new one must be there, empty,
// with the damaged one beside it, and it must be said once.
func TestDamagedDatabaseIsReplaced(t *testing.T) {
	// page overwrites one page of the file, past those that opening it reads, or cuts the file there.
	page := func(t *testing.T, path string, content []byte) {
		t.Helper()
		var number int64
		err := raw(t, path).QueryRowContext(t.Context(), "SELECT rootpage FROM sqlite_schema WHERE name = 'units'").Scan(&number)
		if err != nil {
			t.Fatal(err)
		}
		offset := (number - 1) * 4096
		if content == nil {
			err = os.Truncate(path, offset)
		} else {
			err = overwrite(path, offset, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		harm func(t *testing.T, path string)
	}{
		{"no database", func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"a page of garbage", func(t *testing.T, path string) { t.Helper(); page(t, path, bytes.Repeat([]byte{0xa5}, 4096)) }},
		{"a page of zeros", func(t *testing.T, path string) { t.Helper(); page(t, path, make([]byte, 4096)) }},
		{"cut off", func(t *testing.T, path string) { t.Helper(); page(t, path, nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			filled, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			ledgertest.Apply(t, filled, ledgertest.Begin(t, filled), history()...)
			if err := filled.Close(); err != nil {
				t.Fatal(err)
			}
			tt.harm(t, path)
			harmed, err := os.ReadFile(path) //nolint:gosec // a file of the test
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+"-wal", []byte("a log"), 0o600); err != nil {
				t.Fatal(err)
			}

			var log bytes.Buffer
			store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path, Logger: zerolog.New(&log)})
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			if got := ledgertest.All(t, store, ledger.Query{}); len(got) != 0 {
				t.Errorf("rows = %+v, want none of a damaged database", got)
			}
			ledgertest.Apply(t, store, ledgertest.Begin(t, store), history()...)
			if err := store.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			aside, err := filepath.Glob(path + ".damaged-*[0-9]")
			if err != nil || len(aside) != 1 {
				t.Fatalf("files set aside = %v, %v; want one", aside, err)
			}
			if got, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(got, harmed) {
				t.Errorf("%s: %d bytes, %v; want the %d of the damaged file", aside[0], len(got), err, len(harmed))
			}
			if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), aside[0]) || !strings.Contains(log.String(), `"level":"error"`) {
				t.Errorf("log = %s, want one error that names %s", log.String(), aside[0])
			}
			if got := ledgertest.All(t, open(t, path), ledger.Query{}); len(got) != 1 {
				t.Errorf("rows after opening again = %+v, want the one that was filled in", got)
			}
		})
	}
}

func overwrite(path string, offset int64, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // a file of the test
	if err != nil {
		return err
	}
	_, err = file.WriteAt(content, offset)
	return errors.Join(err, file.Close())
}

// TestDamagedDatabaseThatCannotBeSetAside keeps its fault.
func TestDamagedDatabaseThatCannotBeSetAside(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "ledger.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for second := range int64(60) { // a folder with files in it is in the way, whatever the second
		at := time.Now().Unix() + second
		if err := os.MkdirAll(filepath.Join(fmt.Sprintf("%s.damaged-%d", path, at), "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
	if got := fault.Of(err); err == nil || got.Kind != fault.Permanent || got.Reason != fault.StorageUnavailable {
		t.Errorf("Open = %v (%+v), want a permanent fault of the storage", err, got)
	}
}

func closeNow(t *testing.T, path string) {
	t.Helper()
	store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if err := store.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// TestRebuild loses the database and lets the projector fill a new one from the stream.
func TestRebuild(t *testing.T) {
	stream := ledgertest.NewStream(ledgertest.Epoch())
	for seed := range 10 {
		for _, entry := range ledgertest.Histories().Example(seed) {
			stream.Append(entry.Event)
		}
	}
	last := stream.Append(ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 1)))

	project := func(path string) []ledger.Row {
		store := open(t, path)
		p, err := ledger.NewProjector(ledger.ProjectorConfig{Source: stream, View: store, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatalf("NewProjector: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run() = %v, want nil", err)
			}
		}()
		deadline := time.After(10 * time.Second)
		for {
			position, err := store.Position(t.Context())
			if err != nil {
				t.Fatalf("Position: %v", err)
			}
			if position.Seq == last {
				return ledgertest.All(t, store, ledger.Query{})
			}
			select {
			case <-deadline:
				t.Fatalf("position %d after 10 s, want %d", position.Seq, last)
			case <-time.After(time.Millisecond):
			}
		}
	}
	folder := t.TempDir()
	want := project(filepath.Join(folder, "first.db"))
	got := project(filepath.Join(folder, "second.db"))
	if len(want) < 2 || !reflect.DeepEqual(got, want) {
		t.Errorf("rows of the rebuilt database = %+v, want %+v", got, want)
	}
}

// TestNamesKeepBothEnds looks at what no row shows yet: when a tag was seen first and last.
func TestNamesKeepBothEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	store := open(t, path)
	basis := ledgertest.Begin(t, store)
	at := func(seq int) time.Time { return ledgertest.Epoch().Add(time.Duration(seq) * time.Second) }
	for _, seen := range []struct {
		seq uint64
		at  time.Time
	}{{5, at(5)}, {3, at(3)}, {9, at(9)}, {4, at(4)}, {9, at(9)}, {3, at(3)}} {
		e := ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 1))
		e.Tag, e.Time = "v1", seen.at
		ledgertest.Apply(t, sqldb.AnyOrder{Store: store}, basis, artifact.Entry{Seq: seen.seq, Event: e})
	}
	type ends struct{ firstSeq, firstAt, lastSeq, lastAt int64 }
	var got ends
	err := raw(t, path).QueryRowContext(t.Context(), "SELECT first_seq, first_at, last_seq, last_at FROM tags").
		Scan(&got.firstSeq, &got.firstAt, &got.lastSeq, &got.lastAt)
	want := ends{3, at(3).UnixMicro(), 9, at(9).UnixMicro()}
	if err != nil || got != want {
		t.Errorf("ends = %+v, %v; want %+v", got, err, want)
	}
}

// TestTwoPrograms has two stores on one database apply the same entries at the same time, while a third one reads.
func TestTwoPrograms(t *testing.T) { onBoth(t, testTwoPrograms) }

func testTwoPrograms(t *testing.T, d database) {
	t.Helper()
	one, two, reader := d.open(t), d.open(t), d.open(t)
	basis := ledgertest.Begin(t, one)
	var entries []artifact.Entry
	for i := range 200 {
		e := ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", i%20))
		e.Tag = fmt.Sprintf("v%d", i)
		entries = append(entries, artifact.Entry{Seq: uint64(i) + 1, Event: e})
	}
	var group sync.WaitGroup
	for _, store := range []*sqldb.Store{one, two} {
		group.Go(func() {
			for batch := range slices.Chunk(entries, 7) {
				if err := store.Apply(t.Context(), basis, batch); err != nil {
					t.Errorf("Apply: %v", err)
				}
			}
		})
	}
	group.Go(func() {
		for range 50 {
			if _, err := reader.Signatures(t.Context(), ledger.Query{Project: "demo"}); err != nil {
				t.Errorf("Signatures: %v", err)
			}
		}
	})
	group.Wait()
	model := &ledgertest.Memory{}
	ledgertest.Apply(t, model, ledgertest.Begin(t, model), entries...)
	got, want := ledgertest.All(t, reader, ledger.Query{}), ledgertest.All(t, model, ledger.Query{})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rows = %+v, want %+v", got, want)
	}
}

// TestWhatWasAppliedIsPassedOver has a second receiver come with events that are in the rows, and with some that are not.
func TestWhatWasAppliedIsPassedOver(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		one, two := d.open(t), d.open(t)
		basis := ledgertest.Begin(t, one)
		entries := ledgertest.Entries(
			ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 1)), ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 2)),
			ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 3)),
		)
		ledgertest.Apply(t, one, basis, entries[:2]...)
		exec(t, d.served(t), "UPDATE units SET sole_key = 'not written again'") // it is derived at each writing
		ledgertest.Apply(t, two, basis, entries[:2]...)
		ledgertest.Apply(t, two, basis, entries...)
		var all, kept int
		query := "SELECT COUNT(*), COUNT(CASE WHEN sole_key <> '' THEN 1 END) FROM units"
		if err := d.served(t).QueryRowContext(t.Context(), query).Scan(&all, &kept); err != nil || all != 3 || kept != 2 {
			t.Errorf("%d rows, of which %d were not written again, %v; want 3 and 2", all, kept, err)
		}
		countsAgree(t, d.served(t))
	})
}
