package artifact

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Version is the version of the envelopes that this program writes. It reads that version and older ones.
const Version = 1

// ErrNewerVersion says that an envelope was written by a newer program. It must be kept, not dropped: the program that
// wrote it can read it.
var ErrNewerVersion = errors.New("envelope has a newer version than this program reads: upgrade this program")

// Lane is the queue's priority class.
type Lane string

const (
	// Live is for pushes that somebody may be waiting for.
	Live Lane = "live"
	// Bulk is for backfills, sweeps, replays, and pushes beyond a project's budget.
	Bulk Lane = "bulk"
	// Debt is for signatures whose log entry is still to be made. Such requests wait in a stream of their own.
	Debt Lane = "debt"
)

// Origin is the part of the program that asked for something or saw it.
type Origin string

// The origins. They are part of the ledger's vocabulary.
const (
	OriginWebhook Origin = "webhook" // a push that Harbor reported
	OriginIndex   Origin = "index"   // a child of an index that was worked on
	OriginSweep   Origin = "sweep"   // found unsigned in Harbor's listing
	OriginRequeue Origin = "requeue" // a push that came in while its digest was in work
	OriginSigner  Origin = "signer"  // the signer's own record of what it did
	OriginAPI     Origin = "api"     // somebody who asked this service
	OriginConfig  Origin = "config"  // the configuration file
	OriginProbe   Origin = "probe"   // the program itself, watching what it depends on
	OriginReplay  Origin = "replay"  // a dead letter that somebody wants tried again
	OriginDrift   Origin = "drift"   // the comparison of Harbor's settings with what the policies need
)

// Request asks for one manifest to be signed. It is a hint: the signer reads everything but the reference again.
type Request struct {
	Version int    `json:"v"`
	Ref     Ref    `json:"ref"`
	Lane    Lane   `json:"lane"`
	Origin  Origin `json:"origin"`
	// Actor is who caused the request: the account that pushed, or the part of this program that asked.
	Actor string `json:"actor,omitempty"`
	// CorrelationID joins all records of one cause.
	CorrelationID string    `json:"correlation_id"`
	RequestedAt   time.Time `json:"requested_at"`
	// ReceivedSeq is the ledger's sequence of the received event behind the request, 0 if there is none. A later received
	// event of the same reference means that this request swallowed a newer one.
	ReceivedSeq uint64 `json:"received_seq,omitempty"`
	// Parent is the digest of the index whose work enqueued the request, and Depth the number of indexes above it.
	Parent string `json:"parent,omitempty"`
	Depth  int    `json:"depth,omitempty"`
	// PushedAt is when Harbor got the manifest, where nobody pushed it just now: a sweep asks then.
	PushedAt *time.Time `json:"pushed_at,omitempty"`
	// SignedBefore says that the manifest was signed before, so that it is in scope whatever its tags are.
	SignedBefore bool `json:"signed_before,omitempty"`
}

// EncodeRequest gives the JSON form. The version is set to [Version].
func EncodeRequest(r Request) ([]byte, error) {
	r.Version = Version
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encoding a request: %w", err)
	}
	return json.Marshal(r)
}

// DecodeRequest reads the JSON form of this version and older ones; unknown fields are ignored, so that a newer program
// may add some without a new version. The error is [ErrNewerVersion] or says what is wrong.
func DecodeRequest(data []byte) (Request, error) {
	if err := checkVersion(data); err != nil {
		return Request{}, fmt.Errorf("decoding a request: %w", err)
	}
	var r Request
	if err := json.Unmarshal(data, &r); err != nil {
		return Request{}, fmt.Errorf("decoding a request: %w", err)
	}
	if err := r.validate(); err != nil {
		return Request{}, fmt.Errorf("decoding a request: %w", err)
	}
	return r, nil
}

func (r Request) validate() error {
	switch {
	case r.Ref.IsZero():
		return errors.New("field ref is missing")
	case r.Lane != Live && r.Lane != Bulk && r.Lane != Debt:
		return fmt.Errorf("field lane: %.32q is not one of live, bulk, debt", r.Lane)
	case r.CorrelationID == "":
		return errors.New("field correlation_id is missing")
	case r.RequestedAt.IsZero():
		return errors.New("field requested_at is missing")
	case r.Depth < 0:
		return errors.New("field depth is negative")
	case r.Parent != "":
		return ValidateDigest(r.Parent)
	}
	return nil
}

// checkVersion looks at the version alone, because a newer envelope may differ in everything else.
func checkVersion(data []byte) error {
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	switch {
	case head.Version > Version:
		return ErrNewerVersion
	case head.Version < 1:
		return errors.New("field v is missing")
	}
	return nil
}
