package queue_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func putPolicy(t *testing.T, c *queue.Client, kind book.Kind, project, value string, expect uint64) (revision uint64) {
	t.Helper()
	revision, err := c.PutPolicy(t.Context(), kind, project, []byte(value), expect)
	if err != nil {
		t.Fatalf("PutPolicy(%s, %q, %q, %d) = %v", kind, project, value, expect, err)
	}
	return revision
}

func getPolicy(t *testing.T, c *queue.Client, kind book.Kind, project string) book.Entry {
	t.Helper()
	entry, err := c.GetPolicy(t.Context(), kind, project)
	if err != nil {
		t.Fatalf("GetPolicy(%s, %q) = %v", kind, project, err)
	}
	return entry
}

// wantConflict checks that an error tells the caller to read again.
func wantConflict(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, policy.ErrConflict) {
		t.Errorf("got error %v, want policy.ErrConflict", err)
		return
	}
	wantFault(t, err, fault.Transient, fault.ConcurrentWriter)
}

func TestPolicyFromFirstToLast(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	const project = "my.project"
	if got := getPolicy(t, client, book.Policy, project); len(got.Value) > 0 || got.Revision != 0 || got.Project != project {
		t.Errorf("before the first: got %+v, want no value and no revision", got)
	}
	if err := client.DeletePolicy(t.Context(), book.Policy, project, 0); err != nil {
		t.Errorf("deleting what never was: %v", err)
	}
	_, err := client.PutPolicy(t.Context(), book.Policy, project, []byte("zero"), 7)
	wantConflict(t, err)

	first := putPolicy(t, client, book.Policy, project, "one", 0)
	got := getPolicy(t, client, book.Policy, project)
	if string(got.Value) != "one" || got.Revision != first || got.Kind != book.Policy || got.Project != project || time.Since(got.At) > time.Minute {
		t.Errorf("got %+v, want one at %d, just now", got, first)
	}
	for _, stale := range []uint64{0, first - 1, first + 1} {
		_, err := client.PutPolicy(t.Context(), book.Policy, project, []byte("stale"), stale)
		wantConflict(t, err)
		wantConflict(t, client.DeletePolicy(t.Context(), book.Policy, project, stale))
	}
	if got := getPolicy(t, client, book.Policy, project); got.Revision != first {
		t.Errorf("after stale changes: revision %d, want %d", got.Revision, first)
	}
	second := putPolicy(t, client, book.Policy, project, "two", first)
	if err := client.DeletePolicy(t.Context(), book.Policy, project, second); err != nil {
		t.Fatalf("DeletePolicy = %v", err)
	}
	deleted := getPolicy(t, client, book.Policy, project)
	if len(deleted.Value) > 0 || deleted.Revision <= second {
		t.Errorf("after the deletion: got %+v, want no value and a revision above %d", deleted, second)
	}
	if err := client.DeletePolicy(t.Context(), book.Policy, project, second); err != nil {
		t.Errorf("deleting it again: %v", err)
	}
	if again := getPolicy(t, client, book.Policy, project); again.Revision != deleted.Revision {
		t.Errorf("the second deletion has revision %d, want that of the first, %d", again.Revision, deleted.Revision)
	}
	third := putPolicy(t, client, book.Policy, project, "three", 0)
	if err := client.DeletePolicy(t.Context(), book.Policy, project, third); err != nil {
		t.Fatal(err)
	}
	fourth := putPolicy(t, client, book.Policy, project, "four", getPolicy(t, client, book.Policy, project).Revision)

	history, err := client.PolicyHistory(t.Context(), project)
	if err != nil {
		t.Fatalf("PolicyHistory = %v", err)
	}
	var values []string
	for i, entry := range history {
		values = append(values, string(entry.Value))
		if i > 0 && entry.Revision <= history[i-1].Revision {
			t.Errorf("revision %d follows %d", entry.Revision, history[i-1].Revision)
		}
	}
	if got, want := strings.Join(values, ","), "one,two,,three,,four"; got != want {
		t.Errorf("history is %q, want %q", got, want)
	}
	if last := history[len(history)-1]; last.Revision != fourth || last.Kind != book.Policy || last.Project != project {
		t.Errorf("last entry of the history is %+v, want revision %d", last, fourth)
	}
}

// Kinds, projects and harbors are told apart, also where one name begins with another.
func TestPoliciesAreTheirOwn(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	other := queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"})
	places := []struct {
		client  *queue.Client
		kind    book.Kind
		project string
	}{
		{client, book.Policy, "a"},
		{client, book.Policy, "a.b"},
		{client, book.Policy, "aa"},
		{client, book.State, "a"},
		{client, book.Pause, ""},
		{client, book.Pause, "a"},
		{client, book.Declared, ""},
		{other, book.Policy, "a"},
	}
	for i, p := range places {
		putPolicy(t, p.client, p.kind, p.project, fmt.Sprint("value ", i), 0)
	}
	for i, p := range places {
		if got, want := string(getPolicy(t, p.client, p.kind, p.project).Value), fmt.Sprint("value ", i); got != want {
			t.Errorf("%s of %q: got %q, want %q", p.kind, p.project, got, want)
		}
	}
}

