package webhook_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/webhook"
)

func checkNobodyWaits(t *testing.T, when string, d *door, wantInHand int) {
	t.Helper()
	if places, waiting := webhook.InHand(d.handler); places != wantInHand || waiting != 0 {
		t.Errorf("%s: %d deliveries are in hand and %d wait, want %d and none", when, places, waiting, wantInHand)
	}
}

func wantBusy(t *testing.T, when string, rec *httptest.ResponseRecorder) {
	t.Helper()
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") != "1" {
		t.Errorf("%s: status %d, Retry-After %q; want 503 with 1", when, rec.Code, rec.Header().Get("Retry-After"))
	}
}

// crowded is a door whose queue holds what it gets, with 20 places and three to wait, of one project 15 and two.
func crowded(t *testing.T) (*door, *slowQueue) {
	t.Helper()
	q := newSlowQueue()
	return newDoor(t, func(c *webhook.Config) {
		c.Policies, c.Queue = policies{enabled: []string{"flood", "second", "third"}}, q
		c.MaxInHand, c.MaxPerProject, c.MaxWaiting, c.MaxWaitingPerProject = 20, 15, 3, 2
	}), q
}

// TestTenOfEachProjectAreTakenWhateverTheOthersDo: that is what one Harbor sends at once.
func TestTenOfEachProjectAreTakenWhateverTheOthersDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := crowded(t)
		one := func(project string) *httptest.ResponseRecorder {
			return d.do(post(t, project, payload{repository: project + "/one-more"}.encode(t, webhook.Default)))
		}
		all := []<-chan sent{q.hold(t, d, "flood", 15), d.wait(t, "flood/a"), d.wait(t, "flood/b")}
		wantBusy(t, "the 18th of one project", one("flood"))
		all = append(all, q.hold(t, d, "second", 10), d.wait(t, "second/a"))
		wantBusy(t, "the 12th of another project, when three wait", one("second"))
		all = append(all, q.hold(t, d, "third", 10))
		want := `
# HELP harborseal_webhook_busy_total Deliveries that were refused because too many were there: too many of one credential waited, or in all, or one waited too long, or too many secrets were being looked at.
# TYPE harborseal_webhook_busy_total counter
harborseal_webhook_busy_total{bound="credential"} 1
harborseal_webhook_busy_total{bound="total"} 1
harborseal_webhook_busy_total{bound="unauthenticated"} 0
harborseal_webhook_busy_total{bound="wait"} 0
# HELP harborseal_webhook_in_hand Authenticated deliveries that are being answered.
# TYPE harborseal_webhook_in_hand gauge
harborseal_webhook_in_hand 35
# HELP harborseal_webhook_waiting Authenticated deliveries that wait to be taken in hand.
# TYPE harborseal_webhook_waiting gauge
harborseal_webhook_waiting 3
`
		if err := testutil.GatherAndCompare(d.gather, strings.NewReader(want), "harborseal_webhook_busy_total", "harborseal_webhook_in_hand",
			"harborseal_webhook_waiting"); err != nil {
			t.Error(err)
		}
		if got := strings.Count(d.log.String(), `"outcome":"busy"`); got != 1 {
			t.Errorf("%d refusals within a second are in the log, want 1", got)
		}
		close(q.leave)
		for _, answers := range all {
			for range cap(answers) {
				if answer := <-answers; answer.status != http.StatusAccepted {
					t.Errorf("the answer to a delivery that was in hand, or waited, is %v; want 202", answer)
				}
			}
		}
		if rec := one("flood"); rec.Code != http.StatusAccepted {
			t.Errorf("status after the flood = %d, want 202", rec.Code)
		}
		checkNobodyWaits(t, "in the end", d, 0)
	})
}

// TestProjectsTakeTurns: those of one project in their order, and no project all at once.
func TestProjectsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSlowQueue()
		d := newDoor(t, func(c *webhook.Config) {
			c.Policies, c.Queue = policies{enabled: []string{"flood", "second", "third"}}, q
			c.MaxInHand, c.MaxPerProject = 25, 15
		})
		// The queue lets those go first that it has held for the longest.
		all := []<-chan sent{q.hold(t, d, "third", 1), q.hold(t, d, "flood", 14), q.hold(t, d, "second", 10)}
		for _, repository := range []string{"flood/a", "flood/b", "flood/c", "flood/d", "second/a", "second/b"} {
			all = append(all, d.wait(t, repository))
		}
		var got []string
		for range 6 {
			q.leave <- struct{}{}
			got = append(got, <-q.entered)
		}
		// The first place is given back by a project in which nobody waits.
		if want := []string{"flood/a", "second/a", "flood/b", "second/b", "flood/c", "flood/d"}; !slices.Equal(got, want) {
			t.Errorf("taken in hand: %v, want %v", got, want)
		}
		checkNobodyWaits(t, "when nobody waits", d, 25)
		close(q.leave)
		for _, answers := range all {
			for range cap(answers) {
				<-answers
			}
		}
		checkNobodyWaits(t, "in the end", d, 0)
	})
}

