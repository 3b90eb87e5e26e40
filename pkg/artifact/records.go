package artifact

import "time"

// Self is the actor of what nobody asked for: the service itself.
const Self = "harborseal"

// Result says whether what an event tells of succeeded (PCI DSS 10.2.2).
type Result string

// The results.
const (
	Success Result = "success"
	Failure Result = "failure"
)

// Result is that of events of a kind, unless they say otherwise themselves.
func (k Kind) Result() Result {
	switch k {
	case Failed, Dead, Removed, Drifted, Outage, Tampered, RetentionShortened:
		return Failure
	default:
		return Success
	}
}

// KeyRecord is a key whose state has changed.
type KeyRecord struct {
	// ID is what rows and events show as key_id; Name is that of the configuration.
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// Use is "image" or "ledger".
	Use string `json:"use"`
	// State is what it is from now on: active, retired or revoked.
	State string `json:"state"`
}

// ReportRecord is what somebody was shown of the report.
type ReportRecord struct {
	// Scope says what was asked for: the path, and the parameters of the question as they were sent.
	Scope string `json:"scope"`
	// Format is "csv" or "jsonl" of an export, else empty. Rows and SHA256 (hexadecimal, of the file of rows) are those that were
	// sent; Complete is false if the client went away before the end.
	Format   string `json:"format,omitempty"`
	Rows     uint64 `json:"rows,omitempty"`
	SHA256   string `json:"sha256,omitempty"`
	Complete bool   `json:"complete,omitempty"`
	// Address is where the question came from.
	Address string `json:"address,omitempty"`
}

// CheckpointRecord is a checkpoint of the ledger's Merkle log, with what is needed to go on from it when the events before it have
// expired.
type CheckpointRecord struct {
	// Epoch numbers the logs of one ledger: a restored ledger, or one that was made anew, begins another.
	Epoch uint64 `json:"epoch"`
	// Size is the number of events in the log, and LastSeq the sequence of the last of them; 0 in an empty log.
	Size    uint64 `json:"size"`
	LastSeq uint64 `json:"last_seq"`
	// Note is the signed checkpoint.
	//
	// SPEC: C2SP tlog-checkpoint, a signed note.
	Note string `json:"note"`
	// Frontier are the hashes of the perfect subtrees that the log consists of, from the left: largest first.
	Frontier [][]byte `json:"frontier"`
}

// EpochRecord opens an epoch. Why it was opened is the event's Reason.
type EpochRecord struct {
	Epoch uint64 `json:"epoch"`
	// First is the sequence of the first event that belongs to the log of the epoch.
	First uint64 `json:"first"`
	// Stream is when the stream was created.
	Stream time.Time `json:"stream"`
	// Previous is the last signed checkpoint of the epoch before, where one is known.
	Previous string `json:"previous,omitempty"`
	// Note is the statement of all this, signed like a checkpoint.
	Note string `json:"note"`
}