// Of many who have read the same revision, exactly one changes it.
func TestPutPolicyAtOnce(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	clients := []*queue.Client{queuetest.NewClient(t, server), queuetest.NewClient(t, server), queuetest.NewClient(t, server)}
	revision := uint64(0)
	for round := range 50 {
		if round%10 == 9 { // From a deletion on, by 0, as well.
			if err := clients[0].DeletePolicy(t.Context(), book.Policy, "demo", revision); err != nil {
				t.Fatal(err)
			}
			revision = 0
		}
		revisions, failures := make([]uint64, len(clients)), make([]error, len(clients))
		start := make(chan struct{})
		var programs sync.WaitGroup
		for i, client := range clients {
			programs.Go(func() {
				<-start
				revisions[i], failures[i] = client.PutPolicy(t.Context(), book.Policy, "demo", []byte("same value"), revision)
			})
		}
		close(start)
		programs.Wait()
		winners := 0
		for i, err := range failures {
			if err == nil {
				winners++
				revision = revisions[i]
				continue
			}
			wantConflict(t, err)
		}
		if winners != 1 {
			t.Fatalf("round %d: %d of %d succeeded, want 1", round, winners, len(clients))
		}
		if got := getPolicy(t, clients[round%len(clients)], book.Policy, "demo").Revision; got != revision {
			t.Fatalf("round %d: the revision is %d, want the winner's, %d", round, got, revision)
		}
	}
}

