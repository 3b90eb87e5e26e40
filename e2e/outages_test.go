//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// stamped is a mixed stage whose projects ask for different things of the timestamp authority, and for nothing of the log.
type stamped struct {
	*mixed
	// optional are content without a timestamp, required are not, and off want none.
	optional, required, off []string
}

func newStamped(t *testing.T, interval time.Duration) *stamped {
	t.Helper()
	m := &stamped{mixed: &mixed{proofs: newProofs(t, "rekor-v2")}}
	m.stage = newStage(t, ownHarbor(t), 3, func(projects []string) option {
		m.optional, m.required, m.off = projects[:1], projects[1:2], projects[2:]
		return func(o *harness.Options) {
			m.proofs.asked("off", "off")(o)
			for timestamp, some := range map[string][]string{"optional": m.optional, "required": m.required, "off": m.off} {
				o.Policies = append(o.Policies, harness.Config{"projects": some, "backfill": "all", "timestamp": timestamp})
			}
			probing(interval)(o)
		}
	})
	return m
}

// However the timestamp authority is away, it is seen, images that can do without a timestamp are signed as fast as before, but
// for the half second in which it is asked, and those that cannot wait for it.
func TestTimestampsAway(t *testing.T) {
	for _, tt := range []struct {
		name    string
		trouble harness.Trouble
		cause   string
		short   bool
	}{
		{"hanging", harness.Trouble{Hang: true}, "timeout", true},
		{"refused", harness.Trouble{Refuse: true}, "refused", false},
		{"503", harness.Trouble{Status: http.StatusServiceUnavailable}, "protocol", false},
		{"HTML", harness.Trouble{Status: http.StatusOK, Type: htmlType, Body: proxyPage}, "protocol", false},
		{"expired certificate", harness.Trouble{Expired: true}, "tls", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.short {
				full(t)
			}
			testTimestampsAway(t, tt.trouble, tt.cause)
		})
	}
}

func testTimestampsAway(t *testing.T, trouble harness.Trouble, cause string) {
	t.Helper()
	// An optional timestamp is awaited for 500 ms, and the rest is the machine's.
	const interval, pace, delay = 3 * time.Second, 300 * time.Millisecond, 500*time.Millisecond + 250*time.Millisecond
	m := newStamped(t, interval)
	m.awaitUp(t, onStamps)
	before := m.push(t, "before", 3*time.Second, pace)
	m.awaitStamped(t, of(before, m.optional, m.required), true)
	m.awaitStamped(t, of(before, m.off), false)

	gone := time.Now()
	m.cause(t, m.proofs.stamps, trouble)
	load := m.load(t, "during", pace)
	m.awaitDown(t, onStamps, cause, gone, interval)
	m.lull(t, time.Until(gone.Add(8*time.Second)))
	during := load.end()
	m.awaitStamped(t, of(during, m.optional, m.off), false)
	m.unsigned(t, of(during, m.required))
	m.noSlower(t, before, during, delay, m.optional, m.off)

	back := time.Now()
	m.cause(t, m.proofs.stamps, harness.Trouble{})
	m.awaitStamped(t, of(during, m.required), true)
	m.settled(t)
	m.judgeStamped(t, append(of(before, m.optional, m.required), of(during, m.required)...), true)
	m.judgeStamped(t, append(of(before, m.off), of(during, m.optional, m.off)...), false)
	m.awaitOutage(t, onStamps, cause, gone, back, interval)
	m.noneDead(t)
}

// awaitStamped waits until everything is signed, with a timestamp beside each signature, or without any.
func (m *stamped) awaitStamped(t *testing.T, pushed []timed, with bool) {
	t.Helper()
	m.awaitRows(t, pushed, func(r checker.Row) bool {
		for _, s := range r.Signatures {
			if s.TimestampedAt.IsZero() == with {
				return false
			}
		}
		return r.State == "signed"
	})
}

// judgeStamped judges from the outside, where timestamps are asked for or are not there.
func (m *stamped) judgeStamped(t *testing.T, pushed []timed, with bool) {
	t.Helper()
	judge, err := m.checker.Trusting(m.proofs.trust(t), checker.Asked{Timestamp: with})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pushed {
		found, violations, err := judge.Signed(t.Context(), p.Repository, p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		complain(t, violations)
		for _, s := range found.Signatures {
			if (len(s.Stamped) > 0) != with {
				t.Errorf("%s@%s has the timestamps %v, want some: %v", p.Repository, p.Digest, s.Stamped, with)
			}
		}
	}
}

// A robot whose secret was changed gets a token like everybody, and nothing is in it: that is seen within 30 seconds, nothing is
// given up, and all is signed when the secret is right again.
func TestTokenRights(t *testing.T) {
	t.Parallel()
	const interval, limit = 15 * time.Second, 30 * time.Second
	w := newWorld(t) // with the interval of the default configuration
	w.awaitUp(t, "token_rights")
	robot := w.site.Signer
	change := func(secret string) {
		ask(t, w.site.Harbor, http.MethodPatch, "/api/v2.0/robots/"+strconv.Itoa(robot.ID), settings{"secret": secret}, http.StatusOK, nil)
	}
	gone := time.Now()
	change("Another-" + robot.Secret)
	if seen := w.awaitDown(t, "token_rights", "auth", gone, interval); seen > limit {
		t.Errorf("the wrong secret was seen after %s, want it within %s", seen, limit)
	}
	p := w.pushImage(t, "app", "v1")
	w.awaitFailure(t)
	violations, err := w.checker.NotSigned(t.Context(), p.Repository, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	change(robot.Secret)
	w.awaitUp(t, "token_rights")
	w.awaitAll(t)
	w.noneDead(t)
	w.until(t, func(ctx context.Context) error {
		var page struct {
			Items []outage `json:"items"`
		}
		w.answered(ctx, t, "/api/v1/outages?dependency=token_rights", &page)
		if len(page.Items) != 1 || page.Items[0].Cause != "auth" || page.Items[0].EndedAt == nil {
			return fmt.Errorf("the outages are %+v, want one for auth that has ended", page.Items)
		}
		return nil
	})
}
