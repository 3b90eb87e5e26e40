package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/fault"
)

// backlog is how many questions may wait for each worker; further ones get no answer, as if nobody was there. Who asks
// waits for some seconds only, so that a longer backlog would be worked off for nobody.
const backlog = 16

// Ask puts a question to one of the programs that answer a topic, and waits for the answer at most for 5 seconds. An error
// of the other side comes back as its text with its kind, reason and delay. If nobody answers, the error is a transient
// fault QueueUnavailable; a question or an answer beyond what NATS takes is a permanent TooLarge. A topic is 1 to 32 of a-z,
// 0-9, - and _.
//
// Nothing is stored. An error without an answer leaves open whether somebody has worked on the question.
func (c *Client) Ask(ctx context.Context, topic string, request []byte) ([]byte, error) {
	if err := validateToken("topic", topic); err != nil {
		return nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("asking: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var msg *nats.Msg
	err := nats.ErrDisconnected
	if c.nats.IsConnected() { // else nats.go would keep the question for the next connection
		msg, err = c.nats.RequestWithContext(ctx, askSubject(c.cfg.Harbor, topic), request)
	}
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, fault.New(fault.Permanent, fault.TooLarge, fmt.Errorf("asking for %s: %w", topic, err))
	case err != nil:
		return nil, askFault(fmt.Errorf("asking for %s: %w", topic, err))
	}
	if err := decodeFault(msg); err != nil {
		return nil, fmt.Errorf("asking for %s: %w", topic, err)
	}
	return msg.Data, nil
}

// Answer answers the questions of a topic by fn until ctx ends, up to so many workers at once, across lost connections and
// restarts of the server. Each question goes to one of the programs that answer. fn gets at most 5 seconds, because nobody
// waits longer; its error goes to who asked, so that it must hold nothing secret. It returns when the last worker has; a
// question that was not begun by then gets an error to try again on.
func (c *Client) Answer(
	ctx context.Context, topic string, workers int, fn func(ctx context.Context, request []byte) ([]byte, error),
) error {
	if err := validateToken("topic", topic); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	if workers < 1 {
		return fmt.Errorf("answering %s: %d workers, want at least 1", topic, workers)
	}
	questions := make(chan *nats.Msg, workers*backlog) // nats.go sends to it, drops what finds no room, and never closes it
	subscription, err := c.nats.ChanQueueSubscribe(askSubject(c.cfg.Harbor, topic), "answer", questions)
	if err != nil {
		return fmt.Errorf("answering %s: %w", topic, err)
	}
	var pool sync.WaitGroup
	for range workers {
		pool.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-ctx.Done():
				case msg := <-questions:
					c.answer(ctx, topic, msg, fn)
				}
			}
		})
	}
	<-ctx.Done()
	err = subscription.Unsubscribe()
	pool.Wait()
	for range len(questions) {
		c.answer(ctx, topic, <-questions, fn)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("answering %s: %w", topic, err)
	}
	return nil
}

// askSubject is where questions are put: ask.v1.<harbor>.<topic>. No stream keeps them.
func askSubject(harbor, topic string) string { return "ask.v1." + harbor + "." + topic }

func (c *Client) answer(
	ctx context.Context, topic string, msg *nats.Msg, fn func(context.Context, []byte) ([]byte, error),
) {
	if !isInbox(msg.Reply) {
		c.log.Error().Str("subject", msg.Subject).Msg("question asks for an answer on a subject of the streams, ignoring it")
		return
	}
	if ctx.Err() != nil {
		c.respond(topic, msg, nil, fault.Newf(fault.Transient, fault.Canceled, "the program that was asked is stopping"))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	data, err := c.callAnswer(ctx, topic, msg.Data, fn)
	c.respond(topic, msg, data, err)
}

// isInbox keeps somebody who may ask from having the answer stored as an event or a request: whoever answers may publish
// those, whoever asks may not. There is no reply subject that is allowed by name, because accounts map them.
func isInbox(reply string) bool {
	if reply == "" || strings.HasPrefix(reply, "$") {
		return false
	}
	first, _, _ := strings.Cut(reply, ".")
	switch first {
	case "sign", "debt", "ledger", "dead", "scan", "ask", "presence":
		return false
	default:
		return true
	}
}

// callAnswer keeps one question that makes fn panic from ending the program.
func (c *Client) callAnswer(
	ctx context.Context, topic string, request []byte, fn func(context.Context, []byte) ([]byte, error),
) (data []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).Str("topic", topic).
				Msg("answering a question panicked: this is a bug")
			data, err = nil, errors.New("the program that was asked has a bug: see its log")
		}
	}()
	return fn(ctx, request)
}

// respond sends an answer, or an error. What is lost on the way is a timeout to who asked.
func (c *Client) respond(topic string, msg *nats.Msg, data []byte, err error) {
	answer := &nats.Msg{Subject: msg.Reply, Data: data}
	if err != nil {
		answer = encodeFault(msg.Reply, err)
	}
	err = c.nats.PublishMsg(answer)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = c.nats.PublishMsg(encodeFault(msg.Reply, fault.Newf(fault.Permanent, fault.TooLarge, "the answer has %d bytes", len(data))))
	}
	if err != nil {
		c.log.Warn().Err(err).Str("topic", topic).Msg("cannot send an answer")
	}
}
