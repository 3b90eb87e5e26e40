package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Ledger reads the events of a system from the stream itself, as an auditor's own program would. It is for one goroutine.
type Ledger struct {
	conn   *nats.Conn
	stream jetstream.JetStream
}

// Event is one event of the ledger, about a manifest or about a project.
type Event struct {
	Kind string `json:"kind"`
	// Ref is repository@digest; empty in events about a project.
	Ref     string    `json:"ref"`
	Project string    `json:"project"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason"`
	Detail  string    `json:"detail"`
	// Tag, Pusher and PushedAt are those of a push.
	Tag      string    `json:"tag"`
	Pusher   string    `json:"pusher"`
	PushedAt time.Time `json:"pushed_at"`
	// Signatures are those that an event tells of.
	Signatures []EventSignature `json:"signatures"`
	Sweep      *Sweep           `json:"sweep"`
}

// EventSignature is one signature in an event.
type EventSignature struct {
	Format string `json:"format"`
	KeyID  string `json:"key_id"`
	Digest string `json:"digest"`
}

// Sweep is the summary of a full sweep.
type Sweep struct {
	StartedAt   time.Time `json:"started_at"`
	Population  int       `json:"population"`
	Digest      string    `json:"digest"`
	HarborCount int       `json:"harbor_count"`
	Pushed      int       `json:"pushed"`
	Deleted     int       `json:"deleted"`
	Signed      int       `json:"signed"`
	Requested   int       `json:"requested"`
	Pending     int       `json:"pending"`
	Failed      int       `json:"failed"`
	Excluded    int       `json:"excluded"`
	Unsigned    int       `json:"unsigned"`
	Gone        int       `json:"gone"`
	Removed     int       `json:"removed"`
	Verified    int       `json:"verified"`
	Retired     int       `json:"retired"`
	Requests    int       `json:"requests"`
}

// OpenLedger connects to the embedded queue, and again whenever the receiver was restarted.
func (s *System) OpenLedger() (*Ledger, error) {
	conn, err := s.connectQueue()
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	stream, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return &Ledger{conn: conn, stream: stream}, nil
}

func (s *System) connectQueue() (*nats.Conn, error) {
	if s.options.NATS != nil {
		return s.options.NATS.Connect()
	}
	password, err := os.ReadFile(s.QueuePassword())
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	return nats.Connect(s.QueueURL(), nats.UserInfo("signer", strings.TrimSpace(string(password))),
		nats.MaxReconnects(-1), nats.ReconnectWait(pollInterval))
}

// Close ends the connection.
func (l *Ledger) Close() { l.conn.Close() }

const ledgerStream = "LEDGER"

// Events gives all events of a kind that are there now, oldest first.
func (l *Ledger) Events(ctx context.Context, kind string) ([]Event, error) {
	var events []Event
	for next := uint64(1); ; {
		msg, err := l.next(ctx, next, "ledger.v1.*."+kind+".>")
		if err != nil {
			return nil, fmt.Errorf("reading the ledger: %w", err)
		}
		if msg == nil {
			return events, nil
		}
		var e Event
		if err := json.Unmarshal(msg.Data, &e); err != nil {
			return nil, fmt.Errorf("reading the ledger: %s: %w", msg.Subject, err)
		}
		events = append(events, e)
		next = msg.Seq + 1
	}
}

// Len is how many events the ledger has ever had, of all kinds.
func (l *Ledger) Len(ctx context.Context) (int, error) {
	stream, err := l.stream.Stream(ctx, ledgerStream)
	if err != nil {
		return 0, fmt.Errorf("reading the ledger: %w", err)
	}
	last := stream.CachedInfo().State.LastSeq
	if last > 1<<31 {
		return 0, errors.New("reading the ledger: more events than any test makes")
	}
	return int(last), nil
}
