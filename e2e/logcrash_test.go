//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/failpoint"
)

// asking is what a project asks of a log.
type asking struct{ transparency, format string }

func (a asking) String() string { return a.transparency + " " + a.format }

// formats are those in which it is signed.
func (a asking) formats() []checker.Format {
	if a.format == "both" {
		return checker.Formats()
	}
	return []checker.Format{checker.Format(a.format)}
}

// entries is how many of its signatures have a place for an entry of a log.
func (a asking) entries(logType string) int {
	return len(slices.DeleteFunc(slices.Clone(a.formats()), func(f checker.Format) bool {
		return f == checker.Legacy && logType == "rekor-v2"
	}))
}

// askings are all that can be verified with a log.
func askings(logType string) []asking {
	var all []asking
	for _, transparency := range []string{"required", "deferred"} {
		for _, format := range []string{"legacy", "bundle", "both"} {
			if a := (asking{transparency, format}); format != "legacy" || logType == "rekor-v1" {
				all = append(all, a)
			}
		}
	}
	return all
}

// crash is kill -9 at a failpoint, for an image of a project that asks for this.
type crash struct {
	asking

	point string
}

func (c crash) String() string {
	return c.asking.String() + " " + strings.ReplaceAll(c.point, "/", " ")
}

// passes says whether an image passes a failpoint.
func (a asking) passes(point string) bool {
	switch {
	case point == failpoint.SigningAfterLog:
		return a.transparency == "required"
	case point == failpoint.SigningAfterDebt, strings.HasPrefix(point, "debt/"):
		return a.transparency == "deferred"
	}
	return strings.HasPrefix(point, "signing/")
}

// again are the failpoints that an image passes a second time, for its other format.
func (a asking) again(logType string) []string {
	switch {
	case a.format != "both":
		return nil
	case a.transparency == "deferred" && logType == "rekor-v2":
		return nil // one entry is owed
	case a.transparency == "deferred":
		return []string{failpoint.DebtAfterLog, failpoint.DebtAfterAttach, failpoint.DebtAfterVerify}
	}
	all := []string{
		failpoint.SigningAfterSign, failpoint.SigningAfterKeep, failpoint.SigningAfterTimestamp, failpoint.SigningAfterLog,
		failpoint.SigningAfterFinishKeep, failpoint.SigningAfterPayload, failpoint.SigningAfterAttach, failpoint.SigningAfterVerify,
	}
	if logType == "rekor-v2" {
		return slices.DeleteFunc(all, func(point string) bool { return point == failpoint.SigningAfterLog })
	}
	return all
}

// crashes are all of a log. The short form has each failpoint that logs and timestamps have brought once.
func crashes(t *testing.T, logType string) []crash {
	t.Helper()
	points := append(pointsOf(t, "signing/"), pointsOf(t, "debt/")...)
	var all []crash
	for _, a := range askings(logType) {
		for _, point := range points {
			brought := strings.HasPrefix(point, "debt/") || slices.Contains([]string{
				failpoint.SigningAfterTimestamp, failpoint.SigningAfterLog, failpoint.SigningAfterFinishKeep, failpoint.SigningAfterDebt,
			}, point)
			short := a.format == "both" && brought && (a.transparency == "required" || !a.other("required").passes(point))
			if a.passes(point) && (short || inFull()) {
				all = append(all, crash{a, point})
			}
		}
		for _, point := range a.again(logType) {
			if inFull() {
				all = append(all, crash{a, point + "@2"})
			}
		}
	}
	return all
}

// other asks for the same with another transparency.
func (a asking) other(transparency string) asking { return asking{transparency, a.format} }

