package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// snapshotChunk and snapshotWindow bound what is on its way to a backup: far less than what a server keeps for a slow client.
	snapshotChunk  = 256 << 10
	snapshotWindow = 4 << 20
	// snapshotIdle is how long nothing may come of a snapshot. The server gives up after 5 seconds without an acknowledgement.
	snapshotIdle = 30 * time.Second
	// restoreChunk is small, because a server that syncs each message must be done with one within 5 seconds, and compressed it
	// may hold many.
	restoreChunk = 32 << 10
	// activateTime bounds the last step of a restore, in which the server looks for what has expired.
	activateTime = 5 * time.Minute
	// presentTime bounds the wait for servers that have no leader yet.
	presentTime = time.Minute
)

// LedgerStream is the name of the ledger among [SnapshotStreams].
const LedgerStream = streamLedger

// SnapshotStreams names the streams of a backup, in the order in which they are copied while the queue is at work:
//
//   - The work queues come before all that says what became of a request. Who works on one records its outcome, keeps what it
//     owes, or buries it before it acknowledges: so a request is in the copy, or what came of it is. In the other order one that
//     was finished in between would be in neither. What is in both is done again, and the signature is found.
//   - DEAD comes behind both of them, because a letter is written before its request is taken away.
//   - LEDGER comes behind everything that is recorded after it was done.
//   - The policies come last: one that the copy of the ledger does not know is better than one that it knows and that is gone, and
//     the next drift check of its project tells of it.
//
// What is written and removed again between two copies (a dead letter that is being replayed) may be in none of them: the full
// sweeps after a restore find such an image. Ticks are no part of a backup: they are proposed anew.
func SnapshotStreams() []string {
	return []string{streamSign, streamDebt, streamDead, streamKept, streamSweep, streamLedger, streamPolicy}
}

// Snapshot writes a consistent copy of a stream to w: all messages that it has now, with their sequences and times, and with
// checksums, which [CheckSnapshot] reads. The stream goes on meanwhile. The description is JSON of the server, and is what
// [Client.RestoreStream] needs beside the copy. Consumers are not in it: programs make theirs, and what a work queue holds was
// never acknowledged.
//
// After an error, what was written is useless. progress is told the bytes that were written so far; nil is allowed.
func (c *Client) Snapshot(ctx context.Context, stream string, w io.Writer, progress func(bytes int64)) (description json.RawMessage, err error) {
	lost := c.nextDisconnect()
	ctx, end := untilClosed(ctx, lost)
	defer end()
	chunks, err := c.nats.SubscribeSync(c.nats.NewInbox())
	if err != nil {
		return nil, fmt.Errorf("copying stream %s: %w", stream, err)
	}
	defer chunks.Unsubscribe() //nolint:errcheck // closed with the connection otherwise
	description, err = c.askSnapshot(ctx, stream, chunks.Subject)
	if err == nil {
		err = takeSnapshot(ctx, chunks, w, progress)
	}
	if err != nil {
		select {
		case <-lost:
			err = fmt.Errorf("the connection was lost: %w", err)
		default:
		}
		return nil, fmt.Errorf("copying stream %s: %w", stream, err)
	}
	return description, nil
}

func (c *Client) askSnapshot(ctx context.Context, stream, deliver string) (json.RawMessage, error) {
	// The answer to a request is for one subject of the account, and so are the chunks: whoever may ask for snapshots may have
	// bytes of the store published anywhere in the account that owns the streams.
	request, err := json.Marshal(struct {
		Deliver     string `json:"deliver_subject"`
		NoConsumers bool   `json:"no_consumers"`
		Chunk       int    `json:"chunk_size"`
		Window      int    `json:"window_size"`
	}{deliver, true, snapshotChunk, snapshotWindow})
	if err != nil {
		return nil, err
	}
	return c.askServer(ctx, requestTimeout, "$JS.API.STREAM.SNAPSHOT."+stream, request)
}

// askServer asks JetStream's API for something that jetstream does not know. The answer is without an error.
func (c *Client) askServer(ctx context.Context, limit time.Duration, subject string, request []byte) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	msg, err := c.nats.RequestWithContext(ctx, subject, request)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer to %s: the user may lack the right to ask it: %w", subject, err)
	}
	if err != nil {
		return nil, err
	}
	return msg.Data, apiError(msg.Data)
}

// apiError gives the error that an answer of JetStream's API says.
func apiError(answer []byte) error {
	var said struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return fmt.Errorf("answer of the server: %w", err)
	}
	if said.Error != nil {
		return said.Error
	}
	return nil
}

// takeSnapshot writes the chunks as they come. Each full one is acknowledged, which lets the server send another, and names its
// place, so that a lost one is noticed.
func takeSnapshot(ctx context.Context, chunks *nats.Subscription, w io.Writer, progress func(int64)) error {
	var written int64
	for place := 1; ; {
		msg, err := nextChunk(ctx, chunks)
		if err != nil {
			return err
		}
		if len(msg.Data) == 0 {
			if status := msg.Header.Get("Status"); status != "" && status != "204" {
				return fmt.Errorf("the server gave up: %s %.200s", status, msg.Header.Get("Description"))
			}
			return nil
		}
		if msg.Reply != "" {
			if _, at, _ := cutLast(msg.Reply, "."); at != strconv.Itoa(place) {
				return fmt.Errorf("part %.20q of the copy came instead of %d", at, place)
			}
			place++
		}
		if _, err := w.Write(msg.Data); err != nil {
			return err
		}
		if written += int64(len(msg.Data)); progress != nil {
			progress(written)
		}
		if msg.Reply == "" {
			continue
		}
		if err := msg.Respond(nil); err != nil {
			return err
		}
	}
}

