package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	main "github.com/harborseal/harborseal/cmd/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/deadletter/deadlettertest"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
)

// hostileLetters are those that somebody wrote who wants to do something to a terminal.
func hostileLetters(now time.Time) []artifact.DeadLetter {
	young := deadlettertest.Letter("demo/app", 1)
	young.ID, young.FirstAt, young.LastAt = 7, now.Add(-26*time.Hour), now.Add(-90*time.Second)
	long := deadlettertest.Letter("demo/a-longer-name", 2)
	long.ID, long.LastError, long.FirstAt, long.LastAt = 12345, strings.Repeat("größe ", 20), now.Add(-50*time.Hour), now.Add(-49*time.Hour)
	hostile := deadlettertest.Letter("demo/app", 3)
	hostile.ID, hostile.Reason, hostile.LastError = 8, "re\x1b[31mason", "two\nlines\x1b]0;title\a \u202e\u009b31m"
	hostile.Request.Actor, hostile.CorrelationID = "dev\r\x1b[2J", "\u202e"
	unreadable := artifact.DeadLetter{
		ID: 9, Reason: string(fault.Malformed), LastError: "no JSON", FirstAt: now, LastAt: now, Stored: []byte("\x1b[31m{\"\xff" + strings.Repeat("x", 3000)),
	}
	return []artifact.DeadLetter{young, long, hostile, unreadable}
}

func printsOnly(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("got the line %q, want nothing that a terminal obeys", line)
		}
	}
}

