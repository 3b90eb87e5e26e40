package deadletter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/deadletter/deadlettertest"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// policies has one project of canaries, and one whose policy cannot be read.
type policies struct{ err error }

func (p policies) Policy(_ context.Context, project string) (policy.Policy, error) {
	if project == "broken" {
		return policy.Policy{}, errors.New("no policy")
	}
	return policy.Policy{Canary: project == "canary"}, p.err
}

var errAway = fault.Newf(fault.Transient, fault.QueueUnavailable, "away")

func ann() deadletter.Actor { return deadletter.Actor{Name: "ann", From: "192.0.2.1"} }

func now() time.Time { return time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) }

func newService(t *testing.T, q *deadlettertest.Queue) *deadletter.Service {
	t.Helper()
	// Each look at the clock is later: what is repeated is the same fact all the same.
	var looks atomic.Int64
	clock := func() time.Time { return now().Add(time.Duration(looks.Add(1)) * time.Second) }
	s, err := deadletter.New(deadletter.Config{Queue: q, Policies: policies{}, Now: clock, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func unreadable(reason fault.Reason) artifact.DeadLetter {
	return artifact.DeadLetter{Reason: string(reason), LastError: "no JSON", FirstAt: now(), LastAt: now(), Stored: []byte("\x1b[31m{")}
}

func TestReplay(t *testing.T) {
	var q deadlettertest.Queue
	pushed := now().Add(-time.Hour)
	l := deadlettertest.Letter("demo/app", 1)
	l.Request.Parent, l.Request.Depth, l.Request.PushedAt, l.Request.SignedBefore = l.Ref.Digest(), 1, &pushed, true
	id := q.Add(l)
	got, err := newService(t, &q).Replay(t.Context(), ann(), id)
	if err != nil || got.Waiting || got.Letter.Ref != l.Ref {
		t.Fatalf("Replay() = %+v, %v; want one that waited for nothing", got, err)
	}
	if want := []deadlettertest.Step{deadlettertest.Read, deadlettertest.Event, deadlettertest.Ask, deadlettertest.Remove}; !slices.Equal(q.Steps(), want) {
		t.Errorf("steps = %v, want %v", q.Steps(), want)
	}
	events, requests := q.Events(), q.Requests()
	if len(events) != 1 || len(requests) != 1 || len(q.Left()) != 0 {
		t.Fatalf("got %d events, %d requests and %d letters; want 1, 1 and none", len(events), len(requests), len(q.Left()))
	}
	e := events[0]
	if e.Kind != artifact.Replayed || e.Ref != l.Ref || e.Actor != "ann" || e.Change == nil || e.Change.From != "192.0.2.1" || e.Origin != artifact.OriginReplay {
		t.Errorf("event = %+v, want one that names ann and where she came from", e)
	}
	if e.CorrelationID == l.CorrelationID {
		t.Error("the correlation id is that of before: the ledger would take the next outcome for the one of before")
	}
	want := artifact.Request{
		Ref: l.Ref, Lane: artifact.Bulk, Origin: artifact.OriginReplay, Actor: "ann", CorrelationID: e.CorrelationID, RequestedAt: e.Time,
		Parent: l.Ref.Digest(), Depth: 1, PushedAt: &pushed, SignedBefore: true,
	}
	if !reflect.DeepEqual(requests[0], want) {
		t.Errorf("request = %+v, want %+v", requests[0], want)
	}
}

// TestCrashes has each step fail, done or not, and repeats: nothing is lost, and it is one fact.
func TestCrashes(t *testing.T) {
	acts := map[string]func(*deadletter.Service, uint64) error{
		"replay": func(s *deadletter.Service, id uint64) error {
			_, err := s.Replay(t.Context(), ann(), id)
			return err
		},
		"discard": func(s *deadletter.Service, id uint64) error {
			_, err := s.Discard(t.Context(), ann(), id, "obsolete")
			return err
		},
	}
	for name, act := range acts {
		for _, step := range []deadlettertest.Step{deadlettertest.Read, deadlettertest.Event, deadlettertest.Ask, deadlettertest.Remove} {
			for _, done := range []bool{false, true} {
				if name == "discard" && step == deadlettertest.Ask {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, done %t", name, step, done), func(t *testing.T) {
					var q deadlettertest.Queue
					id := q.Add(deadlettertest.Letter("demo/app", 1))
					s := newService(t, &q)
					q.Fail(func(s deadlettertest.Step) (bool, error) {
						if s == step {
							return done, errAway
						}
						return false, nil
					})
					if err := act(s, id); !fault.Is(err, fault.Transient) {
						t.Fatalf("got error %v, want the queue's", err)
					}
					asked := len(q.Requests()) == 1
					if len(q.Left()) == 0 && name == "replay" && !asked {
						t.Fatal("letter and request are lost")
					}
					q.Fail(nil)
					err := act(s, id)
					if gone := step == deadlettertest.Remove && done; gone != fault.Is(err, fault.Gone) || !gone && err != nil {
						t.Fatalf("repeated: got error %v, want that it is gone: %t", err, gone)
					}
					// The first try's request waits where it got so far: then the letter is left to whoever signs it.
					left := 0
					if asked && (step != deadlettertest.Remove || !done) {
						left = 1
					}
					if got, want := len(q.Requests()), map[string]int{"replay": 1}[name]; got != want || len(q.Events()) != 1 || len(q.Left()) != left {
						t.Errorf("got %d requests, %d events, %d letters; want %d, 1 and %d", got, len(q.Events()), len(q.Left()), want, left)
					}
				})
			}
		}
	}
}

// TestANewerLetterStays has the request fail again before the letter is removed.
func TestANewerLetterStays(t *testing.T) {
	var q deadlettertest.Queue
	id := q.Add(deadlettertest.Letter("demo/app", 1))
	s := newService(t, &q)
	q.Fail(func(s deadlettertest.Step) (bool, error) {
		if s == deadlettertest.Remove {
			return false, errAway
		}
		return true, nil
	})
	if _, err := s.Replay(t.Context(), ann(), id); err == nil {
		t.Fatal("got no error, want that of removing")
	}
	q.Fail(nil)
	q.Finish(q.Left()[0].Ref)
	again := q.Add(deadlettertest.Letter("demo/app", 1))
	if _, err := s.Replay(t.Context(), ann(), id); !fault.Is(err, fault.Gone) || !strings.Contains(err.Error(), "under a new number") {
		t.Errorf("got error %v, want that the letter is gone, and where to look", err)
	}
	if left := q.Left(); len(left) != 1 || left[0].ID != again || len(q.Requests()) != 0 {
		t.Errorf("letters = %+v, requests %v; want the newer letter alone", left, q.Requests())
	}
}

// TestReplayOfWhatWaits keeps the letter: what waits may be the very request that is being given up, in the moment between its
// letter and its end.
func TestReplayOfWhatWaits(t *testing.T) {
	var q deadlettertest.Queue
	l := deadlettertest.Letter("demo/app", 1)
	request := *l.Request
	request.Lane = artifact.Bulk
	if _, err := q.Enqueue(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	got, err := newService(t, &q).Replay(t.Context(), ann(), q.Add(l))
	if err != nil || !got.Waiting || len(q.Left()) != 1 {
		t.Errorf("Replay() = %+v, %v with %d letters; want a success that says it waits, and the letter", got, err, len(q.Left()))
	}
	q.Finish(l.Ref)
	got, err = newService(t, &q).Replay(t.Context(), ann(), q.Left()[0].ID)
	if err != nil || got.Waiting || len(q.Left()) != 0 || len(q.Requests()) != 1 {
		t.Errorf("then Replay() = %+v, %v with %d letters and %d requests; want none and one", got, err, len(q.Left()), len(q.Requests()))
	}
}

func TestReplayOfWhatCannotBeRead(t *testing.T) {
	known := unreadable(fault.NewerVersion)
	known.Ref = deadlettertest.Letter("demo/app", 1).Ref
	for _, tt := range []struct {
		name   string
		letter artifact.DeadLetter
		want   []string
	}{
		{"garbage", unreadable(fault.Malformed), []string{"not even which image", "discard it"}},
		{"newer", unreadable(fault.NewerVersion), []string{"Upgrade receiver and signer"}},
		{"newer, of a known image", known, []string{"Upgrade receiver and signer", "sweep of project demo"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var q deadlettertest.Queue
			_, err := newService(t, &q).Replay(t.Context(), ann(), q.Add(tt.letter))
			var refused *deadletter.UnreadableError
			if !errors.As(err, &refused) || !fault.Is(err, fault.Permanent) {
				t.Fatalf("got error %v, want that it cannot be read", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
			if len(q.Left()) != 1 || len(q.Events()) != 0 || len(q.Requests()) != 0 {
				t.Error("something was done all the same")
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	for _, tt := range []struct {
		name   string
		letter artifact.DeadLetter
		kind   artifact.Kind
		stored string
	}{
		{"readable", deadlettertest.Letter("demo/app", 1), artifact.Discarded, ""},
		{"unreadable", unreadable(fault.Malformed), artifact.Unreadable, "\x1b[31m{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var q deadlettertest.Queue
			id := q.Add(tt.letter)
			if _, err := newService(t, &q).Discard(t.Context(), ann(), id, "  nobody needs it\n"); err != nil {
				t.Fatal(err)
			}
			events := q.Events()
			if len(events) != 1 || len(q.Left()) != 0 || len(q.Requests()) != 0 {
				t.Fatalf("got events %+v and %d letters, want one and none", events, len(q.Left()))
			}
			e := events[0]
			if e.Kind != tt.kind || e.Ref != tt.letter.Ref || e.Actor != "ann" || e.Detail != "nobody needs it" || e.Reason != tt.letter.Reason {
				t.Errorf("event = %+v, want who, why, and why it was given up", e)
			}
			var before deadletter.View
			if err := json.Unmarshal(e.Change.Before, &before); err != nil || before.ID != id || string(before.Stored) != tt.stored {
				t.Errorf("before = %s, %v; want the letter", e.Change.Before, err)
			}
		})
	}
}

func TestCheckWhy(t *testing.T) {
	for why, ok := range map[string]bool{
		"": false, "  ab ": false, "abc": true, "größe": true, strings.Repeat("ö", 500): true, strings.Repeat("x", 501): false,
		"two\nlines": false, "a\x1b[31m": false, "a\x00b": false, "bad \xff": false, "turned \u202e round": false, "a\u009b31m": false,
	} {
		_, err := deadletter.CheckWhy(why)
		if (err == nil) != ok {
			t.Errorf("%q: got error %v, want one: %t", why, err, !ok)
		}
		if wrong := policy.FieldErrors(err); !ok && (len(wrong) != 1 || wrong[0].Field != "why") {
			t.Errorf("%q: got %v, want an error about why", why, err)
		}
		var q deadlettertest.Queue
		id := q.Add(deadlettertest.Letter("demo/app", 1))
		if _, err := newService(t, &q).Discard(t.Context(), ann(), id, why); (err == nil) != ok || !ok && len(q.Left()) == 0 {
			t.Errorf("Discard(%q): got error %v and %d letters", why, err, len(q.Left()))
		}
	}
}

// TestDifferentPeopleAreDifferentFacts: both have asked.
func TestDifferentPeopleAreDifferentFacts(t *testing.T) {
	var q deadlettertest.Queue
	id := q.Add(deadlettertest.Letter("demo/app", 1))
	s := newService(t, &q)
	q.Fail(func(s deadlettertest.Step) (bool, error) {
		if s == deadlettertest.Ask {
			return false, errAway
		}
		return true, nil
	})
	for _, name := range []string{"ann", "bob", "ann"} {
		if _, err := s.Replay(t.Context(), deadletter.Actor{Name: name}, id); err == nil {
			t.Fatal("got no error, want that of the queue")
		}
	}
	if got := q.Events(); len(got) != 2 || got[0].Actor != "ann" || got[1].Actor != "bob" {
		t.Errorf("events = %+v, want one of each", got)
	}
}

// TestCanaries keeps images of the service's own out of the report.
func TestCanaries(t *testing.T) {
	for project, canary := range map[string]bool{"canary": true, "demo": false, "broken": false} {
		var q deadlettertest.Queue
		if _, err := newService(t, &q).Replay(t.Context(), ann(), q.Add(deadlettertest.Letter(project+"/app", 1))); err != nil {
			t.Fatal(err)
		}
		if got := q.Events()[0].Canary; got != canary {
			t.Errorf("%s: the event is of a canary: %t, want %t", project, got, canary)
		}
	}
	var q deadlettertest.Queue
	s, err := deadletter.New(deadletter.Config{Queue: &q, Policies: policies{err: policy.ErrNotLoaded}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Replay(t.Context(), ann(), q.Add(deadlettertest.Letter("demo/app", 1))); !fault.Is(err, fault.Transient) || len(q.Events()) != 0 {
		t.Errorf("without policies: error %v and %d events, want that it is tried later", err, len(q.Events()))
	}
}

func TestList(t *testing.T) {
	var q deadlettertest.Queue
	for n := range 250 {
		q.Add(deadlettertest.Letter([]string{"demo/app", "other/app"}[n%2], n))
	}
	q.Add(unreadable(fault.Malformed))
	s := newService(t, &q)
	for _, tt := range []struct {
		name   string
		filter deadletter.Filter
		want   int
	}{
		{"all", deadletter.Filter{}, 251},
		{"a project", deadletter.Filter{Project: "demo"}, 125},
		{"a reason", deadletter.Filter{Reason: string(fault.Malformed)}, 1},
		{"both", deadletter.Filter{Project: "demo", Reason: string(fault.Malformed)}, 0},
	} {
		all, err := s.All(t.Context(), tt.filter, nil)
		if err != nil || len(all) != tt.want {
			t.Errorf("%s: got %d letters and %v, want %d", tt.name, len(all), err, tt.want)
		}
		for i, l := range all {
			if l.Stored != nil || i > 0 && l.ID <= all[i-1].ID {
				t.Errorf("%s: letter %d comes behind %d or has what was stored", tt.name, l.ID, all[max(i, 1)-1].ID)
			}
		}
	}
	var ids []uint64
	query := deadletter.Query{Limit: 7}
	for {
		page, err := s.List(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page.Letters {
			ids = append(ids, l.ID)
		}
		if query.After = page.Next; page.Next == 0 {
			break
		}
	}
	if len(ids) != 251 || !slices.IsSorted(ids) || ids[250] != 251 {
		t.Errorf("pages have %d letters, want each of 251 once", len(ids))
	}
}

// TestAPageLooksAtLimitedMany: one who may see little must not keep the queue busy.
func TestAPageLooksAtLimitedMany(t *testing.T) {
	var q deadlettertest.Queue
	for n := range 2100 {
		q.Add(deadlettertest.Letter("other/app", n))
	}
	q.Add(deadlettertest.Letter("demo/app", 1))
	s := newService(t, &q)
	query := deadletter.Query{Takes: func(l artifact.DeadLetter) (bool, error) { return l.Ref.Project() == "demo", nil }}
	page, err := s.List(t.Context(), query)
	if err != nil || len(page.Letters) != 0 || page.Next != 2000 {
		t.Fatalf("first page = %d letters, next %d, %v; want none, and to go on behind 2000", len(page.Letters), page.Next, err)
	}
	query.After = page.Next
	if page, err = s.List(t.Context(), query); err != nil || len(page.Letters) != 1 || page.Next != 0 {
		t.Errorf("second page = %d letters, next %d, %v; want the one, and the end", len(page.Letters), page.Next, err)
	}
}

func TestManyGoesOn(t *testing.T) {
	var q deadlettertest.Queue
	ids := []uint64{q.Add(deadlettertest.Letter("demo/app", 1)), 99, q.Add(unreadable(fault.Malformed)), q.Add(deadlettertest.Letter("demo/app", 2))}
	s := newService(t, &q)
	fails := 1
	q.Fail(func(s deadlettertest.Step) (bool, error) {
		if s == deadlettertest.Ask && fails > 0 {
			fails--
			return false, errAway
		}
		return true, nil
	})
	var told []int
	results := s.ReplayAll(t.Context(), ann(), ids, func(done, _ int) { told = append(told, done) })
	var got []deadletter.Outcome
	for _, r := range results {
		got = append(got, r.Outcome)
	}
	want := []deadletter.Outcome{deadletter.Failed, deadletter.Missing, deadletter.Unreadable, deadletter.Done}
	if !slices.Equal(got, want) || !slices.Equal(told, []int{0, 1, 2, 3}) {
		t.Errorf("outcomes = %v, told %v; want %v, told before each", got, told, want)
	}
	if sum := deadletter.Sum(results); sum != (deadletter.Summary{Done: 1, Gone: 1, Unreadable: 1, Failed: 1}) {
		t.Errorf("summary = %+v", sum)
	}
}

// TestManyEndsWhereTheQueueIsAway: each letter would wait for it.
func TestManyEndsWhereTheQueueIsAway(t *testing.T) {
	var q deadlettertest.Queue
	var ids []uint64
	for n := range 20 {
		ids = append(ids, q.Add(deadlettertest.Letter("demo/app", n)))
	}
	q.Fail(func(deadlettertest.Step) (bool, error) { return false, errAway })
	results, err := newService(t, &q).DiscardAll(t.Context(), ann(), ids, "obsolete", nil)
	if sum := deadletter.Sum(results); err != nil || sum != (deadletter.Summary{Failed: 5, Left: 15}) || len(q.Steps()) != 5 {
		t.Errorf("got %+v, %v after %d steps; want 5 failures and the rest left", sum, err, len(q.Steps()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if sum := deadletter.Sum(newService(t, &q).ReplayAll(ctx, ann(), ids, nil)); sum.Left != 20 {
		t.Errorf("interrupted: got %+v, want all left", sum)
	}
	if _, err := newService(t, &q).DiscardAll(t.Context(), ann(), ids, "", nil); len(policy.FieldErrors(err)) != 1 {
		t.Errorf("without a reason: got error %v, want one about it", err)
	}
}

// FuzzViewOf: whatever a letter says, its view can be written as JSON, and prints nothing that a terminal obeys.
func FuzzViewOf(f *testing.F) {
	f.Add("\x1b]0;x\a", "a\nb", int64(0))
	f.Add("\xff", "\u202e\u009b", int64(1<<62))
	f.Fuzz(func(t *testing.T, reason, text string, seconds int64) {
		at := time.Unix(seconds, 0)
		v := deadletter.ViewOf(artifact.DeadLetter{ID: 1, Reason: reason, LastError: text, CorrelationID: text, FirstAt: at, LastAt: at, Stored: []byte(text)})
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		v.Stored = nil
		for _, said := range []string{v.Reason, v.LastError, v.CorrelationID} {
			if strings.ContainsFunc(said, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e }) {
				t.Errorf("%q has what a terminal obeys", said)
			}
		}
		var back deadletter.View
		if err := json.Unmarshal(raw, &back); err != nil || string(back.Stored) != text {
			t.Errorf("%s reads as %+v, %v", raw, back, err)
		}
	})
}
