package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pageBytes bounds a page, beside batchSize: what one request makes the server send.
	pageBytes = 4 << 20
	// pagePoll is how often a reader looks for itself, because what tells it of new messages may be lost.
	pagePoll = 2 * time.Second
	// lagFirst and lagLimit bound the pause before asking again for what is known to be stored: replicas that answer may lag behind.
	lagFirst, lagLimit = time.Millisecond, 250 * time.Millisecond
)

// stored is a message of a stream.
type stored struct {
	subject string
	seq     uint64
	at      time.Time // zero in pages
	header  nats.Header
	data    []byte
}

// pages reads a stream in order and without gaps by asking for what follows a sequence, for programs that may make no consumer:
// whoever may, may also have the server deliver messages, or what it answers, to any subject of the account.
//
// Any replica answers. One that lags behind gives less, never something else: replicas apply the same messages in the same
// order, and each message names the one before it in its page. It belongs to one goroutine.
type pages struct {
	client  *Client
	stream  string
	filter  string
	inbox   string
	answers *nats.Subscription
	news    *news
}

// openPages begins to read a stream. Each error of next ends the reading: what was on its way could still come.
func (c *Client) openPages(stream, filter, told string) (*pages, error) {
	p := &pages{client: c, stream: stream, filter: filter, inbox: c.nats.NewInbox()}
	var err error
	if p.news, err = c.listenFor(told); err != nil {
		return nil, err
	}
	if p.answers, err = c.nats.SubscribeSync(p.inbox); err != nil {
		p.news.close()
		return nil, fmt.Errorf("reading stream %s: %w", stream, err)
	}
	return p, nil
}

func (p *pages) close() {
	p.news.close()
	_ = p.answers.Unsubscribe() // Closed with the connection otherwise.
}

// next gives the messages from a sequence on, at most a page; more says that there were others behind them. What is given
// beside an error is good.
func (p *pages) next(ctx context.Context, from uint64) (page []stored, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		NextFor  string `json:"next_by_subj"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{from, p.filter, batchSize, pageBytes})
	if err != nil {
		return nil, false, fmt.Errorf("reading stream %s: %w", p.stream, err)
	}
	err = nats.ErrDisconnected
	if p.client.nats.IsConnected() { // else nats.go would keep the question for the next connection
		err = p.client.nats.PublishRequest(p.client.api()+".DIRECT.GET."+p.stream, p.inbox, request)
	}
	for previous := uint64(0); err == nil; {
		var msg *nats.Msg
		if msg, err = p.answers.NextMsgWithContext(ctx); err != nil {
			break
		}
		if _, isMessage := msg.Header[jetstream.SubjectHeader]; !isMessage {
			if more, err = endOfPage(msg.Header, previous); err == nil {
				return page, more, nil
			}
			break
		}
		var m stored
		if m, err = pageMessage(msg, max(from, previous+1), previous); err == nil {
			page = append(page, m)
			previous = m.seq
		}
	}
	return page, false, fmt.Errorf("reading stream %s from %d: %w", p.stream, from, err)
}

// pageMessage reads one message of a page, which names the one before it: 0 for the first.
func pageMessage(msg *nats.Msg, least, previous uint64) (stored, error) {
	m := stored{subject: serverHeader(msg, jetstream.SubjectHeader), header: msg.Header, data: msg.Data}
	var err error
	if m.seq, err = strconv.ParseUint(serverHeader(msg, jetstream.SequenceHeader), 10, 64); err != nil {
		return stored{}, errors.New("an answer that is no message")
	}
	if before := serverHeader(msg, jetstream.LastSequenceHeader); m.seq < least || before != strconv.FormatUint(previous, 10) {
		return stored{}, fmt.Errorf("message %d follows %q instead of %d", m.seq, before, previous)
	}
	return m, nil
}

// serverHeader gives what the server says of a message. It writes that behind the headers with which the message was published,
// which may have the same names: whoever may publish events of one kind could make them look like those of another.
func serverHeader(msg *nats.Msg, name string) string {
	values := msg.Header[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// endOfPage reads what ends a page: that there is nothing, or what the last message was and how many follow. It is the server's
// own, because a message has a subject, whatever status it was published with.
func endOfPage(header nats.Header, previous uint64) (more bool, err error) {
	switch status := header.Get("Status"); status {
	case "404":
		return false, nil
	case "204":
		if last := header.Get(jetstream.LastSequenceHeader); last != strconv.FormatUint(previous, 10) {
			return false, fmt.Errorf("the page ends with message %q instead of %d", last, previous)
		}
		return header.Get("Nats-Num-Pending") != "0", nil
	case "503":
		return false, nats.ErrNoResponders
	default:
		return false, fmt.Errorf("answer %s %.100s", status, header.Get("Description"))
	}
}

// await waits until there may be something behind a sequence.
func (p *pages) await(ctx context.Context, position uint64) error { return p.news.await(ctx, position) }

// news hears of messages that were stored. It is safe for one goroutine that waits.
type news struct {
	heard        chan uint64 // the highest sequence that was told and not taken
	newest       uint64      // of all that were taken
	lag          time.Duration
	subscription *nats.Subscription
}

// listenFor subscribes to what the owner's account tells.
func (c *Client) listenFor(subject string) (*news, error) {
	n := &news{heard: make(chan uint64, 1), lag: lagFirst}
	var err error
	n.subscription, err = c.nats.Subscribe(subject, func(msg *nats.Msg) {
		seq, err := strconv.ParseUint(serverHeader(msg, jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return // It is a hint, and this one hints at nothing.
		}
		select {
		case before := <-n.heard:
			seq = max(seq, before)
		default:
		}
		n.heard <- seq // nats.go calls this one message at a time: there is room.
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", subject, err)
	}
	return n, nil
}

func (n *news) close() { _ = n.subscription.Unsubscribe() } // Closed with the connection otherwise.

// await waits until something behind a position was told, or it is time to look. Where that is so already, the answer that was
// just read came from somebody who lags behind: the pause grows until the reader moves on.
func (n *news) await(ctx context.Context, position uint64) error {
	pause := pagePoll
	if n.newest > position {
		pause = n.lag
		n.lag = min(2*n.lag, lagLimit)
	} else {
		n.lag = lagFirst
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case seq := <-n.heard:
			if seq > n.newest {
				n.newest = seq
			}
			if seq > position && pause == pagePoll {
				return nil
			}
		}
	}
}