func TestLettersAsTable(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	if err := main.PrintLetters(&b, hostileLetters(now), now); err != nil {
		t.Fatal(err)
	}
	printsOnly(t, b.String())
	golden(t, "dead_list.txt", b.String())
	b.Reset()
	for _, l := range hostileLetters(now) {
		if err := main.PrintLetter(&b, l, now); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	printsOnly(t, b.String())
	golden(t, "dead_show.txt", b.String())
	b.Reset()
	if err := main.PrintLetters(&b, nil, now); err != nil || b.String() != "there are no such dead letters\n" {
		t.Errorf("got %q and %v, want that there are none", b.String(), err)
	}
}

// TestLettersAsJSON has what is hostile come out as the same text, and be no command to a terminal.
func TestLettersAsJSON(t *testing.T) {
	var b bytes.Buffer
	texts := []string{"a\x1b[31m", "\u009b\x7f\u202e", "größe ✓", "\U000e0041\U0010ffff", "\u2028"}
	if err := main.WriteJSON(&b, texts); err != nil {
		t.Fatal(err)
	}
	printsOnly(t, b.String())
	var got []string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || strings.Join(got, "|") != strings.Join(texts, "|") {
		t.Errorf("%s reads as %q, %v; want %q", b.String(), got, err, texts)
	}
	if !strings.Contains(b.String(), "größe ✓") {
		t.Errorf("got %s, want what prints as it is", b.String())
	}
}

func TestResults(t *testing.T) {
	results := []deadletter.Result{
		{ID: 1, Outcome: deadletter.Done},
		{ID: 2, Outcome: deadletter.Waiting},
		{ID: 3, Outcome: deadletter.Failed, Err: fault.Newf(fault.Transient, fault.QueueFull, "full\x1b[31m\nof it")},
		{ID: 4, Outcome: deadletter.Left, Err: os.ErrClosed},
		{ID: 5, Outcome: deadletter.Left, Err: os.ErrClosed},
	}
	var b bytes.Buffer
	if err := main.PrintResults(&b, "replayed", results, deadletter.Sum(results)); err != nil {
		t.Fatal(err)
	}
	const want = "3: full [31m; of it\nreplayed 2 of 5; 1 waited in the queue already; 1 failed; 2 not tried: run it again when the queue answers\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m 1s", 3*time.Hour + 59*time.Minute: "3h 59m", 50 * time.Hour: "2d 2h",
	} {
		if got := main.Age(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}

func TestDeadUsage(t *testing.T) {
	newFolder(t)
	for _, c := range []struct {
		args string
		err  string
	}{
		{"dead", "want one of dead list"},
		{"dead nonsense", `unknown command "nonsense" of dead`},
		{"dead list", "--config is required"},
		{"dead list --config x -o yaml", "-o: want table or json"},
		{"dead list 7 --config x", "dead show takes a number"},
		{"dead list --all --config x", "dead list has no flag --all"},
		{"dead list --config x --project UP/per", "--project"},
		{"dead show --config x", "want the number of one dead letter"},
		{"dead show 7 8 --config x", "want the number of one dead letter"},
		{"dead show seven --config x", `"seven" is no number of a dead letter`},
		{"dead show 0 --config x", `"0" is no number`},
		{"dead show 7 --config none.yaml", "none.yaml"},
		{"dead replay --config x", "which?"},
		{"dead --config x replay", "which?"},
		{"dead replay 7 --all --config x", "either by their numbers"},
		{"dead replay 7 --project demo --config x", "either by their numbers"},
		{"dead replay --all --project demo --config x", "--all stands for every letter"},
		{"dead replay 7 --why because --config x", "dead replay has no flag --why"},
		{"dead discard 7 --config x", "--why: want why"},
		{"dead discard --why because --config x", "which?"},
		{"dead discard 7 --nonsense --config x", "not defined"},
	} {
		if out, err := run(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.err) || out != "" {
			t.Errorf("%q: got %q and error %v, want one with %q", c.args, out, err, c.err)
		}
	}
}

// bury makes dead letters as signers do, and gives their numbers.
func bury(t *testing.T, client *queue.Client, letters ...artifact.DeadLetter) []string {
	t.Helper()
	for _, l := range letters {
		if _, err := client.Enqueue(t.Context(), *l.Request); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var buried atomic.Int64
	want := int64(len(letters))
	err := client.Consume(ctx, queue.ConsumeConfig{Handle: func(ctx context.Context, d *queue.Delivery) {
		r := d.Request()
		e := artifact.Event{
			ID: artifact.EventID(artifact.Dead, r.Ref), Kind: artifact.Dead, Ref: r.Ref, Time: time.Now().UTC(), Reason: string(fault.QuotaExceeded),
			Detail: "the project is full\x1b[31m", CorrelationID: r.CorrelationID,
		}
		if err := d.Bury(ctx, e); err != nil {
			t.Error(err)
		}
		if buried.Add(1) == want {
			cancel()
		}
	}})
	if buried.Load() != want {
		t.Fatalf("%d requests were buried, %v; want %d", buried.Load(), err, want)
	}
	all, err := client.Letters(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range letters {
		at := slices.IndexFunc(all, func(stored artifact.DeadLetter) bool { return stored.Ref == l.Ref })
		ids = append(ids, strconv.FormatUint(all[at].ID, 10))
	}
	return ids
}

// TestDead goes through it in order, with Harbor away.
func TestDead(t *testing.T) {
	harbor, client, _ := newInstallation(t)
	if err := harbor.Close(); err != nil {
		t.Fatal(err)
	}
	ids := bury(t, client, deadlettertest.Letter("demo/app", 1), deadlettertest.Letter("demo/app", 2), deadlettertest.Letter("other/app", 3))
	steps := []struct {
		name, args string
		want       []string
		not        string
		fails      string
	}{
		{"list", "dead list", []string{"3 dead letters, the oldest given up", "demo/app@sha256:000000000000…", "quota_exceeded"}, "\x1b", ""},
		{"of a project", "dead list --project other", []string{"1 dead letter,", "other/app@"}, "demo/app@", ""},
		{"for a reason", "dead list --reason too_old", []string{"there are no such dead letters"}, "", ""},
		{"show", "dead show " + ids[0], []string{"demo/app@sha256:" + strings.Repeat("0", 63) + "1", "the project is full", "push-1", "dev"}, "\x1b", ""},
		{"show of another", "dead show 999", nil, "", "there is no dead letter 999: "},
		{"replay one, and one that is not there", "dead replay " + ids[0] + " " + ids[0] + " 999", []string{"999: there is no dead letter", "replayed 1 of 2; 1 not there any more"}, "", ""},
		{"replay of a project that has none", "dead replay --project none", []string{"there are no such dead letters"}, "", ""},
		{"discard", "dead discard --why obsolete -o json " + ids[1], []string{`"outcome": "done"`, `"failed": 0`}, "", ""},
		{"replay all", "dead replay --all", []string{"replayed 1 of 1\n"}, "", ""},
		{"nothing is left", "dead list -o json", []string{`"dead_letters": []`}, "", ""},
	}
	for _, step := range steps {
		out, err := run(t, append(strings.Fields(step.args), "--config", "signer.yaml")...)
		if step.fails == "" && err != nil || step.fails != "" && (err == nil || !strings.Contains(err.Error(), step.fails)) {
			t.Fatalf("%s: got %q and error %v, want one with %q", step.name, out, err, step.fails)
		}
		for _, want := range step.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: got %q, want it to say %q", step.name, out, want)
			}
		}
		if step.not != "" && strings.Contains(out, step.not) {
			t.Errorf("%s: got %q, want no %q in it", step.name, out, step.not)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range allEvents(t, client, 3) {
		kinds = append(kinds, string(e.Kind)+" "+e.Ref.Repository())
		if !strings.HasPrefix(e.Actor, "cli:") || !strings.HasSuffix(e.Actor, "@"+host) || e.Change == nil || e.Change.From != "cli" {
			t.Errorf("event %+v, want one that says who at %s", e, host)
		}
	}
	if got, want := strings.Join(kinds, ", "), "replayed demo/app, discarded demo/app, replayed other/app"; got != want {
		t.Errorf("events = %s, want %s", got, want)
	}
}

// allEvents gives the first events of the ledger.
func allEvents(t *testing.T, client *queue.Client, n int) (events []artifact.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	enough := errors.New("enough")
	err := client.Events(ctx, 0, func(_ context.Context, entries []artifact.Entry) error {
		for _, entry := range entries {
			events = append(events, entry.Event)
		}
		if len(events) >= n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("the ledger has %d events, %v; want %d", len(events), err, n)
	}
	return events
}
