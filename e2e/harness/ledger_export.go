package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Export writes all events that are there now, of all kinds, one JSON object a line, oldest first: the sequence, the time at
// which the queue stored it, and the event as it is stored. The checker reads it so.
func (l *Ledger) Export(ctx context.Context, out io.Writer) error {
	encoder := json.NewEncoder(out)
	for next := uint64(1); ; {
		msg, err := l.next(ctx, next, ">")
		if err != nil {
			return fmt.Errorf("exporting the ledger: %w", err)
		}
		if msg == nil {
			return nil
		}
		line := struct {
			Seq    uint64          `json:"seq"`
			Stored time.Time       `json:"stored"`
			Event  json.RawMessage `json:"event"`
		}{msg.Seq, msg.Time, msg.Data}
		if err := encoder.Encode(line); err != nil {
			return fmt.Errorf("exporting the ledger: event %d: %w", msg.Seq, err)
		}
		next = msg.Seq + 1
	}
}

// noMessage is the server's code for a message that is not there.
const noMessage = 10037

// stored is a message of the ledger's stream.
type stored struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Data    []byte    `json:"data"`
}

// next gives the first message at or after a sequence whose subject fits; nil if there is none. It asks the stream's leader: a
// replica may be behind, and where programs have accounts, nobody may ask one as this user.
func (l *Ledger) next(ctx context.Context, seq uint64, subject string) (*stored, error) {
	question, err := json.Marshal(map[string]any{"seq": seq, "next_by_subj": subject})
	if err != nil {
		return nil, fmt.Errorf("asking for an event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	msg, err := l.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+ledgerStream, question)
	if err != nil {
		return nil, fmt.Errorf("asking for an event: %w", err)
	}
	var answer struct {
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
		Message *stored `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return nil, fmt.Errorf("asking for an event: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.Code == noMessage:
		return nil, nil //nolint:nilnil // none: that is the answer
	case answer.Error != nil:
		return nil, fmt.Errorf("asking for an event: %s", answer.Error.Description)
	case answer.Message == nil:
		return nil, errors.New("asking for an event: the answer has neither an event nor an error")
	}
	return answer.Message, nil
}