func TestPolicyHistoryIsBounded(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	revision := uint64(0)
	for i := range 70 {
		revision = putPolicy(t, client, book.Policy, "demo", fmt.Sprint(i), revision)
		putPolicy(t, client, book.State, "demo", fmt.Sprint(i), getPolicy(t, client, book.State, "demo").Revision)
	}
	history, err := client.PolicyHistory(t.Context(), "demo")
	if err != nil || len(history) != 64 {
		t.Fatalf("PolicyHistory = %d entries, %v; want 64", len(history), err)
	}
	for i, entry := range history {
		if want := fmt.Sprint(i + 6); string(entry.Value) != want {
			t.Fatalf("entry %d is %q, want %q", i, entry.Value, want)
		}
	}
	if history, err := client.PolicyHistory(t.Context(), "unknown"); err != nil || len(history) != 0 {
		t.Errorf("PolicyHistory of an unknown project = %v, %v; want nothing", history, err)
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	const limit = 1000 << 10
	tests := []struct {
		name    string
		kind    book.Kind
		project string
		size    int
		reason  fault.Reason
	}{
		{"empty", book.Policy, "demo", 0, fault.Malformed},
		{"too large", book.Policy, "demo", limit + 1, fault.TooLarge},
		{"larger than a message may be", book.Policy, "demo", 2 << 20, fault.TooLarge},
		{"unknown kind", "blessing", "demo", 1, fault.Malformed},
		{"kind that is no token", "policy.>", "demo", 1, fault.Malformed},
		{"no project's name", book.Policy, "Demo App", 1, fault.Malformed},
	}
	for _, tt := range tests {
		_, err := client.PutPolicy(t.Context(), tt.kind, tt.project, bytes.Repeat([]byte("a"), tt.size), 0)
		if err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		wantFault(t, err, fault.Permanent, tt.reason)
	}
	putPolicy(t, client, book.Policy, "demo", strings.Repeat("a", limit), 0)

	// Somebody else wrote it, past the limit of this program.
	subject := queue.PolicySubject("default", book.Policy, "large")
	if _, err := bare(t, server).Publish(t.Context(), subject, bytes.Repeat([]byte("a"), limit+1)); err != nil {
		t.Fatal(err)
	}
	_, err := client.GetPolicy(t.Context(), book.Policy, "large")
	wantFault(t, err, fault.Permanent, fault.TooLarge)
	_, err = client.PolicyHistory(t.Context(), "large")
	wantFault(t, err, fault.Permanent, fault.TooLarge)
	// It can be deleted all the same.
	handle, err := bare(t, server).Stream(t.Context(), "KV_POLICIES")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.DeletePolicy(t.Context(), book.Policy, "large", handle.CachedInfo().State.LastSeq); err != nil {
		t.Errorf("DeletePolicy = %v", err)
	}
	if got := getPolicy(t, client, book.Policy, "large"); len(got.Value) > 0 {
		t.Error("it is still there")
	}
}

// What an auditor asks for must be there: not even an operator removes it by mistake.
func TestPoliciesCannotBePurged(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	revision := putPolicy(t, client, book.Policy, "demo", "one", 0)
	handle, err := bare(t, server).Stream(t.Context(), "KV_POLICIES")
	if err != nil {
		t.Fatal(err)
	}
	wantErrorWith(t, handle.Purge(t.Context()), "err_code=10110")
	wantErrorWith(t, handle.DeleteMsg(t.Context(), revision), "err_code=10057")
	kv, err := bare(t, server).KeyValue(t.Context(), "POLICIES")
	if err != nil {
		t.Fatalf("NATS's own tools do not take it for a bucket: %v", err)
	}
	key := strings.TrimPrefix(queue.PolicySubject("default", book.Policy, "demo"), "$KV.POLICIES.")
	if entry, err := kv.Get(t.Context(), key); err != nil || string(entry.Value()) != "one" || entry.Revision() != revision {
		t.Errorf("NATS's own client reads %v, %v; want one at %d", entry, err, revision)
	}
	if err := kv.Delete(t.Context(), key); err != nil {
		t.Errorf("NATS's own client cannot delete: %v", err)
	}
	if got := getPolicy(t, client, book.Policy, "demo"); len(got.Value) > 0 {
		t.Errorf("got %q after a deletion by NATS's own client", got.Value)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	if value, revision, err := client.LoadState(t.Context(), "full", "my.project"); value != nil || revision != 0 || err != nil {
		t.Errorf("LoadState = %q, %d, %v before the first; want nothing", value, revision, err)
	}
	first, err := client.SaveState(t.Context(), "full", "my.project", []byte("page 1"), 0)
	if err != nil {
		t.Fatalf("SaveState = %v", err)
	}
	if _, err := client.SaveState(t.Context(), "recent", "", []byte("since"), 0); err != nil {
		t.Fatalf("SaveState = %v", err)
	}
	for _, stale := range []uint64{0, first + 1} {
		_, err := client.SaveState(t.Context(), "full", "my.project", []byte("page 2"), stale)
		wantConflict(t, err)
	}
	second, err := client.SaveState(t.Context(), "full", "my.project", []byte("page 3"), first)
	if err != nil {
		t.Fatalf("SaveState = %v", err)
	}
	value, revision, err := queuetest.NewClient(t, server).LoadState(t.Context(), "full", "my.project")
	if string(value) != "page 3" || revision != second || err != nil {
		t.Errorf("LoadState = %q, %d, %v; want page 3, %d", value, revision, err, second)
	}
	if value, _, err := client.LoadState(t.Context(), "recent", ""); string(value) != "since" || err != nil {
		t.Errorf("LoadState = %q, %v; want since", value, err)
	}
	if _, err := client.SaveState(t.Context(), "full", "my.project", nil, second); err != nil {
		t.Errorf("SaveState of nothing = %v", err)
	}
	if value, _, err := client.LoadState(t.Context(), "full", "my.project"); len(value) > 0 || err != nil {
		t.Errorf("LoadState = %q, %v; want nothing", value, err)
	}
	_, err = client.SaveState(t.Context(), "full", "my.project", make([]byte, 256<<10+1), 0)
	wantFault(t, err, fault.Permanent, fault.TooLarge)
	_, err = client.SaveState(t.Context(), "a.b", "my.project", nil, 0)
	wantFault(t, err, fault.Permanent, fault.Malformed)
	_, _, err = client.LoadState(t.Context(), "", "my.project")
	wantFault(t, err, fault.Permanent, fault.Malformed)
	if got := waiting(t, bare(t, server), "KV_SWEEPS"); got != 2 {
		t.Errorf("the bucket holds %d values, want the newest of each, 2", got)
	}
}

func TestPoliciesWithoutAServer(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := client.PutPolicy(t.Context(), book.Policy, "demo", []byte("one"), 0)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	_, err = client.Ask(t.Context(), "known", nil)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
}

// jetstream's own settings of the buckets, as far as guarantees depend on them.
func TestBucketsAreMadeForTheirGuarantees(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	before := time.Now()
	queuetest.NewClient(t, server)
	for name, history := range map[string]int64{"KV_POLICIES": 64, "KV_SWEEPS": 1} {
		c := streamConfig(t, bare(t, server), name)
		if c.MaxMsgsPerSubject != history || c.MaxAge != 0 || c.AllowDirect || !c.DenyDelete || c.Storage != jetstream.FileStorage {
			t.Errorf("%s: %+v", name, c)
		}
		if first := uint64(before.UnixMilli()); c.FirstSeq < first || c.FirstSeq > first+60_000 {
			t.Errorf("%s begins at revision %d, want the time in milliseconds, %d", name, c.FirstSeq, first)
		}
	}
}