func nextChunk(ctx context.Context, chunks *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotIdle)
	defer cancel()
	return chunks.NextMsgWithContext(ctx)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// snapshotDescription is what this program reads of a description.
type snapshotDescription struct {
	Config struct {
		Name     string            `json:"name"`
		Metadata map[string]string `json:"metadata"`
	} `json:"config"`
	State struct {
		Messages uint64 `json:"messages"`
		FirstSeq uint64 `json:"first_seq"`
		LastSeq  uint64 `json:"last_seq"`
	} `json:"state"`
}

// parseDescription refuses what is not of this stream, or was set up by a newer program.
func parseDescription(stream string, description json.RawMessage) (snapshotDescription, error) {
	var d snapshotDescription
	if err := json.Unmarshal(description, &d); err != nil {
		return d, fmt.Errorf("description: %w", err)
	}
	if d.Config.Name != stream {
		return d, fmt.Errorf("description is of stream %.40q", d.Config.Name)
	}
	if isNewer(d.Config.Metadata) {
		return d, errors.New("the stream was set up by a newer version of this program: restore with that one")
	}
	return d, nil
}

// RestoreStream makes a stream of a copy, with the sequences and times that its messages had. The copy should have been checked
// by [CheckSnapshot]. The stream must not exist.
//
// After an error or a crash the stream may be there in part: it has to be removed. What is older than the stream keeps messages
// is gone afterwards, as it would be without the restore.
func (c *Client) RestoreStream(ctx context.Context, stream string, description json.RawMessage, r io.Reader, progress func(bytes int64)) error {
	d, err := parseDescription(stream, description)
	if err != nil {
		return fmt.Errorf("restoring stream %s: %w", stream, err)
	}
	ctx, end := untilClosed(ctx, c.nextDisconnect())
	defer end()
	answer, err := c.askRestore(ctx, stream, description)
	if err == nil {
		err = c.sendSnapshot(ctx, answer, r, progress)
	}
	if err != nil {
		return fmt.Errorf("restoring stream %s: %w", stream, err)
	}
	handle, err := c.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("looking at restored stream %s: %w", stream, err)
	}
	if state := handle.CachedInfo().State; state.LastSeq != d.State.LastSeq {
		return fmt.Errorf("restoring stream %s: it ends at sequence %d instead of %d", stream, state.LastSeq, d.State.LastSeq)
	}
	return nil
}

func (c *Client) askRestore(ctx context.Context, stream string, description json.RawMessage) (deliver string, err error) {
	var asked struct {
		Config map[string]any  `json:"config"`
		State  json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(description, &asked); err != nil {
		return "", err
	}
	// As many as this installation has, not those of the one that the backup is of.
	asked.Config["num_replicas"] = c.cfg.Replicas
	request, err := json.Marshal(asked)
	if err != nil {
		return "", err
	}
	answer, err := c.askServer(ctx, activateTime, "$JS.API.STREAM.RESTORE."+stream, request)
	if err != nil {
		return "", err
	}
	var said struct {
		Deliver string `json:"deliver_subject"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.Deliver == "" {
		return "", errors.New("the server does not say where it wants the copy")
	}
	return said.Deliver, nil
}

// sendSnapshot sends one chunk after the other, each when the one before it was taken.
func (c *Client) sendSnapshot(ctx context.Context, deliver string, r io.Reader, progress func(int64)) error {
	chunk, sent := make([]byte, restoreChunk), int64(0)
	for {
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			if err := c.sendChunk(ctx, deliver, chunk[:n]); err != nil {
				return err
			}
			if sent += int64(n); progress != nil {
				progress(sent)
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			_, err := c.askServer(ctx, activateTime, deliver, nil)
			return err
		case err != nil:
			return err
		}
	}
}

func (c *Client) sendChunk(ctx context.Context, deliver string, chunk []byte) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotIdle)
	defer cancel()
	msg, err := c.nats.RequestWithContext(ctx, deliver, chunk)
	if err != nil || len(msg.Data) == 0 {
		return err
	}
	if err := apiError(msg.Data); err != nil {
		return err
	}
	return errors.New("the server has ended the restore before all was sent")
}

// Present names those of all streams of this program that exist. It waits some time for a cluster that is still coming together.
func (c *Client) Present(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, presentTime)
	defer cancel()
	var names []string
	for _, s := range c.streams() {
		there := false
		err := c.untilReady(ctx, func(ctx context.Context) error {
			_, err := c.js.Stream(ctx, s.name)
			if there = err == nil; errors.Is(err, jetstream.ErrStreamNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("asking for stream %s: %w", s.name, err)
		}
		if there {
			names = append(names, s.name)
		}
	}
	return names, nil
}

// RemoveStream removes a stream that was restored in part. It needs a right that no program has in deploy/nats but the one that
// restores.
func (c *Client) RemoveStream(ctx context.Context, stream string) error {
	err := attempt(ctx, func(ctx context.Context) error { return c.js.DeleteStream(ctx, stream) })
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("removing stream %s: %w", stream, err)
	}
	return nil
}
