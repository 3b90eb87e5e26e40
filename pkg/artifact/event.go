package artifact

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Kind is what happened.
type Kind string

// The kinds of events. They are part of the ledger's vocabulary: a kind is added, never renamed.
const (
	Received Kind = "received" // Harbor reported a push
	Queued   Kind = "queued"   // asked for because an index names it; Parent is the index
	Signed   Kind = "signed"   // a signature verifies; How says whether it was made or found
	Skipped  Kind = "skipped"  // not to be signed; Reason says why
	Vanished Kind = "gone"     // no longer in Harbor
	Failed   Kind = "failed"   // an attempt failed and will be repeated
	Dead     Kind = "dead"     // given up; waits in the dead letters
	Removed  Kind = "removed"  // a signature that was verified is no longer there, or counts no more; Signatures are those
	Blocked  Kind = "blocked"  // an admin has forbidden to sign it, whether it is signed or not
	// Replayed: somebody asked for a dead letter to be tried again; Actor says who. Discarded: somebody took a dead letter away for
	// good; Actor and Detail say who and why.
	Replayed  Kind = "replayed"
	Discarded Kind = "discarded"
	// LogPaid: the log entry that a signed event said is owed is there, or is owed no more; Reason says why then. Signatures
	// are those that were verified.
	LogPaid Kind = "log_debt_paid"
	// Confirmed: Harbor's own feed tells of this push. Tag, Pusher and PushedAt are Harbor's word; those of received events
	// are anybody's who knows the webhook's secret.
	Confirmed Kind = "push_confirmed"
)

// The kinds of events about a project, or about all, which have no Ref.
const (
	PolicyChanged Kind = "policy_changed" // Change says what, from where
	Swept         Kind = "swept"          // a sweep has ended; Sweep sums it up
	Drifted       Kind = "drifted"        // Harbor's side differs from what the policy needs; Reason says in what
	Repaired      Kind = "repaired"       // a drift was repaired, or has gone; Reason is the drift's
	Paused        Kind = "paused"
	Resumed       Kind = "resumed"
	Outage        Kind = "outage" // a dependency did not answer; Outage of the event tells
	// Unreadable: somebody took a dead letter away for good of which not even the manifest can be told; as Discarded.
	Unreadable Kind = "discarded_unreadable"
	// The keys that sign or are accepted have changed; Key says which.
	KeyAdded   Kind = "key_added"
	KeyRetired Kind = "key_retired"
	KeyRevoked Kind = "key_revoked"
	// Somebody has read the report, or exported it; Report says what.
	ReportRead     Kind = "report_read"
	ReportExported Kind = "report_exported"
	// The Merkle log of the ledger: a signed checkpoint, the opening of an epoch, and what does not fit them. Checkpoint, Epoch and
	// Detail say what.
	Checkpointed Kind = "checkpoint"
	EpochOpened  Kind = "epoch_opened"
	Tampered     Kind = "tampered"
	// RetentionShortened: the stream keeps events for less than the configuration says; Detail says for how long.
	RetentionShortened Kind = "retention_shortened"
	// A backup was made, or restored; Detail says of when, Actor who did it.
	BackupMade Kind = "backup_made"
	Restored   Kind = "restored"
)

// OfProject says whether events of a kind are about a project, or about all, and not about a manifest.
func (k Kind) OfProject() bool {
	switch k {
	case PolicyChanged, Swept, Drifted, Repaired, Paused, Resumed, Outage, Unreadable,
		KeyAdded, KeyRetired, KeyRevoked, ReportRead, ReportExported, Checkpointed, EpochOpened, Tampered, RetentionShortened,
		BackupMade, Restored:
		return true
	default:
		return false
	}
}

// How a signature came to be known.
type How string

const (
	// Made means that this service attached the signature in this attempt.
	Made How = "made"
	// Found means that a valid signature was there already.
	Found How = "found"
)