// TestAPlaceOfTheFirstTenStaysWithItsProject, even if others were waiting before.
func TestAPlaceOfTheFirstTenStaysWithItsProject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := crowded(t)
		all := []<-chan sent{q.hold(t, d, "second", 10), q.hold(t, d, "flood", 10), d.wait(t, "flood/a"), d.wait(t, "second/a")}
		q.leave <- struct{}{}
		if got := <-q.entered; got != "second/a" {
			t.Errorf("%s is taken in hand, want second/a", got)
		}
		close(q.leave)
		for _, answers := range all {
			for range cap(answers) {
				<-answers
			}
		}
	})
}

// TestNobodyWaitsForLong: every answer is given before Harbor gives up.
func TestNobodyWaitsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := crowded(t)
		q.patient = true
		held := q.hold(t, d, "flood", 15)
		gone, hangUp := context.WithCancel(t.Context())
		left, begun := make(chan time.Duration), time.Now()
		r := post(t, "flood", payload{repository: "flood/gone"}.encode(t, webhook.Default)).WithContext(gone)
		go func() {
			d.do(r)
			left <- time.Since(begun)
		}()
		synctest.Wait()
		hangUp()
		if took := <-left; took != 0 {
			t.Errorf("a delivery waits for %s though its client has gone", took)
		}
		checkNobodyWaits(t, "when the client has gone that waited", d, 15)
		if got, want := <-d.wait(t, "flood/a"), (sent{503, "1", 1500 * time.Millisecond}); got != want {
			t.Errorf("the answer to a delivery that nobody called is %v, want %v", got, want)
		}
		checkNobodyWaits(t, "when it has left the waiting room", d, 15)
		late := d.wait(t, "flood/b")
		time.AfterFunc(1400*time.Millisecond, func() {
			q.patient = false
			q.leave <- struct{}{}
		})
		if got, want := <-late, (sent{503, "5", 2900 * time.Millisecond}); got != want {
			t.Errorf("the answer to a delivery that was called late, and then not acknowledged, is %v, want %v", got, want)
		}
		close(q.leave)
		for range cap(held) {
			<-held
		}
		checkNobodyWaits(t, "in the end", d, 0)
	})
}

// TestWhoWaitsForAQueueThatFailsIsRefused as soon as that is known.
func TestWhoWaitsForAQueueThatFailsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := crowded(t)
		held := q.hold(t, d, "flood", 15)
		answers := make(chan sent, 2)
		time.AfterFunc(time.Second, func() {
			d.start(t, "flood/a", answers)
			d.start(t, "flood/b", answers)
		})
		for range cap(held) {
			if got, want := <-held, (sent{503, "5", 2 * time.Second}); got != want {
				t.Errorf("the answer to a delivery in hand is %v, want %v", got, want)
			}
		}
		if got, want := <-answers, (sent{503, "5", time.Second}); got != want {
			t.Errorf("the answer to a delivery that waited is %v, want %v", got, want)
		}
		if got, want := <-answers, (sent{503, "5", 2900 * time.Millisecond}); got != want {
			t.Errorf("the answer to the one that tried is %v, want %v", got, want)
		}
	})
}

// TestARefusedDeliveryKeepsItsConnection: in a crowd a new one costs both sides more than the delivery.
func TestARefusedDeliveryKeepsItsConnection(t *testing.T) {
	q := newSlowQueue()
	q.patient = true
	d := newDoor(t, func(c *webhook.Config) { c.Queue, c.MaxInHand, c.MaxPerProject = q, 1, 10 })
	webhook.SetPatience(d.handler, 0)
	held := q.hold(t, d, "demo", 10)
	body := payload{}.encode(t, webhook.Default)
	for _, tt := range []struct {
		name, body string
		length     int
		closed     bool
	}{
		{"whole", body, len(body), false},
		{"large", body, 17 << 10, true},
		{"half", body[:10], len(body), true},
	} {
		conn, answers := wire(t, d.engine)
		start := time.Now()
		status, closed := exchange(t, conn, answers, authorization, tt.body, tt.length)
		if status != http.StatusServiceUnavailable || closed != tt.closed {
			t.Errorf("%s body: status %d, closed: %t; want 503 and %t", tt.name, status, closed, tt.closed)
		}
		if took := time.Since(start); took > 600*time.Millisecond {
			t.Errorf("%s body: the answer took %s, want it at once", tt.name, took)
		}
	}
	conn, answers := wire(t, d.engine)
	exchange(t, conn, answers, authorization, body, len(body))
	close(q.leave)
	for range cap(held) {
		<-held
	}
	if status, _ := exchange(t, conn, answers, authorization, body, len(body)); status != http.StatusAccepted {
		t.Errorf("status on the connection of a refused delivery = %d, want 202", status)
	}
}

