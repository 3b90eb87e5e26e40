package webhook_test

import (
	"bytes"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/telemetry"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// TestHostileDeliveries: a push by a hostile account, under a hostile tag, is an event that holds both as they are, and neither an
// answer, nor a line of the log, nor the label of a metric is a command to who reads it.
func TestHostileDeliveries(t *testing.T) {
	label := regexp.MustCompile(`^[A-Za-z0-9_./:*{}+-]*$`)
	for _, text := range append(ledgertest.HostileTexts(), "\u009b31m", "\x7f", "\u2066x\u2069") {
		for _, format := range []webhook.Format{webhook.Default, webhook.CloudEvents} {
			var log bytes.Buffer
			d := newDoor(t, func(c *webhook.Config) {
				c.Logger = telemetry.NewLogger(zerolog.SyncWriter(&log), telemetry.LogConfig{Level: "trace"}, false)
			})
			for what, p := range map[string]payload{
				"pusher": {operator: text}, "tag": {tag: text}, "repository": {repository: "demo/" + text}, "digest": {digest: text},
				"kind": {kind: text}, "namespace": {namespace: text},
			} {
				r := post(t, "demo", p.encode(t, format))
				if format == webhook.CloudEvents {
					r.Header.Set("Content-Type", "application/cloudevents+json")
				}
				r.Header.Set("User-Agent", strings.Map(func(c rune) rune {
					if c < ' ' {
						return -1
					}
					return c
				}, text))
				rec := d.do(r)
				if body := rec.Body.String(); !utf8.ValidString(body) || strings.ContainsFunc(body, func(c rune) bool { return !unicode.IsPrint(c) && c != '\n' }) {
					t.Errorf("%s %.40q: answer %d %q has what does not print", what, text, rec.Code, body)
				}
				if rec.Code >= http.StatusInternalServerError {
					t.Errorf("%s %.40q: %d %s", what, text, rec.Code, rec.Body)
				}
			}
			if lines := log.String(); !utf8.ValidString(lines) || strings.ContainsFunc(lines, func(c rune) bool { return !unicode.IsPrint(c) && c != '\n' }) {
				t.Errorf("%.40q: the log %q has what does not print", text, lines)
			}
			for _, e := range d.queue.events {
				if err := artifacttest.CheckEvent(e); err != nil {
					t.Errorf("%.40q: %v", text, err)
				}
			}
			families, err := d.gather.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					for _, l := range m.GetLabel() {
						if !label.MatchString(l.GetValue()) || text != "-1" && strings.Contains(l.GetValue(), text) {
							t.Errorf("%.40q: metric %s has the label %s=%q", text, f.GetName(), l.GetName(), l.GetValue())
						}
					}
				}
			}
		}
	}
}
