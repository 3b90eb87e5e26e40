package webhook_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/webhook"
)

const recorded = "../harbor/harbortest/testdata/webhooks"

// recording is one delivery as a real Harbor sent it.
type recording struct {
	name        string // group/case/number
	method      string
	header      http.Header
	contentType string
	body        []byte
}

func recordings(tb testing.TB) []recording {
	tb.Helper()
	paths, err := filepath.Glob(recorded + "/*/*/*.http")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no recordings in %s: %v", recorded, err)
	}
	all := make([]recording, 0, len(paths))
	for _, path := range paths {
		raw, err := os.ReadFile(path) //nolint:gosec // the recordings of this tree
		if err != nil {
			tb.Fatal(err)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		name, err := filepath.Rel(recorded, path)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, recording{filepath.ToSlash(name), r.Method, r.Header, r.Header.Get("Content-Type"), body})
	}
	return all
}

// send gives the recording to the address that its project's webhook policy would name.
func (r recording) send(t *testing.T, d *door, change func(http.Header)) (status int, answer webhook.Answer) {
	t.Helper()
	project := "demo"
	if strings.HasPrefix(r.name, "4-fail/") {
		project = "fail22885"
	}
	request := post(t, project, string(r.body))
	request.Method, request.Header = r.method, r.header.Clone()
	if change != nil {
		change(request.Header)
	}
	rec := d.do(request)
	if rec.Code == http.StatusAccepted {
		answer = answerOf(t, rec)
	}
	return rec.Code, answer
}

// notQueued are the recordings that are no push of an image, with the answer that each gets from a receiver whose own robot
// is the account that pushed in that case.
func notQueued(name string) (reason string, ours bool) {
	switch group := strings.Join(strings.Split(name, "/")[1:], "/"); group {
	case "att-v2-legacy/0003.http", "att-v2-legacy/0004.http", "v2-legacy-1-sign/0001.http", "v2-legacy-1-sign/0002.http",
		"v3-legacy-1-sign/0003.http", "v3-legacy-1-sign/0004.http":
		return "accessory", false
	case "c-index/0001.http", "c-index/0002.http", "c-index/0004.http", "c-index/0005.http",
		"c2-crane-index-append/0001.http", "c2-crane-index-append/0002.http", "c2-crane-index-append/0003.http", "c2-crane-index-append/0004.http",
		"e-digest-only/0001.http", "e-digest-only/0002.http", "e2-digest-again/0001.http", "e2-digest-again/0002.http",
		"att-v2-bundle/0003.http", "att-v2-bundle/0004.http",
		"att-v3/0003.http", "att-v3/0004.http", "att-v3/0007.http", "att-v3/0008.http", "att-v3/0009.http", "att-v3/0010.http",
		"v2-bundle-1-sign/0001.http", "v2-bundle-1-sign/0002.http", "v2-bundle-2-sign-again/0001.http", "v2-bundle-2-sign-again/0002.http",
		"v2-oci11-1-sign/0001.http", "v2-oci11-1-sign/0002.http", "v2-oci11-2-sign-again/0001.http", "v2-oci11-2-sign-again/0002.http",
		"v3-default-1-sign/0001.http", "v3-default-1-sign/0002.http", "v3-default-2-sign-again/0001.http", "v3-default-2-sign-again/0002.http":
		return "own_signature", true
	default:
		return "", false
	}
}

func TestEveryRecordedDelivery(t *testing.T) {
	decisions := map[string]int{}
	for _, r := range recordings(t) {
		t.Run(r.name, func(t *testing.T) {
			enable := func(c *webhook.Config) { c.Policies = policies{enabled: []string{"demo", "fail22885"}} }
			if r.method == http.MethodGet {
				// What is left of a delivery that was redirected: Harbor lost its body.
				if status, _ := r.send(t, newDoor(t, enable), nil); status != http.StatusMethodNotAllowed {
					t.Errorf("status = %d, want 405", status)
				}
				decisions["redirected"]++
				return
			}
			if r.header.Get("Authorization") == "" {
				if status, _ := r.send(t, newDoor(t, enable), nil); status != http.StatusUnauthorized {
					t.Errorf("without Authorization: status = %d, want 401", status)
				}
				decisions["without authorization"]++
			}
			authorize := func(h http.Header) { h.Set("Authorization", authorization) }
			reason, ours := notQueued(r.name)

			want := webhook.Answer{Status: "queued"}
			if reason == "accessory" {
				want = webhook.Answer{Status: "ignored", Reason: reason}
			}
			status, got := r.send(t, newDoor(t, enable), authorize)
			checkAnswer(t, "another's push", status, got, want)
			decisions[want.Status+" "+want.Reason]++

			if ours {
				want = webhook.Answer{Status: "ignored", Reason: reason}
				decisions[want.Status+" "+want.Reason]++
			}
			status, got = r.send(t, newDoor(t, func(c *webhook.Config) { enable(c); c.OwnOperators = []string{"admin"} }), authorize)
			checkAnswer(t, "our own push", status, got, want)
		})
	}
	want := map[string]int{"redirected": 27, "without authorization": 15, "queued ": 103, "ignored accessory": 6, "ignored own_signature": 32}
	for decision, n := range want {
		if decisions[decision] != n {
			t.Errorf("%d recordings were %q, want %d", decisions[decision], decision, n)
		}
	}
}

func checkAnswer(t *testing.T, what string, status int, got, want webhook.Answer) {
	t.Helper()
	if status != http.StatusAccepted || got.Status != want.Status || got.Reason != want.Reason {
		t.Errorf("%s: status %d %+v, want 202 %+v", what, status, got, want)
	}
	if (got.CorrelationID != "") != (want.Status == "queued") {
		t.Errorf("%s: correlation id %q of a delivery that was %s", what, got.CorrelationID, got.Status)
	}
}

// Harbor was recorded with two policies, one for each format: each push is there twice, and must be one event.
func TestBothFormatsAreOneEvent(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) { c.Policies = policies{enabled: []string{"demo"}} })
	formats := map[string]map[string]bool{}
	for _, r := range recordings(t) {
		if strings.HasPrefix(r.name, "4-fail/") {
			continue
		}
		status, answer := r.send(t, d, nil)
		if status != http.StatusAccepted {
			t.Fatalf("%s: status %d, want 202", r.name, status)
		}
		if answer.CorrelationID == "" {
			continue
		}
		if formats[answer.CorrelationID] == nil {
			formats[answer.CorrelationID] = map[string]bool{}
		}
		formats[answer.CorrelationID][r.contentType] = true
	}
	for id, seen := range formats {
		if len(seen) != 2 {
			t.Errorf("event %s was seen in %v, want it in both formats", id, seen)
		}
	}
	if got, want := len(d.queue.events), len(formats); got != want || got < 40 {
		t.Errorf("ledger has %d events of %d ids, want as many, and at least 40", got, want)
	}
}