// Event is one record of the ledger. Which fields are set beyond the head depends on its kind.
type Event struct {
	Version int `json:"v"`
	// ID is the same for a repetition of the same fact: the ledger keeps the first.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Ref is the manifest; zero in events about a project.
	Ref Ref `json:"ref,omitzero"`
	// Project is set in events about a project alone; empty if the event is about all projects.
	Project string `json:"project,omitempty"`
	// Time, Actor, Origin, CorrelationID and Result are those that PCI DSS 10.2.2 asks for, with Kind, and Ref or Project.
	// [EncodeEvent] fills in an Actor (the service itself) and a Result where there is none.
	Time          time.Time `json:"time"`
	Actor         string    `json:"actor,omitempty"`
	Origin        Origin    `json:"origin"`
	CorrelationID string    `json:"correlation_id"`
	Result        Result    `json:"result,omitempty"` // empty in events of older programs: see [Kind.Result]

	// Of received events. Pusher and PushedAt are the webhook's word; PushedAt has a resolution of one second. Tag is
	// empty for a push by digest.
	Tag      string     `json:"tag,omitempty"`
	Pusher   string     `json:"pusher,omitempty"`
	PushedAt *time.Time `json:"pushed_at,omitempty"`

	// Of all that a signer records.
	Lane           Lane   `json:"lane,omitempty"`
	MediaType      string `json:"media_type,omitempty"`
	Parent         string `json:"parent,omitempty"`
	Attempts       uint64 `json:"attempts,omitempty"`
	PolicyRevision string `json:"policy_revision,omitempty"`
	// Reason is from a closed set: a policy.Reason for skipped, a fault.Reason for failed and dead.
	Reason string `json:"reason,omitempty"`
	// Detail is for people: what exactly happened, and what to do. It holds nothing secret.
	Detail string `json:"detail,omitempty"`
	// Unsigned says that the attempt looked for a signature and found none that counts. AsOf, also of gone, removed and observed
	// events, is a sequence that the ledger had reached before that look: signed events behind it may tell of a signature that
	// came later than the look. It is 0 in events of older programs.
	Unsigned bool   `json:"unsigned,omitempty"`
	AsOf     uint64 `json:"as_of,omitempty"`

	// Of signed events. Signatures are those that were verified, one for each format that the policy asks for; Format,
	// KeyID and SignatureDigest repeat the first of them.
	How             How        `json:"how,omitempty"`
	Format          Format     `json:"format,omitempty"`
	KeyID           string     `json:"key_id,omitempty"`
	SignatureDigest string     `json:"signature_digest,omitempty"`
	Signatures      []Evidence `json:"signatures,omitempty"`
	// Accessories are all that Harbor listed as signatures when those were verified, and KeySet names the keys that were
	// accepted. Both are there where a sweep verified, so that the next one need not.
	Accessories []string `json:"accessories,omitempty"`
	KeySet      string   `json:"key_set,omitempty"`
	// LogOwed are the formats in which an entry of a transparency log is still to be made: the debt. AsOf is set beside it: a
	// log_debt_paid event with a higher sequence has paid it.
	LogOwed []Format `json:"log_owed,omitempty"`

	// Of policy_changed, paused and resumed events.
	Change *Change `json:"change,omitempty"`
	// Of swept events.
	Sweep *Sweep `json:"sweep,omitempty"`
	// Of outage events.
	Outage *OutageRecord `json:"outage,omitempty"`
	// Of key_added, key_retired and key_revoked events.
	Key *KeyRecord `json:"key,omitempty"`
	// Of report_read and report_exported events.
	Report *ReportRecord `json:"report,omitempty"`
	// Of checkpoint and epoch_opened events.
	Checkpoint *CheckpointRecord `json:"checkpoint,omitempty"`
	Epoch      *EpochRecord      `json:"epoch,omitempty"`

	// Canary says that the image is this service's own, pushed to try the whole way: it is in no report.
	Canary bool `json:"canary,omitempty"`
}

