package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	main "github.com/harborseal/harborseal/cmd/signer"
	"github.com/harborseal/harborseal/pkg/app/shell"
	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/deadletter/deadlettertest"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// TestHostileTextAtTheTerminal: everything that a command prints and that somebody else has said, in every place where it may stand.
func TestHostileTextAtTheTerminal(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, text := range append(ledgertest.HostileTexts(), "\u009b31m", "\x7f", "\u2066x\u2069", "\U000e0041") {
		letter := deadlettertest.Letter("demo/app", 1)
		letter.ID, letter.Reason, letter.LastError, letter.CorrelationID, letter.LastAt = 1, text, text, text, now
		letter.Request.Actor, letter.Request.Origin, letter.Request.Lane = text, artifact.Origin(text), artifact.Lane(text)
		unreadable := artifact.DeadLetter{ID: 2, Reason: text, LastError: text, CorrelationID: text, Stored: []byte(text), LastAt: now}
		letters := []artifact.DeadLetter{letter, unreadable}
		results := []deadletter.Result{{ID: 1, Ref: letter.Ref, Outcome: deadletter.Failed, Err: errors.New(text)}}
		pause := policy.Pause{Paused: true, By: text, Reason: text, At: now}
		report := app.Report{Checks: []preflight.Check{
			{Name: preflight.Name(text), Subject: text, Status: preflight.Failed, Detail: text, Fix: text},
		}}
		for name, print := range map[string]func(io.Writer) error{
			"dead list": func(w io.Writer) error { return main.PrintLetters(w, letters, now) },
			"dead show": func(w io.Writer) error {
				return errors.Join(main.PrintLetter(w, letter, now), main.PrintLetter(w, unreadable, now))
			},
			"dead list -o json": func(w io.Writer) error {
				return main.WriteJSON(w, []deadletter.View{deadletter.ViewOf(letter), deadletter.ViewOf(unreadable)})
			},
			"dead replay": func(w io.Writer) error {
				return main.PrintResults(w, "replayed", results, deadletter.Summary{Failed: 1})
			},
			"pause": func(w io.Writer) error {
				return main.PrintPause(w, "demo", app.PauseChange{Before: pause, After: pause})
			},
			"pause, others": func(w io.Writer) error {
				return main.PrintPause(w, "", app.PauseChange{Others: map[string]policy.Pause{"demo": pause}})
			},
			"doctor":         func(w io.Writer) error { return main.PrintReport(w, report, false) },
			"doctor -o json": func(w io.Writer) error { return main.WriteJSON(w, report) },
			"an error": func(w io.Writer) error {
				return shell.PrintError(w, "signer", errors.Join(errors.New(text), errors.New("second")))
			},
		} {
			var b bytes.Buffer
			if err := print(&b); err != nil {
				t.Fatal(err)
			}
			if b.Len() == 0 {
				t.Errorf("%s prints nothing", name)
			}
			t.Log(name)
			printsOnly(t, b.String())
		}
	}
}

// TestJSONOfTheDoctorIsWhole: nothing is lost by what is escaped.
func TestJSONOfTheDoctorIsWhole(t *testing.T) {
	const text = "\u009b31m\u202e \x1b[2J größe"
	var b bytes.Buffer
	if err := main.WriteJSON(&b, app.Report{Checks: []preflight.Check{{Detail: text}}}); err != nil {
		t.Fatal(err)
	}
	var got app.Report
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got.Checks) != 1 || got.Checks[0].Detail != text {
		t.Errorf("%s is %+v, %v; want the text %q", b.Bytes(), got, err, text)
	}
}
