package queue_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func ids(entries []artifact.Entry) []string {
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Event.ID)
	}
	return all
}

// testHistory records as one client and reads as another.
func testHistory(t *testing.T, writer, reader *queue.Client) {
	t.Helper()
	r, neighbour := ref(t, "his.tory/app", 1), ref(t, "his.tory/app", 2)
	if entries, more, err := reader.History(t.Context(), r, 10); len(entries) != 0 || more || err != nil {
		t.Errorf("History of what nobody heard of = %d, %t, %v; want nothing", len(entries), more, err)
	}
	var seqs []uint64
	for i, kind := range []artifact.Kind{artifact.Queued, artifact.Failed, artifact.Signed, artifact.Failed, artifact.Signed} {
		seqs = append(seqs, record(t, writer, event(r, kind, fmt.Sprintf("h-%d", i))))
		record(t, writer, event(neighbour, kind, fmt.Sprintf("n-%d", i)))
	}
	for _, tt := range []struct {
		limit int
		want  []string
		more  bool
	}{
		{2, []string{"h-4", "h-3"}, true},
		{4, []string{"h-4", "h-3", "h-2", "h-1"}, true},
		{5, []string{"h-4", "h-3", "h-2", "h-1", "h-0"}, false},
		{500, []string{"h-4", "h-3", "h-2", "h-1", "h-0"}, false},
	} {
		entries, more, err := reader.History(t.Context(), r, tt.limit)
		if err != nil || more != tt.more || !slices.Equal(ids(entries), tt.want) {
			t.Errorf("History(%d) = %v, %t, %v; want %v, %t", tt.limit, ids(entries), more, err, tt.want, tt.more)
			continue
		}
		if e := entries[0]; e.Seq != seqs[4] || e.Subject != queue.LedgerSubject("default", e.Event) || len(e.Data) == 0 {
			t.Errorf("the newest is %d on %q with %d bytes, want %d with what is stored", e.Seq, e.Subject, len(e.Data), seqs[4])
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	testHistory(t, client, client)
	_, _, err := client.History(t.Context(), artifact.Ref{}, 10)
	wantFault(t, err, fault.Permanent, fault.Malformed)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = client.History(ended, ref(t, "his.tory/app", 1), 10)
	wantFault(t, err, fault.Transient, fault.Canceled)
}

// Several pages, of which the last are wanted.
func TestLongHistory(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	r := ref(t, "demo/app", 1)
	const events = 2345
	for i := range events {
		record(t, client, event(r, artifact.Failed, fmt.Sprintf("e-%d", i)))
	}
	entries, more, err := client.History(t.Context(), r, 500)
	if err != nil || !more || len(entries) != 500 || entries[0].Event.ID != fmt.Sprintf("e-%d", events-1) || entries[499].Event.ID != fmt.Sprintf("e-%d", events-500) {
		t.Errorf("History = %d entries, %t, %v; want the newest 500", len(entries), more, err)
	}
}

// What cannot be read, or says that it is something else, is there without its words.
func TestHistoryOfWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r := ref(t, "demo/app", 1)
	forged, err := artifact.EncodeEvent(event(r, artifact.Signed, "forged"))
	if err != nil {
		t.Fatal(err)
	}
	subject := queue.LedgerSubject("default", event(r, artifact.Received, "e"))
	for _, data := range [][]byte{[]byte("not JSON"), forged} {
		if _, err := js.Publish(t.Context(), subject, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.Publish(t.Context(), queue.LedgerSubject("other", event(r, artifact.Received, "e")), forged); err != nil {
		t.Fatal(err)
	}
	entries, _, err := client.History(t.Context(), r, 10)
	if err != nil || len(entries) != 2 || entries[0].Event.ID != "" || entries[1].Event.ID != "" || string(entries[0].Data) != string(forged) {
		t.Errorf("History = %+v, %v; want two entries with zero events", entries, err)
	}
}
