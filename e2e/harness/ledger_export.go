package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Export writes all events that are there now, of all kinds, one JSON object a line, oldest first: the sequence, the time at
// which the queue stored it, and the event as it is stored. The checker reads it so.
func (l *Ledger) Export(ctx context.Context, out io.Writer) error {
	stream, err := l.stream.Stream(ctx, ledgerStream)
	if err != nil {
		return fmt.Errorf("exporting the ledger: %w", err)
	}
	encoder := json.NewEncoder(out)
	for next := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("exporting the ledger: %w", err)
		}
		line := struct {
			Seq    uint64          `json:"seq"`
			Stored time.Time       `json:"stored"`
			Event  json.RawMessage `json:"event"`
		}{msg.Sequence, msg.Time, msg.Data}
		if err := encoder.Encode(line); err != nil {
			return fmt.Errorf("exporting the ledger: event %d: %w", msg.Sequence, err)
		}
		next = msg.Sequence + 1
	}
}
