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

const (
	// newerDelay is when a request of a newer version is handed out again. During an upgrade old and new programs pull from
	// the same consumers: the delay bounds how often an old one takes it from a new one, and how long it waits for that.
	newerDelay = 30 * time.Second
	// newerFor is how long after it was stored a request of a newer version is left for newer programs. An upgrade takes less;
	// after a downgrade nobody would ever hear of it.
	newerFor = time.Hour
	// newerAttempts is how often it is handed out at least: it may have waited for that hour, and the first that reads it be an old program.
	newerAttempts = 20
	// maxRequest is the largest request that is worked on: one takes some hundred bytes, and what is recorded of it, its
	// correlation id for one, must fit into a message.
	maxRequest = 64 << 10
	// maxCorrelation is the longest correlation id that is taken from a request that cannot be read.
	maxCorrelation = 256
)

// decode reads the request, and decides what cannot be read without a handler. What a newer program wrote is given back until
// a program that reads it gets it, at most for newerFor and newerAttempts. After that, and at once if it is malformed, it is buried: another
// attempt would read the same.
func (p *pool) decode(ctx context.Context, d *Delivery) bool {
	request, err := artifact.DecodeRequest(d.msg.Data())
	switch {
	case err != nil:
	case request.Lane != d.lane:
		err = fmt.Errorf("request of lane %s on lane %s", request.Lane, d.lane)
	case len(d.msg.Data()) > maxRequest:
		err = fmt.Errorf("request of %d bytes, at most %d are allowed", len(d.msg.Data()), maxRequest)
	default:
		d.request = request
		return true
	}
	log := p.client.log.With().Err(err).Str("subject", d.msg.Subject()).Logger()
	p.client.metrics.undecodable.WithLabelValues(d.metadata.Stream).Inc()
	reason := fault.Malformed
	if errors.Is(err, artifact.ErrNewerVersion) {
		if p.cfg.Now().Sub(d.FirstSeen()) < newerFor || d.Attempts() < newerAttempts {
			log.Warn().Dur("delay_ms", newerDelay).Msg("request is of a newer version, giving it back for a newer program")
			d.giveBack(ctx, newerDelay)
			return false
		}
		reason = fault.NewerVersion
	}
	log.Error().Str("reason", string(reason)).Msg("request cannot be read, moving it to the dead letters")
	if err := d.buryUnread(ctx, reason, err); err != nil {
		p.client.log.Error().Err(err).Str("subject", d.msg.Subject()).Msg("cannot move a request to the dead letters")
		d.giveBack(ctx, bugDelay)
	}
	return false
}

// buryUnread moves what cannot be decoded into the dead letters. Where at least the reference can be read, the ledger
// gets to know before.
//
// A crash between any two steps leads to a redelivery, and to the same event and the same dead letter again.
func (d *Delivery) buryUnread(ctx context.Context, reason fault.Reason, cause error) error {
	letter := d.letter(string(reason), cause.Error())
	subject := deadSubjectOf(d.client.cfg.Harbor, d.msg.Subject())
	if event, readable := d.unreadEvent(subject, reason); readable {
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

// unreadEvent makes the event of kind dead of a request that cannot be decoded; readable is false if its reference
// cannot be told. Without a usable correlation id, the hash in the dead letter's subject joins the two.
func (d *Delivery) unreadEvent(deadSubject string, reason fault.Reason) (event artifact.Event, readable bool) {
	// Each field by itself, so that one of the wrong type does not hide the others.
	var fields map[string]json.RawMessage
	if json.Unmarshal(d.msg.Data(), &fields) != nil {
		return artifact.Event{}, false
	}
	ref, err := artifact.ParseRef(textOf(fields["ref"]))
	if err != nil {
		return artifact.Event{}, false
	}
	detail := "the request in the queue cannot be read: it was moved to the dead letters as it was"
	if reason == fault.NewerVersion {
		detail = "the request in the queue is of a newer version, and no program took it that can read it: " +
			"it was moved to the dead letters as it was; upgrade the signers and replay it"
	}
	correlation := textOf(fields["correlation_id"])
	if correlation == "" || len(correlation) > maxCorrelation {
		correlation = deadSubject[strings.LastIndexByte(deadSubject, '.')+1:]
	}
	// The same for each delivery of this request, and different for a later one of the same reference.
	stored := strconv.FormatInt(d.FirstSeen().UnixNano(), 10)
	return artifact.Event{
		ID: artifact.EventID(artifact.Dead, ref, string(reason), stored), Kind: artifact.Dead, Ref: ref,
		Time: time.Now().UTC(), Origin: artifact.OriginSigner,
		CorrelationID: correlation, Lane: d.lane, Attempts: d.Attempts(), Reason: string(reason), Detail: detail,
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