// TestABodyHasTheTimeOfTheWaitingToCome, and hardly more: it must not keep its place from others.
func TestABodyHasTheTimeOfTheWaitingToCome(t *testing.T) {
	q := newSlowQueue()
	q.patient = true
	d := newDoor(t, func(c *webhook.Config) { c.Queue, c.MaxInHand, c.MaxPerProject = q, 1, 10 })
	held := q.hold(t, d, "demo", 10)
	body := payload{}.encode(t, webhook.Default)
	type client struct {
		conn    net.Conn
		answers *bufio.Reader
	}
	var clients []client
	begun := time.Now()
	for i, comes := range []string{body, body[:10]} {
		conn, answers := wire(t, d.engine)
		clients = append(clients, client{conn, answers})
		if _, err := fmt.Fprintf(conn, "POST /webhooks/harbor/demo HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			authorization, len(body)); err != nil {
			t.Fatal(err)
		}
		for _, waiting := webhook.InHand(d.handler); waiting <= i; _, waiting = webhook.InHand(d.handler) {
			if time.Since(begun) > 5*time.Second {
				t.Fatal("the delivery does not wait")
			}
			<-time.After(time.Millisecond)
		}
		if _, err := io.WriteString(conn, comes); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(time.Second) // longer than a body may take
	close(q.leave)
	begun = time.Now()
	for i, want := range []int{http.StatusAccepted, http.StatusRequestTimeout} {
		response, err := http.ReadResponse(clients[i].answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != want {
			t.Errorf("delivery %d: status %d, %v; want %d", i+1, response.StatusCode, err, want)
		}
	}
	if took := time.Since(begun); took > 600*time.Millisecond {
		t.Errorf("a body that does not come was waited for for %s more, want hardly anything", took)
	}
	for range cap(held) {
		<-held
	}
}

// silentSecrets answer no question about the project "stuck".
type silentSecrets struct{ asked, leave chan struct{} }

func (s silentSecrets) Accepts(_ context.Context, project, _ string) (bool, error) {
	if project != "stuck" {
		return true, nil
	}
	s.asked <- struct{}{}
	<-s.leave
	return false, nil
}

func (s silentSecrets) Has(context.Context, string) (bool, error) { return false, nil }

func TestSecretsAreLookedAtForAFewAtOnce(t *testing.T) {
	s := silentSecrets{asked: make(chan struct{}), leave: make(chan struct{})}
	d := newDoor(t, func(c *webhook.Config) { c.SecretFiles, c.Secrets = nil, s })
	statuses := make(chan int, webhook.MaxStrangers)
	for range webhook.MaxStrangers {
		r := post(t, "stuck", "")
		go func() { statuses <- d.do(r).Code }()
	}
	for range webhook.MaxStrangers {
		<-s.asked
	}
	r := post(t, "demo", "")
	r.Body = untouchable{t}
	rec := d.do(r)
	wantBusy(t, "one more", rec)
	if rec.Header().Get("Connection") != "close" {
		t.Error("the connection is kept though its body was not read, want it closed")
	}
	checkBusyOf(t, d, "unauthenticated")
	close(s.leave)
	for range webhook.MaxStrangers {
		if status := <-statuses; status != http.StatusUnauthorized {
			t.Errorf("status of a stranger = %d, want 401", status)
		}
	}
	if rec := d.do(post(t, "demo", payload{}.encode(t, webhook.Default))); rec.Code != http.StatusAccepted {
		t.Errorf("status after the strangers = %d, want 202", rec.Code)
	}
}

func checkBusyOf(t *testing.T, d *door, bound string) {
	t.Helper()
	families, err := d.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "harborseal_webhook_busy_total" && (m.GetCounter().GetValue() == 1) != (m.GetLabel()[0].GetValue() == bound) {
				t.Errorf("harborseal_webhook_busy_total: %v, want one of %s alone", m, bound)
			}
		}
	}
}