// kill -9 of the signer between any two steps of what it does with a log leaves one signature in each format, one entry for each in
// the log itself, nothing that is owed, and the right record.
func TestSignerKilledBesideLog(t *testing.T) {
	for _, logType := range []string{"rekor-v1", "rekor-v2"} {
		t.Run(logType, func(t *testing.T) {
			if logType == "rekor-v2" {
				full(t)
			}
			table := crashes(t, logType)
			m := newMortal(t, logType, nil)
			for _, c := range table {
				t.Run(c.String(), func(t *testing.T) {
					m.start(t, failpoint.EnvPoint+"="+c.point+"=kill")
					p := m.pushFor(t, c.asking)
					m.awaitKilled(t, m.signer)
					m.left(t, c.asking, p)
					m.start(t)
					m.judgeEnd(t, c.asking, p)
				})
			}
		})
	}
}

// mortal is a system whose signer dies, with a project for each thing to ask of its log.
type mortal struct {
	*mixed

	signer  *harness.Program
	ledger  *harness.Ledger
	queue   jetstream.JetStream
	logType string
	// asks are what the projects ask for, in their order.
	asks []asking
	// expected is how many entries the log has.
	expected int
}

// newMortal starts all but the signer, which has finished its first sweeps.
func newMortal(t *testing.T, logType string, change option) *mortal {
	t.Helper()
	programs, err := env.breakable()
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{mixed: &mixed{proofs: newProofs(t, logType)}, logType: logType, asks: askings(logType)}
	if !inFull() {
		m.asks = slices.DeleteFunc(m.asks, func(a asking) bool { return a.format != "both" })
	}
	m.stage = newStage(t, ownHarbor(t), len(m.asks), func(projects []string) option {
		return func(o *harness.Options) {
			o.Programs, o.AckWait = programs, time.Second
			m.proofs.asked("off", "off")(o)
			for i, a := range m.asks {
				o.Policies = append(o.Policies, harness.Config{
					"projects": []string{projects[i]}, "backfill": "all", "format": a.format,
					"transparency": a.transparency, "log": "rekor", "timestamp": "required",
				})
			}
			if change != nil {
				change(o)
			}
		}
	})
	m.signer = m.Signers[0]
	m.connect(t)
	m.stop(t)
	m.expected = m.logSize(t)
	return m
}

