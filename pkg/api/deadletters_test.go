package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/deadletter/deadlettertest"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// withLetters gives a door and a queue with the letters 1 of demo, 2 of app, 3 of other, and 4, which cannot be read. A token may
// read all, one change all, and one change demo. Harbor's aud is an auditor.
func withLetters(t *testing.T) (door, *deadlettertest.Queue) {
	t.Helper()
	q := &deadlettertest.Queue{}
	for i, project := range []string{"demo", "app", "other"} {
		q.Add(deadlettertest.Letter(project+"/app", i))
	}
	q.Add(artifact.DeadLetter{Reason: string(fault.Malformed), LastError: "no JSON", FirstAt: noon, LastAt: noon, Stored: []byte("\x1b[31m<")})
	tokens := filepath.Join(t.TempDir(), "tokens")
	writeTokens(t, tokens, "reads:"+hashed("hs_reads")+"\nchanges:"+hashed("hs_changes")+":change\ndemo:"+hashed("hs_demo")+":change:demo\n")
	d := open(t, &report{}, func(c *api.Config) {
		b := book.New(policy.Terms{})
		b.Loaded()
		c.DeadLetters = letters(t, q, b)
		guard, err := access.New(access.Config{Harbor: people{}, TokensFile: tokens, Auditors: []string{"out"}})
		if err != nil {
			t.Fatal(err)
		}
		c.Access = guard
	})
	return d, q
}