// OutageRecord is what one program saw of a dependency that did not answer (PCI DSS 10.7.3). It is recorded when the outage is
// detected, without an end, and once more when it has ended.
type OutageRecord struct {
	// Dependency is its name in the metrics, such as "log/rekor". Program is "receiver" or "signer", and Instance tells those of
	// one kind apart.
	Dependency string `json:"dependency"`
	Program    string `json:"program"`
	Instance   string `json:"instance"`
	// StartedAt is when the dependency answered last, or when the program started, DetectedAt when this program knew, EndedAt
	// when it answered again, or when the program stopped, which Detail says: nil while it does not. Who is killed leaves it open.
	StartedAt  time.Time  `json:"started_at"`
	DetectedAt time.Time  `json:"detected_at"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
	// Cause is from the closed set of reasons of package dependency; Detail is for people.
	Cause  string `json:"cause"`
	Detail string `json:"detail,omitempty"`
	// Waiting is how many requests waited in the queue, Deferred how many log entries were owed: at the end of the outage, or
	// when it was detected.
	Waiting  uint64 `json:"waiting"`
	Deferred uint64 `json:"deferred"`
}

// Change is who changed what: Actor of the event says who.
type Change struct {
	// Before and After are JSON; empty if there was nothing.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// From is where the change came from: an address, or "config".
	From string `json:"from,omitempty"`
}

// Sweep sums up a full sweep of a project, in manifests.
type Sweep struct {
	StartedAt time.Time `json:"started_at"`
	// Population counts the digests that were seen; Digest is the SHA-256, in hexadecimal, over them: their references,
	// sorted, each followed by a line feed. It is empty if the sweep was resumed by another signer in between.
	Population int    `json:"population"`
	Digest     string `json:"digest,omitempty"`
	// HarborCount is Harbor's own count of the same listing when the sweep began. Pushed and Deleted say what changed since,
	// as far as the sweep has noticed.
	HarborCount int `json:"harbor_count"`
	Pushed      int `json:"pushed"`
	Deleted     int `json:"deleted"`
	// What was found. Requested are those that were asked for by this sweep, Pending those that wait already.
	Signed    int `json:"signed"`
	Requested int `json:"requested"`
	Pending   int `json:"pending"`
	Failed    int `json:"failed"` // dead letters
	Excluded  int `json:"excluded"`
	Blocked   int `json:"blocked"`
	Unsigned  int `json:"unsigned"` // not asked for, because of the mode observe or of restore: alert
	Gone      int `json:"gone"`     // no longer in Harbor
	Removed   int `json:"removed"`  // signatures that have vanished
	Verified  int `json:"verified"` // digests whose signatures were read and checked, and not recalled
	// Retired are those of the signed that no active key has signed.
	Retired int `json:"retired"`
	// Requests is how often Harbor was asked.
	Requests int `json:"requests"`
}

// Evidence is a signature that was verified in the registry.
type Evidence struct {
	Format Format `json:"format"`
	KeyID  string `json:"key_id"`
	// Digest is that of the manifest that carries the signature.
	Digest string `json:"digest"`
	// Log is the name of the transparency log whose entry was verified, and LogIndex its index there; empty and 0 if there is
	// none. TimestampedAt is the time of the verified timestamp, in UTC.
	Log           string    `json:"log,omitempty"`
	LogIndex      int64     `json:"log_index,omitempty"`
	TimestampedAt time.Time `json:"timestamped_at,omitzero"`
}

// EventID derives an id of 32 hexadecimal digits from the parts that make a fact what it is. Parts are length-prefixed:
// ("a", "bc") and ("ab", "c") differ.
func EventID(kind Kind, ref Ref, parts ...string) string {
	h := sha256.New()
	for _, part := range append([]string{string(kind), ref.String()}, parts...) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// EncodeEvent gives the JSON form. The version is set to [Version].
func EncodeEvent(e Event) ([]byte, error) {
	e.Version = Version
	if e.Actor == "" {
		e.Actor = Self
	}
	if e.Result == "" {
		e.Result = e.Kind.Result()
	}
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return json.Marshal(e)
}

// DecodeEvent reads the JSON form of this version and older ones; unknown fields are ignored. The error is
// [ErrNewerVersion] or says what is wrong.
func DecodeEvent(data []byte) (Event, error) {
	if err := checkVersion(data); err != nil {
		return Event{}, fmt.Errorf("decoding an event: %w", err)
	}
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return Event{}, fmt.Errorf("decoding an event: %w", err)
	}
	if err := e.validate(); err != nil {
		return Event{}, fmt.Errorf("decoding an event: %w", err)
	}
	return e, nil
}

func (e Event) validate() error {
	switch {
	case e.ID == "":
		return errors.New("field id is missing")
	case e.Kind == "":
		return errors.New("field kind is missing")
	case e.Ref.IsZero() != e.Kind.OfProject():
		return errors.New("field ref is missing, or there in an event about a project")
	case e.Time.IsZero():
		return errors.New("field time is missing")
	case e.CorrelationID == "":
		return errors.New("field correlation_id is missing")
	}
	return nil
}

// Entry is an event with its place in the ledger.
type Entry struct {
	Seq   uint64
	Event Event
	// Subject and Data are those of the message, as it is stored: what the Merkle log is made of. They are there for what cannot
	// be read as an event, too. Whoever makes an Entry without a stream may leave them out.
	Subject string
	Data    []byte
}