// connect opens the queue itself, to look for what is left in it.
func (m *mortal) connect(t *testing.T) {
	t.Helper()
	var err error
	if m.ledger, err = m.OpenLedger(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.ledger.Close)
	password, err := os.ReadFile(m.QueuePassword())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(m.QueueURL(), nats.UserInfo("signer", strings.TrimSpace(string(password))), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if m.queue, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
}

func (m *mortal) start(t *testing.T, variables ...string) {
	t.Helper()
	if err := m.StartProgram(t.Context(), m.signer, variables...); err != nil {
		t.Fatal(err)
	}
}

func (m *mortal) stop(t *testing.T) {
	t.Helper()
	if err := m.signer.Process.Stop(); err != nil {
		t.Fatal(err)
	}
}

// pushFor pushes an image into the project that asks for something.
func (m *mortal) pushFor(t *testing.T, a asking) harness.Pushed {
	t.Helper()
	m.expected += a.entries(m.logType)
	img, err := harness.NewImage(false)
	return m.pushTo(t, m.projects[slices.Index(m.asks, a)]+"/app", harness.Random("v"), img, err)
}

// judging gives a checker for what is asked for, and for the formats in which it is to be there.
func (m *mortal) judging(t *testing.T, asked checker.Asked, formats []checker.Format) *checker.Checker {
	t.Helper()
	judge, err := m.CheckerOf(m.Keys.Public, formats...)
	if err == nil {
		judge, err = judge.Trusting(m.proofs.trust(t), asked)
	}
	if err != nil {
		t.Fatal(err)
	}
	return judge
}

// left judges what a dead signer has left: nothing twice, nothing without what the project requires, and no bundle that would
// hide an entry.
func (m *mortal) left(t *testing.T, a asking, p harness.Pushed) {
	t.Helper()
	judge := m.judging(t, checker.Asked{}, checker.Formats())
	violations, err := judge.Once(t.Context(), p.Repository, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
	found, err := judge.Look(t.Context(), p.Repository, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range found.Signatures {
		place := s.Format == checker.Bundle || m.logType == "rekor-v1"
		waits := a.transparency == "required" || a.format == "both" && s.Format == checker.Bundle
		switch {
		case s.Verdict != checker.Valid:
			t.Errorf("the dead signer has left what is %s (%s) in %s", s.Verdict, s.Detail, s.Manifest)
		case place && waits && len(s.Entries) == 0:
			t.Errorf("the dead signer has left a signature without an entry, in the format %s", s.Format)
		case len(s.Stamped) == 0:
			t.Errorf("the dead signer has left a signature without a timestamp, in the format %s", s.Format)
		}
	}
}

// judgeEnd waits until nothing is left to do, judges everything that is to be seen of an image, and stops the signer.
func (m *mortal) judgeEnd(t *testing.T, a asking, p harness.Pushed) {
	t.Helper()
	m.awaitLogged(t, p)
	for _, stream := range []string{"SIGN", "DEBT", "DEAD"} {
		m.awaitEmpty(t, stream)
	}
	m.settled(t)
	m.noDebt(t)
	judge := m.judging(t, checker.Asked{Log: true, Timestamp: true}, a.formats())
	m.judgeWith(t, judge, p)
	if row := m.audit(t.Context(), t, p); row.LogReason != "" || row.Note != "" {
		t.Errorf("the report says %q of the log and %q of the signature, want nothing unusual", row.LogReason, row.Note)
	}
	deferred := a.transparency == "deferred"
	for kind, some := range map[string]bool{"received": true, "signed": true, "log_debt_paid": deferred, "dead": false} {
		if events := m.eventsOf(t, kind, p); (len(events) > 0) != some {
			t.Errorf("the ledger has %d events of the kind %s, want some: %v", len(events), kind, some)
		}
	}
	if got := m.logSize(t); got != m.expected {
		t.Errorf("the log has %d entries, want %d: one for each signature that has a place for it", got, m.expected)
		m.expected = got
	}
	m.stop(t)
}

// awaitEmpty waits until nothing is in a stream.
func (m *mortal) awaitEmpty(t *testing.T, name string) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		stream, err := m.queue.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("asking for the stream %s: %w", name, err)
		}
		if n := stream.CachedInfo().State.Msgs; n > 0 {
			return fmt.Errorf("the stream %s has %d messages, want none", name, n)
		}
		return nil
	})
}

// eventsOf gives the events of a kind about an image.
func (m *mortal) eventsOf(t *testing.T, kind string, p harness.Pushed) []harness.Event {
	t.Helper()
	events, err := m.ledger.Events(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(events, func(e harness.Event) bool { return e.Ref != p.Repository+"@"+p.Digest })
}

// A log that has taken an entry, and a signer that died before it had the answer: the next attempt gets the entry that is there.
func TestSignerKilledWithoutTheLogsAnswer(t *testing.T) {
	for _, logType := range []string{"rekor-v1", "rekor-v2"} {
		t.Run(logType, func(t *testing.T) {
			if logType == "rekor-v2" {
				full(t)
			}
			m := newMortal(t, logType, nil)
			for _, a := range m.asks {
				t.Run(a.String(), func(t *testing.T) {
					m.start(t)
					lost := m.proofs.log.Lost()
					m.cause(t, m.proofs.log, harness.Trouble{Swallow: true})
					p := m.pushFor(t, a)
					m.until(t, func(context.Context) error {
						if m.proofs.log.Lost() == lost {
							return errors.New("no answer of the log was lost")
						}
						return nil
					})
					if err := m.signer.Process.Kill(); err != nil {
						t.Fatal(err)
					}
					m.left(t, a, p)
					m.cause(t, m.proofs.log, harness.Trouble{})
					m.start(t)
					m.judgeEnd(t, a, p)
				})
			}
		})
	}
}
