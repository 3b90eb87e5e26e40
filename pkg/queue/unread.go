package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// newerDelay is when a request of a newer version is handed out again. During an upgrade old and new programs pull from
// the same consumers: the delay bounds how often an old one takes it from a new one, and how long it waits for that.
const newerDelay = 30 * time.Second

// decode reads the request, and decides what cannot be read without a handler. What a newer program wrote is given back,
// again and again, until a program that reads it gets it. What is malformed is buried: another attempt would read the same.
func (p *pool) decode(ctx context.Context, d *Delivery) bool {
	request, err := artifact.DecodeRequest(d.msg.Data())
	if err == nil && request.Lane != d.lane {
		err = fmt.Errorf("request of lane %s on lane %s", request.Lane, d.lane)
	}
	if err == nil {
		d.request = request
		return true
	}
	log := p.client.log.With().Err(err).Str("subject", d.msg.Subject()).Logger()
	p.client.metrics.undecodable.WithLabelValues(d.metadata.Stream).Inc()
	if errors.Is(err, artifact.ErrNewerVersion) {
		log.Warn().Dur("delay", newerDelay).Msg("request is of a newer version, giving it back for a newer program")
		d.giveBack(ctx, newerDelay)
		return false
	}
	log.Error().Msg("request cannot be read, moving it to the dead letters")
	if err := d.buryMalformed(ctx); err != nil {
		p.client.log.Error().Err(err).Str("subject", d.msg.Subject()).Msg("cannot move a request to the dead letters")
		d.giveBack(ctx, bugDelay)
	}
	return false
}

// buryMalformed moves what cannot be decoded into the dead letters. Where at least the reference can be read, the ledger
// gets to know before.
//
// A crash between any two steps leads to a redelivery, and to the same event and the same dead letter again.
func (d *Delivery) buryMalformed(ctx context.Context) error {
	letter := d.letter(string(fault.Malformed))
	subject := deadSubjectOf(d.client.cfg.Harbor, d.msg.Subject())
	if event, readable := d.malformedEvent(subject); readable {
		encoded, err := artifact.EncodeEvent(event)
		if err != nil {
			return fault.New(fault.Permanent, fault.Malformed, err)
		}
		if _, err := d.client.Record(ctx, event); err != nil {
			return err
		}
		letter.Event = encoded
	}
	return d.bury(ctx, subject, letter)
}

// malformedEvent makes the event of kind dead of a request that cannot be decoded; readable is false if its reference
// cannot be told. Without a correlation id, the hash in the dead letter's subject joins the two.
func (d *Delivery) malformedEvent(deadSubject string) (event artifact.Event, readable bool) {
	// Each field by itself, so that one of the wrong type does not hide the others.
	var fields map[string]json.RawMessage
	if json.Unmarshal(d.msg.Data(), &fields) != nil {
		return artifact.Event{}, false
	}
	ref, err := artifact.ParseRef(textOf(fields["ref"]))
	if err != nil {
		return artifact.Event{}, false
	}
	// The same for each delivery of this request, and different for a later one of the same reference.
	stored := strconv.FormatInt(d.FirstSeen().UnixNano(), 10)
	return artifact.Event{
		ID: artifact.EventID(artifact.Dead, ref, string(fault.Malformed), stored), Kind: artifact.Dead, Ref: ref,
		Time: time.Now().UTC(), Origin: artifact.OriginSigner,
		CorrelationID: orDefault(textOf(fields["correlation_id"]), deadSubject[strings.LastIndexByte(deadSubject, '.')+1:]),
		Lane:          d.lane, Attempts: d.Attempts(), Reason: string(fault.Malformed),
		Detail: "the request in the queue cannot be read: it was moved to the dead letters as it was",
	}, true
}

// textOf gives a JSON string, and nothing for anything else.
func textOf(field json.RawMessage) string {
	var text string
	if json.Unmarshal(field, &text) != nil {
		return ""
	}
	return text
}
