package api_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/problem"
)

// obeysNobody says so if a terminal, or a page, would take part of a body for a command.
func obeysNobody(t *testing.T, what, body string) {
	t.Helper()
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == '<' || r == '>' || r == '&' }
	if !utf8.ValidString(body) || strings.ContainsFunc(body, bad) {
		t.Errorf("%.60q: body %.2000q has characters that should be escaped", what, body)
	}
}

// TestHostileTextPrints: what somebody pushed, and under what name, comes back whole, and does nothing at a terminal.
func TestHostileTextPrints(t *testing.T) {
	for i, text := range append(ledgertest.HostileTexts(), "\u009b31m", "\x7f", "\u2066x\u2069", "\U000e0041") {
		view := &ledgertest.Memory{}
		received := ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", i))
		received.Tag, received.Pusher, received.Detail = text, text, text
		changed := ledgertest.ProjectEvent(artifact.PolicyChanged, "demo")
		changed.Actor, changed.Reason, changed.Detail, changed.Change = text, text, text, &artifact.Change{From: text}
		ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(received, changed)...)
		d := open(t, view)
		body := d.get(t, "/api/v1/signatures", with(token)).Body.String()
		obeysNobody(t, text, body)
		var answer struct {
			Items []ledger.Row `json:"items"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%.60q: body %q: %v", text, body, err)
		}
		want := ledgertest.All(t, view, ledger.Query{})[0]
		if got := answer.Items[0]; got.Pusher != want.Pusher || got.Pusher == "" || !slices.Equal(got.Tags, want.Tags) {
			t.Errorf("%.60q: row = %+v, want %+v", text, got, want)
		}
		obeysNobody(t, text, d.get(t, "/api/v1/projects/demo/events", with(token)).Body.String())
		// What a question says comes back in the answer that refuses it.
		for _, query := range []string{"?" + url.QueryEscape(text) + "=x", "?project=" + url.QueryEscape(text), "?digest=" + url.QueryEscape(text)} {
			rec := d.get(t, "/api/v1/signatures"+query, with(token))
			obeysNobody(t, query, rec.Body.String())
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); rec.Code != 400 || err != nil {
				t.Errorf("%s = %d, %v, want a problem of 400", query, rec.Code, err)
			}
		}
	}
}
