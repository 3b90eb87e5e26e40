package queue_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// bury gives up a request of a reference as a signer does.
func bury(t *testing.T, c *queue.Client, r artifact.Ref, detail string) artifact.Event {
	t.Helper()
	k := consume(t, c, queue.ConsumeConfig{})
	enqueue(t, c, request(r, artifact.Live))
	d := k.next(t)
	e := event(r, artifact.Dead, "dead-"+r.Digest())
	e.Reason, e.Detail, e.CorrelationID = string(fault.TooOld), detail, "c-1"
	if err := d.Bury(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	close(d.finish)
	k.stop()
	receive(t, k.stopped, "Consume to return")
	return e
}

// put stores bytes as the dead letter of a reference, whatever they are.
func put(t *testing.T, js jetstream.JetStream, r artifact.Ref, data []byte) (id uint64) {
	t.Helper()
	ack, err := js.Publish(t.Context(), queue.DeadSubject("default", r), data)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func letters(t *testing.T, c *queue.Client, after uint64, limit int) []artifact.DeadLetter {
	t.Helper()
	list, err := c.Letters(t.Context(), after, limit)
	if err != nil {
		t.Fatalf("Letters(%d, %d) = %v", after, limit, err)
	}
	return list
}

func idsOf(list []artifact.DeadLetter) (ids []uint64) {
	for _, l := range list {
		ids = append(ids, l.ID)
	}
	return ids
}

func TestLetterTellsWhatWasBuried(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	r, before := ref(t, "demo/app", 1), time.Now().Add(-time.Minute)
	bury(t, client, r, "the registry answered 500")
	list := letters(t, client, 0, 0)
	if len(list) != 1 {
		t.Fatalf("%d letters, want 1", len(list))
	}
	l := list[0]
	if l.Ref != r || l.Request == nil || l.Request.Ref != r || l.Request.Lane != artifact.Live || l.Reason != "too_old" ||
		l.LastError != "the registry answered 500" || l.Attempts != 1 || l.CorrelationID != "c-1" {
		t.Errorf("letter = %+v", l)
	}
	if l.FirstAt.Before(before) || l.LastAt.Before(l.FirstAt) || l.LastAt.After(time.Now().Add(time.Minute)) {
		t.Errorf("first at %s, last at %s; want both now, in this order", l.FirstAt, l.LastAt)
	}
	if got, err := artifact.DecodeRequest(l.Stored); err != nil || got != *l.Request {
		t.Errorf("stored request = %+v, %v; want %+v", got, err, *l.Request)
	}
	one, err := client.Letter(t.Context(), l.ID)
	if err != nil || one.ID != l.ID || one.Ref != r || one.LastError != l.LastError {
		t.Errorf("Letter(%d) = %+v, %v; want the same", l.ID, one, err)
	}
}

func TestLettersInPages(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	other := queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"})
	var want []uint64
	for i := range 7 {
		want = append(want, put(t, js, ref(t, "demo/app", i), []byte(`{"v":1,"reason":"too_old"}`)))
		if _, err := js.Publish(t.Context(), queue.DeadSubject("other", ref(t, "demo/app", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	// A new letter of a manifest replaces the old one, and comes last.
	want = append(slices.Delete(want, 2, 3), put(t, js, ref(t, "demo/app", 2), []byte(`{"v":1,"reason":"too_old"}`)))
	var got []uint64
	for after := uint64(0); ; {
		page := idsOf(letters(t, client, after, 3))
		if len(page) > 3 {
			t.Fatalf("a page of %d letters, want at most 3", len(page))
		}
		got = append(got, page...)
		if len(page) < 3 {
			break
		}
		after = page[2]
	}
	if !slices.Equal(got, want) {
		t.Errorf("got letters %v, want %v", got, want)
	}
	for _, after := range []uint64{want[len(want)-1], math.MaxUint64 - 1, math.MaxUint64} {
		if list := letters(t, client, after, 10); len(list) != 0 {
			t.Errorf("Letters after %d = %v, want none", after, idsOf(list))
		}
	}
	if list := letters(t, other, 0, 100); len(list) != 7 {
		t.Errorf("the other harbor has %d letters, want 7", len(list))
	}
	_, err := other.Letter(t.Context(), want[0])
	wantFault(t, err, fault.Gone, fault.NotFound)
	if err := other.RemoveLetter(t.Context(), want[0]); err != nil {
		t.Errorf("RemoveLetter of another harbor's = %v, want nil", err)
	}
	if _, err := client.Letter(t.Context(), want[0]); err != nil {
		t.Errorf("another harbor has removed it: %v", err)
	}
}

func TestRemoveLetter(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	r := ref(t, "demo/app", 1)
	first := put(t, js, r, []byte(`{"v":1,"reason":"too_old"}`))
	second := put(t, js, r, []byte(`{"v":1,"reason":"too_old"}`))
	other := put(t, js, ref(t, "demo/app", 2), []byte(`{"v":1,"reason":"too_old"}`))
	for _, id := range []uint64{0, first, other + 1, math.MaxUint64} {
		if err := client.RemoveLetter(t.Context(), id); err != nil {
			t.Errorf("RemoveLetter(%d) = %v, want nil", id, err)
		}
		_, err := client.Letter(t.Context(), id)
		wantFault(t, err, fault.Gone, fault.NotFound)
	}
	if got := idsOf(letters(t, client, 0, 0)); !slices.Equal(got, []uint64{second, other}) {
		t.Fatalf("letters %v, want the newer one, %d, and %d", got, second, other)
	}
	for range 2 {
		if err := client.RemoveLetter(t.Context(), second); err != nil {
			t.Errorf("RemoveLetter(%d) = %v, want nil", second, err)
		}
	}
	if got := idsOf(letters(t, client, 0, 0)); !slices.Equal(got, []uint64{other}) {
		t.Errorf("letters %v, want the other one, %d", got, other)
	}
}

// What is stored may be of any program, or of nobody's.
func TestLettersOfAnyKind(t *testing.T) {
	t.Parallel()
	r, other := ref(t, "demo/app", 1), ref(t, "private/app", 2)
	asked, err := artifact.EncodeRequest(request(r, artifact.Live))
	if err != nil {
		t.Fatal(err)
	}
	dead := event(r, artifact.Dead, "e-1")
	dead.Detail = "as older programs\x1b[2J wrote it"
	encoded, err := artifact.EncodeEvent(dead)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := artifact.EncodeEvent(event(other, artifact.Dead, "e-1"))
	if err != nil {
		t.Fatal(err)
	}
	text := func(fields map[string]any) []byte {
		data, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	both := map[string]any{"v": 1, "reason": "denied", "request": asked, "event": json.RawMessage(encoded)}
	with := func(fields map[string]any, name string, value any) map[string]any {
		fields = maps.Clone(fields)
		fields[name] = value
		return fields
	}
	tests := []struct {
		name      string
		data      []byte
		ref       artifact.Ref
		request   bool
		reason    string
		lastError string // a part of it
	}{
		{"no bytes", nil, artifact.Ref{}, false, "malformed", "cannot be read"},
		{"not JSON", []byte("\x00\xff{"), artifact.Ref{}, false, "malformed", "cannot be read"},
		{"null", []byte("null"), artifact.Ref{}, false, "malformed", "cannot be read"},
		{"another shape", []byte(`["v",1]`), artifact.Ref{}, false, "malformed", "cannot be read"},
		{"field of another type", []byte(`{"v":1,"reason":"too_old","attempts":-1}`), artifact.Ref{}, false, "malformed", "cannot be read"},
		{"deep", []byte(strings.Repeat("[", 100_000)), artifact.Ref{}, false, "malformed", "cannot be read"},
		{"newer", []byte(`{"v":2,"reason":{"code":7}}`), artifact.Ref{}, false, "newer_version", "version 2"},
		{"only a reason", []byte(`{"reason":"too_old"}`), artifact.Ref{}, false, "too_old", ""},
		{"older program's", text(both), r, true, "denied", "as older programs [2J wrote it"},
		{"last error", text(with(both, "last_error", "403")), r, true, "denied", "403"},
		{"request alone", text(map[string]any{"v": 1, "reason": "denied", "request": asked}), r, true, "denied", ""},
		{"event alone", text(map[string]any{"v": 1, "reason": "malformed", "request": []byte("?"), "event": json.RawMessage(encoded)}), r, false, "malformed", ""},
		{"two manifests", text(with(both, "event", json.RawMessage(foreign))), artifact.Ref{}, false, "denied", "names two manifests"},
		{"endless words", text(map[string]any{"v": 1, "reason": "denied", "last_error": strings.Repeat("é", 100_000)}), artifact.Ref{}, false, "denied", "ééé"},
	}
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	for i, tt := range tests {
		put(t, js, ref(t, "stored/here", i), tt.data)
	}
	list := letters(t, client, 0, 0)
	if len(list) != len(tests) {
		t.Fatalf("%d letters, want %d", len(list), len(tests))
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := list[i]
			if l.Ref != tt.ref || (l.Request != nil) != tt.request || l.Reason != tt.reason || !strings.Contains(l.LastError, tt.lastError) {
				t.Errorf("letter = %+v\nwant ref %q, request %t, reason %s, last error %q", l, tt.ref, tt.request, tt.reason, tt.lastError)
			}
			if len(l.LastError) > 4096 || strings.ContainsAny(l.LastError, "\x1b\n\x00") || l.FirstAt.IsZero() || l.LastAt.IsZero() {
				t.Errorf("last error of %d bytes, first at %s, last at %s; want little and printable text, and times", len(l.LastError), l.FirstAt, l.LastAt)
			}
			if l.Reason == "malformed" && l.Request == nil && string(l.Stored) != string(tt.data) && tt.name != "event alone" {
				t.Errorf("stored = %q, want %q", l.Stored, tt.data)
			}
		})
	}
}

// Programs in other accounts have these rights alone.
func TestLettersNeedNoConsumer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	id := put(t, js, ref(t, "demo/app", 1), []byte(`{"v":1,"reason":"too_old"}`))
	asked := make(chan *nats.Msg, 100)
	raw := queue.RawConnection(t, server)
	if _, err := raw.ChanSubscribe("$JS.API.>", asked); err != nil {
		t.Fatal(err)
	}
	if err := raw.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	letters(t, client, 0, 0)
	if _, err := client.Letter(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := client.RemoveLetter(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := raw.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	allowed := []string{"$JS.API.STREAM.INFO.DEAD", "$JS.API.STREAM.MSG.GET.DEAD", "$JS.API.STREAM.MSG.DELETE.DEAD"}
	seen := map[string]bool{}
	eventually(t, "the removal was seen", func() bool {
		for len(asked) > 0 {
			msg := <-asked
			seen[msg.Subject] = true
			if !slices.Contains(allowed, msg.Subject) {
				t.Errorf("used %s, allowed are %v", msg.Subject, allowed)
			}
		}
		return seen["$JS.API.STREAM.MSG.DELETE.DEAD"]
	})
}

func TestManyLetters(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, js := queuetest.NewClient(t, server), bare(t, server)
	const many = 10_000
	for i := range many {
		subject := fmt.Sprintf("dead.v1.default.%s.%032x", queue.EncodeToken(fmt.Sprint("p", i%50)), i)
		if _, err := js.PublishAsync(subject, []byte(`{"v":1,"reason":"too_old"}`), jetstream.WithStallWait(patience)); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, js.PublishAsyncComplete(), "all to be stored")
	started, read, last := time.Now(), 0, uint64(0)
	for {
		page := letters(t, client, last, 500)
		if len(page) == 0 {
			break
		}
		read, last = read+len(page), page[len(page)-1].ID
	}
	took := time.Since(started)
	t.Logf("read %d letters in %s", read, took)
	if read != many || took > patience {
		t.Errorf("read %d letters in %s, want %d in less than %s", read, took, many, patience)
	}
}

func FuzzLetter(f *testing.F) {
	f.Add([]byte(`{"v":1,"reason":"too_old","request":"e30=","event":{"v":1}}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := queue.DecodeLetter(data)
		if l.ID != 1 || l.Reason == "" || len(l.LastError) > 4096 || l.FirstAt.IsZero() || l.LastAt.IsZero() && l.Reason == "malformed" {
			t.Errorf("letter of %q = %+v", data, l)
		}
		if l.Request != nil && l.Request.Ref != l.Ref {
			t.Errorf("letter of %q is of %s, its request of %s", data, l.Ref, l.Request.Ref)
		}
	})
}
