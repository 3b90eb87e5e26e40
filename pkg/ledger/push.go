package ledger

import "time"

// PusherSource says whose word it is that somebody pushed a digest.
type PusherSource string

// The sources. A source is added, never renamed.
const (
	// PusherHarbor: Harbor's own feed tells of the push.
	PusherHarbor PusherSource = "harbor_audit"
	// PusherWebhook: a webhook named a pusher. That is the word of anybody who knows its secret.
	PusherWebhook PusherSource = "webhook"
	// PusherNone: nobody said who.
	PusherNone PusherSource = "none"
)

// PusherSources gives all sources.
func PusherSources() []PusherSource { return []PusherSource{PusherHarbor, PusherWebhook, PusherNone} }

// Push is who pushed a digest when, as the report shows it.
type Push struct {
	Pusher string
	// At is zero where nobody named a time.
	At     time.Time
	Source PusherSource
}

// Push gives what Harbor's feed says of the push, or else what the first webhook said. A time that Harbor does not name is the webhook's.
func (r *Record) Push() Push {
	p := Push{Pusher: r.Pusher, At: r.PushedAt, Source: PusherNone}
	switch {
	case r.ConfirmedSeq != 0:
		p.Pusher, p.Source = r.ConfirmedPusher, PusherHarbor
		if !r.ConfirmedPushedAt.IsZero() {
			p.At = r.ConfirmedPushedAt
		}
	case p.Pusher != "":
		p.Source = PusherWebhook
	}
	return p
}
