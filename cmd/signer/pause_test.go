package main_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
)

// TestPauseAndResume goes through it in order, with Harbor away.
func TestPauseAndResume(t *testing.T) {
	harbor, client, _ := newInstallation(t)
	if err := harbor.Close(); err != nil {
		t.Fatal(err)
	}
	const when, who = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, `.+@.+`
	for _, step := range []struct{ name, args, want string }{
		{"nothing to resume", "resume", `signing of all projects was not paused\n`},
		{"pause", "pause --reason ceremony", `signing of all projects is paused since WHEN, by WHO: ceremony\nrequests wait, and nothing is lost\n`},
		{"again", "pause --reason ceremony", `signing of all projects was paused already, since WHEN, by WHO: ceremony\n`},
		{"another reason", "pause --reason outage", `signing of all projects was paused already, since WHEN, by WHO: ceremony; it is now WHEN, by WHO: outage\n`},
		{"a project", "pause --reason ceremony --project demo", `signing of project demo is paused since WHEN, by WHO: ceremony\nrequests wait, and nothing is lost\nthat of all projects is paused as well, since WHEN, by WHO: outage\n`},
		{"resume all", "resume", `signing of all projects goes on since WHEN; it was paused since WHEN, by WHO: outage\nthat of project demo is paused as well, since WHEN, by WHO: ceremony\n`},
		{"resume the project", "resume --project demo --reason done", `signing of project demo goes on since WHEN; it was paused since WHEN, by WHO: ceremony\n`},
	} {
		out, err := run(t, append(strings.Fields(step.args), "--config", "signer.yaml")...)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		want := strings.NewReplacer("WHEN", when, "WHO", who).Replace(step.want)
		if !regexp.MustCompile(`^` + want + `$`).MatchString(out) {
			t.Errorf("%s: got %q, want %q", step.name, out, step.want)
		}
	}
	entry, err := client.GetPolicy(t.Context(), book.Pause, "demo")
	if err != nil {
		t.Fatal(err)
	}
	pause, err := policy.DecodePause(entry.Value)
	if err != nil || pause.Paused || pause.Reason != "done" || !strings.Contains(pause.By, "@") {
		t.Errorf("got %+v and %v, want a pause that is lifted", pause, err)
	}
	_, last, _, err := client.LedgerState(t.Context())
	if err != nil || last != 5 {
		t.Errorf("got %d events and %v, want one for each of the 5 changes", last, err)
	}
}

// TestPauseIsAnEvent reads what the ledger got.
func TestPauseIsAnEvent(t *testing.T) {
	_, client, _ := newInstallation(t)
	if _, err := run(t, "pause", "--config", "signer.yaml", "--project", "demo", "--reason", "why"); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	event := firstEvent(t, client)
	if event.Kind != artifact.Paused || event.Project != "demo" || event.Detail != "why" || !strings.HasSuffix(event.Actor, "@"+host) {
		t.Errorf("got %+v, want that somebody at %s has paused demo", event, host)
	}
	if event.Change == nil || event.Change.From != "cli" {
		t.Errorf("got the change %+v, want one from cli", event.Change)
	}
}

func TestPauseUsage(t *testing.T) {
	newInstallation(t)
	for _, c := range []struct {
		args []string
		err  string
	}{
		{[]string{"pause"}, "--config is required"},
		{[]string{"resume"}, "--config is required"},
		{[]string{"pause", "--config", "signer.yaml"}, "--reason is required"},
		{[]string{"pause", "--config", "signer.yaml", "--reason", " "}, "--reason: want"},
		{[]string{"pause", "--config", "signer.yaml", "--reason", "two\nlines"}, "--reason: want"},
		{[]string{"resume", "--config", "signer.yaml", "--reason", strings.Repeat("x", policy.MaxReason+1)}, "--reason: want"},
		{[]string{"pause", "--config", "signer.yaml", "--reason", "why", "--project", "UP/per"}, "--project"},
		{[]string{"pause", "--config", "none.yaml", "--reason", "why"}, "none.yaml"},
	} {
		if out, err := run(t, c.args...); err == nil || !strings.Contains(err.Error(), c.err) || out != "" {
			t.Errorf("%q: got %q and error %v, want one with %q", c.args, out, err, c.err)
		}
	}
}

// TestPauseWithoutQueue says who refuses, and prints no password.
func TestPauseWithoutQueue(t *testing.T) {
	newInstallation(t)
	write(t, "queue.pw", "not the password")
	_, err := run(t, "pause", "--config", "signer.yaml", "--reason", "why")
	if err == nil || !strings.Contains(err.Error(), "refuses user") || strings.Contains(err.Error(), "not the password") {
		t.Errorf("got error %v, want that the server refuses the user, without the password", err)
	}
}

// firstEvent gives the first event of the ledger.
func firstEvent(t *testing.T, client *queue.Client) artifact.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found := errors.New("found")
	var first artifact.Event
	err := client.Events(ctx, 0, func(_ context.Context, entries []artifact.Entry) error {
		first = entries[0].Event
		return found
	})
	if !errors.Is(err, found) {
		t.Fatal(err)
	}
	return first
}
