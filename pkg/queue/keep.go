package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// keepAge is for how long a signature is kept: longer than a request takes that is handed out again a few times.
	keepAge = 2 * time.Hour
	// maxKept bounds the envelope of a signature, in bytes. One of 2 KB is large already.
	maxKept = 64 << 10
	// keepAttempts bounds how often one call meets a key that somebody else just changed.
	keepAttempts = 8
)

// kept is the envelope of a signature. It says itself what it is for, so that a value in the wrong place is not attached.
type kept struct {
	Version   int                `json:"v"`
	Ref       artifact.Ref       `json:"ref"`
	Signature artifact.Signature `json:"signature"`
}

// Keep stores a signature before it is attached, and gives the signature that counts: s if it is the first one of its
// reference, format, key and stage, and the one that was kept before otherwise. All who ask within two hours of the first get
// the same. When Keep has returned it, it is stored as durably as everything else here.
//
// The stages are kept each for itself: the bytes alone, with a timestamp, with a log entry, with both. Of a later stage the
// bytes may be others than those that were kept alone, if those have expired meanwhile.
//
// What is there but cannot be read, because it is damaged or of a newer version, is replaced by s and logged: it would
// stop the work on its digest until it expires. A newer program may have been given the other bytes before.
//
// A crash or an error before the answer leaves open whether s is kept; the next call says which one is.
func (c *Client) Keep(ctx context.Context, ref artifact.Ref, s artifact.Signature) (artifact.Signature, error) {
	subject, data, err := encodeKept(c.cfg.Harbor, ref, s)
	if err != nil {
		return artifact.Signature{}, fmt.Errorf("keeping a signature: %w", err)
	}
	retry := newBackoff()
	// The revision that s replaces; 0 for none. The stream compares it with the last one of the subject and stores in one
	// step, so that of two who want to replace the same one, one is refused.
	revision := uint64(0)
	for range keepAttempts {
		_, err := c.publish(ctx, streamKept, subject, data, jetstream.WithExpectLastSequencePerSubject(revision))
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errOvertaken) {
			return artifact.Signature{}, fmt.Errorf("keeping a signature: %w", err)
		}
		msg, err := c.lastMessage(ctx, streamKept, subject)
		if err != nil {
			return artifact.Signature{}, fmt.Errorf("keeping a signature: %w", err)
		}
		if msg == nil {
			// It expired in between; or, in a cluster, it was accepted but is not stored yet.
			revision = 0
			if err := retry.wait(ctx); err != nil {
				return artifact.Signature{}, askFault(fmt.Errorf("keeping a signature: %w", err))
			}
			continue
		}
		first, err := decodeKept(msg.Data, ref, s)
		if err == nil {
			return first, nil
		}
		c.metrics.undecodable.WithLabelValues(streamKept).Inc()
		c.log.Error().Err(err).Str("subject", subject).Uint64("seq", msg.Sequence).
			Msg("kept signature cannot be read, replacing it")
		revision = msg.Sequence
	}
	return artifact.Signature{}, fault.Newf(fault.Transient, fault.QueueUnavailable,
		"keeping a signature: what is kept changed %d times in a row", keepAttempts)
}

func encodeKept(harbor string, ref artifact.Ref, s artifact.Signature) (subject string, data []byte, err error) {
	if err := validateKept(ref, s); err != nil {
		return "", nil, fault.New(fault.Permanent, fault.Malformed, err)
	}
	data, err = json.Marshal(kept{Version: artifact.Version, Ref: ref, Signature: s})
	if err != nil {
		return "", nil, fault.New(fault.Permanent, fault.Malformed, err)
	}
	if len(data) > maxKept {
		return "", nil, fault.Newf(fault.Permanent, fault.TooLarge, "it has %d bytes, at most %d are allowed", len(data), maxKept)
	}
	return KeptSubject(harbor, ref, s), data, nil
}

func validateKept(ref artifact.Ref, s artifact.Signature) error {
	switch {
	case ref.IsZero():
		return errors.New("reference is missing")
	case s.Format == "" || strings.IndexFunc(string(s.Format), notTokenRune) >= 0:
		return fmt.Errorf("format %.32q is not one", string(s.Format))
	case len(s.KeyID) != 64 || strings.Trim(s.KeyID, "0123456789abcdef") != "":
		return errors.New("key id is not 64 hexadecimal digits in lower case")
	case len(s.Payload) == 0 || len(s.Bytes) == 0:
		return errors.New("payload or signature is missing")
	}
	return nil
}

// decodeKept reads what is kept in the place of s.
func decodeKept(data []byte, ref artifact.Ref, s artifact.Signature) (artifact.Signature, error) {
	if len(data) > maxKept {
		return artifact.Signature{}, fmt.Errorf("it has %d bytes", len(data))
	}
	// The version first: a newer envelope may differ in everything else.
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return artifact.Signature{}, errors.New("it is no envelope in JSON")
	}
	switch {
	case head.Version > artifact.Version:
		return artifact.Signature{}, artifact.ErrNewerVersion
	case head.Version < 1:
		return artifact.Signature{}, errors.New("field v is missing")
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return artifact.Signature{}, fmt.Errorf("decoding it: %w", err)
	}
	if k.Ref != ref || k.Signature.Format != s.Format || k.Signature.KeyID != s.KeyID || stageOf(k.Signature) != stageOf(s) {
		return artifact.Signature{}, errors.New("it is for another reference, format, key or stage")
	}
	return k.Signature, validateKept(k.Ref, k.Signature)
}
