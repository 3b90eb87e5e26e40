package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// maxPolicy bounds a value of the bucket of policies, in bytes: below the largest message that NATS takes by default, and
// above the largest document that keeps to its own limits.
const maxPolicy = 1000 << 10

// known says whether this program knows a kind of entries.
func known(kind book.Kind) bool {
	switch kind {
	case book.Policy, book.State, book.Declared, book.Pause:
		return true
	default:
		return false
	}
}

// PutPolicy stores an entry of the bucket of policies as the successor of the revision that the caller has read, and gives
// the new revision. expect 0 means that there must be none, or a deleted one; the revision of a deleted entry does as well.
// Of several who expect the same revision exactly one succeeds; the error of the others wraps policy.ErrConflict. The
// value must not be empty and has at most 1,000 KiB; one that is larger is a permanent fault. It is not looked into.
//
// A crash or another error before the answer leaves open whether it is stored: read the entry before trying again.
func (c *Client) PutPolicy(
	ctx context.Context, kind book.Kind, project string, value []byte, expect uint64,
) (revision uint64, err error) {
	subject, err := c.policySubject(kind, project)
	if err == nil && len(value) == 0 {
		err = fault.New(fault.Permanent, fault.Malformed, errors.New("the value is empty"))
	}
	if err == nil {
		err = tooLarge(len(value), maxPolicy)
	}
	if err == nil {
		revision, err = c.put(ctx, streamPolicy, subject, value, expect)
	}
	if err != nil {
		return 0, fmt.Errorf("storing the %s of project %q: %w", kind, project, err)
	}
	return revision, nil
}

// GetPolicy gives an entry as it is now. One that does not exist has no value and the revision 0; one that was deleted has
// no value and the revision of its deletion. It sees every change that was confirmed before.
func (c *Client) GetPolicy(ctx context.Context, kind book.Kind, project string) (book.Entry, error) {
	subject, err := c.policySubject(kind, project)
	if err != nil {
		return book.Entry{}, fmt.Errorf("reading the %s of project %q: %w", kind, project, err)
	}
	msg, err := c.lastMessage(ctx, streamPolicy, subject)
	if err == nil && msg == nil {
		return book.Entry{Kind: kind, Project: project}, nil
	}
	var entry book.Entry
	if err == nil {
		entry, err = policyEntry(kind, project, msg)
	}
	if err != nil {
		return book.Entry{}, fmt.Errorf("reading the %s of project %q: %w", kind, project, err)
	}
	return entry, nil
}

// DeletePolicy deletes an entry if its revision is the expected one, else the error wraps policy.ErrConflict. Deleting what
// does not exist, or is deleted already, is a success. The history keeps what it was.
func (c *Client) DeletePolicy(ctx context.Context, kind book.Kind, project string, expect uint64) error {
	subject, err := c.policySubject(kind, project)
	if err == nil {
		err = c.remove(ctx, streamPolicy, subject, expect)
	}
	if err != nil {
		return fmt.Errorf("deleting the %s of project %q: %w", kind, project, err)
	}
	return nil
}

// PolicyHistory gives what the policy of a project was, oldest first: the newest 64 values and deletions. It costs a request
// for each of them.
func (c *Client) PolicyHistory(ctx context.Context, project string) ([]book.Entry, error) {
	subject, err := c.policySubject(book.Policy, project)
	if err != nil {
		return nil, fmt.Errorf("reading the history of project %q: %w", project, err)
	}
	var entries []book.Entry
	for from := uint64(1); ; {
		msg, err := c.nextMessage(ctx, streamPolicy, subject, from)
		if err == nil && msg == nil {
			return entries, nil
		}
		var entry book.Entry
		if err == nil {
			entry, err = policyEntry(book.Policy, project, msg)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the history of project %q: %w", project, err)
		}
		entries = append(entries, entry)
		from = msg.Sequence + 1
	}
}

// nextMessage gives the first message of a subject from a sequence on, nil if there is none.
func (c *Client) nextMessage(ctx context.Context, stream, subject string, from uint64) (*jetstream.RawStreamMsg, error) {
	return c.fetch(ctx, stream, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return handle.GetMsg(ctx, from, jetstream.WithGetMsgSubject(subject))
	})
}

// policySubject checks what becomes part of a subject.
func (c *Client) policySubject(kind book.Kind, project string) (string, error) {
	if !known(kind) {
		return "", fault.Newf(fault.Permanent, fault.Malformed, "kind %.40q of an entry is not one", string(kind))
	}
	if project != "" {
		if err := artifact.ValidateProject(project); err != nil {
			return "", fault.New(fault.Permanent, fault.Malformed, err)
		}
	}
	return PolicySubject(c.cfg.Harbor, kind, project), nil
}

func policyEntry(kind book.Kind, project string, msg *jetstream.RawStreamMsg) (book.Entry, error) {
	entry := book.Entry{Kind: kind, Project: project, Revision: msg.Sequence, At: msg.Time}
	if isDeleted(msg.Header) {
		return entry, nil
	}
	entry.Value = msg.Data
	return entry, tooLarge(len(msg.Data), maxPolicy)
}

// maxState bounds a state of recurring work, in bytes.
const maxState = 256 << 10

// LoadState gives what recurring work keeps under a kind and a key, such as a project, to go on from there; nil and the
// revision 0 if that is nothing. A kind is 1 to 32 of a-z, 0-9, - and _.
func (c *Client) LoadState(ctx context.Context, kind, key string) (value []byte, revision uint64, err error) {
	var msg *jetstream.RawStreamMsg
	if err = validateToken("kind of a state", kind); err != nil {
		err = fault.New(fault.Permanent, fault.Malformed, err)
	} else if msg, err = c.lastMessage(ctx, streamSweep, stateSubject(c.cfg.Harbor, kind, key)); err == nil && msg != nil {
		err = tooLarge(len(msg.Data), maxState)
	}
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("loading the state %s of %q: %w", kind, key, err)
	case msg == nil:
		return nil, 0, nil
	case isDeleted(msg.Header):
		return nil, msg.Sequence, nil
	}
	return msg.Data, msg.Sequence, nil
}

// SaveState stores a state as the successor of the revision that was loaded, under the rules of [Client.PutPolicy], and
// gives the new revision. A value has at most 256 KiB; an empty one is allowed and is what nothing would be.
func (c *Client) SaveState(ctx context.Context, kind, key string, value []byte, expect uint64) (revision uint64, err error) {
	if err = validateToken("kind of a state", kind); err != nil {
		err = fault.New(fault.Permanent, fault.Malformed, err)
	} else if err = tooLarge(len(value), maxState); err == nil {
		revision, err = c.put(ctx, streamSweep, stateSubject(c.cfg.Harbor, kind, key), value, expect)
	}
	if err != nil {
		return 0, fmt.Errorf("saving the state %s of %q: %w", kind, key, err)
	}
	return revision, nil
}