func listLetters(t *testing.T, d door, target string, header http.Header) (ids, next string) {
	t.Helper()
	rec := d.get(t, target, header)
	var page struct {
		Items      []deadletter.View `json:"items"`
		NextCursor string            `json:"next_cursor"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || rec.Code != http.StatusOK {
		t.Fatalf("GET %s = %d %s, %v", target, rec.Code, rec.Body, err)
	}
	for _, v := range page.Items {
		ids += fmt.Sprint(v.ID)
		if v.Stored != nil {
			t.Errorf("letter %d of a listing has what was stored", v.ID)
		}
	}
	return ids, page.NextCursor
}

// TestLettersAreOfTheirProjects asks for each letter as everybody, in every way.
func TestLettersAreOfTheirProjects(t *testing.T) {
	for _, tt := range []struct {
		name         string
		header       http.Header
		reads, mends string // ids
	}{
		{"a system admin", as("root"), "1234", "1234"},
		{"an admin of demo, who may see app", as("ann"), "12", "1"},
		{"an auditor", as("out"), "123", ""},
		{"a token for all that reads", with("hs_reads"), "123", ""},
		{"a token for all that changes", with("hs_changes"), "1234", "1234"},
		{"a token for demo", with("hs_demo"), "1", "1"},
		{"a robot", as("robot$ci"), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := withLetters(t)
			if got, next := listLetters(t, d, "/api/v1/dead-letters", tt.header); got != tt.reads || next != "" {
				t.Errorf("lists %q with next %q, want %q", got, next, tt.reads)
			}
			for id := range strings.SplitSeq("12345", "") {
				path, reads, mends := "/api/v1/dead-letters/"+id, strings.Contains(tt.reads, id), strings.Contains(tt.mends, id)
				want := http.StatusNotFound
				if reads {
					want = http.StatusOK
				}
				if rec := d.get(t, path, tt.header); rec.Code != want {
					t.Errorf("GET %s = %d %s, want %d", path, rec.Code, rec.Body, want)
				}
				change := http.StatusNotFound
				switch {
				case mends:
					change = http.StatusBadRequest // the body is wrong
				case reads:
					change = http.StatusForbidden
				}
				if rec := d.send(t, http.MethodDelete, path, tt.header, `{"why":""}`); rec.Code != change {
					t.Errorf("DELETE %s = %d %s, want %d", path, rec.Code, rec.Body, change)
				}
				switch {
				case mends && id == "4":
					change = http.StatusConflict
				case mends:
					change = http.StatusAccepted
				}
				if rec := d.send(t, http.MethodPost, path+"/replay", tt.header, ""); rec.Code != change {
					t.Errorf("POST %s/replay = %d %s, want %d", path, rec.Code, rec.Body, change)
				}
			}
		})
	}
}

func TestALetterOfOthersIsNotThere(t *testing.T) {
	d, _ := withLetters(t)
	others, none := d.get(t, "/api/v1/dead-letters/3", as("ann")), d.get(t, "/api/v1/dead-letters/9", as("ann"))
	if others.Body.String() != none.Body.String() {
		t.Errorf("of others: %s, of nobody: %s; want the same", others.Body, none.Body)
	}
	if rec := d.get(t, "/api/v1/dead-letters", nil); rec.Code != http.StatusUnauthorized {
		t.Errorf("without credentials: %d, want 401", rec.Code)
	}
}

func TestFiltersAndPagesOfLetters(t *testing.T) {
	d, _ := withLetters(t)
	for query, want := range map[string]string{
		"project=demo": "1", "project=nothing": "", "reason=malformed": "4", "reason=quota_exceeded": "123", "project=app&reason=malformed": "", "cursor=2": "34",
	} {
		if got, _ := listLetters(t, d, "/api/v1/dead-letters?"+query, as("root")); got != want {
			t.Errorf("?%s lists %q, want %q", query, got, want)
		}
	}
	if got, _ := listLetters(t, d, "/api/v1/dead-letters?project=other", as("ann")); got != "" {
		t.Errorf("another project lists %q for ann, want nothing", got)
	}
	got, target := "", "/api/v1/dead-letters?limit=1"
	for cursor := ""; ; {
		ids, next := listLetters(t, d, target+cursor, as("root"))
		if got += ids; next == "" {
			break
		}
		cursor = "&cursor=" + next
	}
	if got != "1234" {
		t.Errorf("pages list %q, want each once", got)
	}
	for query, field := range map[string]string{"cursor=x": "cursor", "cursor=0": "cursor", "cursor=-1": "cursor", "project=De%20mo": "project", "limit=0": "limit"} {
		rec := d.get(t, "/api/v1/dead-letters?"+query, as("root"))
		if rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), `"field":"`+field+`"`) {
			t.Errorf("?%s = %d %s, want 400 about %s", query, rec.Code, rec.Body, field)
		}
	}
	for _, id := range []string{"0", "x", "-1", "99999999999999999999"} {
		if rec := d.get(t, "/api/v1/dead-letters/"+id, as("root")); rec.Code != http.StatusBadRequest {
			t.Errorf("letter %s: %d %s, want 400", id, rec.Code, rec.Body)
		}
	}
}

func TestReplayAndDiscardAreTheCallers(t *testing.T) {
	d, q := withLetters(t)
	if rec := d.send(t, http.MethodPost, "/api/v1/dead-letters/1/replay", as("ann"), ""); rec.Code != http.StatusAccepted || !strings.Contains(rec.Body.String(), `"status":"queued"`) {
		t.Errorf("replay = %d %s", rec.Code, rec.Body)
	}
	if rec := d.send(t, http.MethodPost, "/api/v1/dead-letters/1/replay", as("ann"), ""); rec.Code != http.StatusNotFound {
		t.Errorf("replay of what was replayed = %d %s, want 404", rec.Code, rec.Body)
	}
	if rec := d.send(t, http.MethodDelete, "/api/v1/dead-letters/2", with("hs_changes"), `{"why":"the image was deleted"}`); rec.Code != http.StatusOK {
		t.Errorf("discard = %d %s", rec.Code, rec.Body)
	}
	events := q.Events()
	if len(events) != 2 || events[0].Actor != "ann" || events[1].Actor != "token:changes" || events[1].Detail != "the image was deleted" ||
		events[0].Change.From != "192.0.2.1" {
		t.Errorf("events = %+v, want one of ann and one of the token, with why", events)
	}
	if requests := q.Requests(); len(requests) != 1 || requests[0].Actor != "ann" || len(q.Left()) != 2 {
		t.Errorf("requests = %+v with %d letters, want one of ann and two letters", requests, len(q.Left()))
	}
}

func TestDiscardNeedsWhy(t *testing.T) {
	d, q := withLetters(t)
	for body, status := range map[string]int{
		`{}`: 400, `{"why":""}`: 400, `{"why":"ab"}`: 400, `{"why":"a\nb c"}`: 400, `{"why":"a\u001b[31m"}`: 400, `{"why":1}`: 400, `{"reason":"abc"}`: 400,
		`{"why":"` + strings.Repeat("x", 501) + `"}`: 400, ``: 415,
	} {
		if rec := d.send(t, http.MethodDelete, "/api/v1/dead-letters/1", as("root"), body); rec.Code != status {
			t.Errorf("%s = %d %s, want %d", body, rec.Code, rec.Body, status)
		}
	}
	if len(q.Left()) != 4 || len(q.Events()) != 0 {
		t.Error("a letter was discarded without a reason")
	}
	header := as("root")
	header.Set("Sec-Fetch-Site", "cross-site")
	if rec := d.send(t, http.MethodPost, "/api/v1/dead-letters/1/replay", header, ""); rec.Code != http.StatusForbidden {
		t.Errorf("replay from a page of another origin = %d, want 403", rec.Code)
	}
}

func TestLettersWithoutTheQueue(t *testing.T) {
	d, q := withLetters(t)
	q.Fail(func(deadlettertest.Step) (bool, error) {
		return false, fault.Newf(fault.Transient, fault.QueueUnavailable, "secret path")
	})
	for _, target := range []string{"GET /api/v1/dead-letters", "GET /api/v1/dead-letters/1", "POST /api/v1/dead-letters/1/replay", "DELETE /api/v1/dead-letters/1"} {
		method, path, _ := strings.Cut(target, " ")
		rec := d.send(t, method, path, as("root"), `{"why":"because"}`)
		if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" || strings.Contains(rec.Body.String(), "secret path") {
			t.Errorf("%s = %d %s, want 503 with when to come again", target, rec.Code, rec.Body)
		}
	}
}

// TestHostileLetters shows what somebody else wrote, and nothing of it reaches a terminal or a page as it is.
func TestHostileLetters(t *testing.T) {
	d, q := withLetters(t)
	hostile := deadlettertest.Letter("demo/app", 9)
	hostile.LastError, hostile.Reason, hostile.CorrelationID, hostile.Request.Actor = "a\x1b]0;x\a<script>", "\u202e", "\u009b", "\x7f"
	id := q.Add(hostile)
	body := d.get(t, fmt.Sprintf("/api/v1/dead-letters/%d", id), as("root")).Body.String()
	if strings.ContainsAny(body, "\x1b\a\x7f\u202e\u009b<") {
		t.Errorf("got %q, want nothing that is obeyed", body)
	}
}
