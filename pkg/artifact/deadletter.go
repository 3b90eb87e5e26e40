package artifact

import "time"

// DeadLetter is a request that was given up, and what is known of why.
type DeadLetter struct {
	// ID names this letter among those of the queue. A later letter of the same manifest replaces it and has another, higher ID.
	ID uint64
	// Ref is zero if not even the reference of the request could be read.
	Ref Ref
	// Request is what was asked for; nil if it could not be read, as one of a newer version.
	Request *Request
	// Reason is a fault.Reason; LastError says what exactly failed, without anything secret.
	Reason    string
	LastError string
	// Attempts is how often it was handed out. FirstAt is when the request was stored, and LastAt when it was given up.
	Attempts        uint64
	FirstAt, LastAt time.Time
	// CorrelationID joins it with the events of its request; empty if that could not be read.
	CorrelationID string
	// Stored is the request as it was stored, for who wants to look at what could not be read.
	Stored []byte
}
