package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// documentVersion is the version of documents that this program writes. It reads that version and older ones.
const documentVersion = 1

var (
	// ErrConflict says that a document was changed by somebody else since it was read.
	ErrConflict = errors.New("somebody else has changed the policy meanwhile")
	// ErrNotLoaded says that the policies were not read yet. It never stands for "not enabled".
	ErrNotLoaded = errors.New("the policies are not loaded yet")
)

// Backfill is what is done about images that were pushed before a project was enabled: a blind backfill would bless them
// all, so that there is no default.
type Backfill struct {
	// Choice is "none", "all" or "since:<time>", as it was asked for.
	Choice string `json:"choice"`
	// From is the push time from which on images are signed; zero for all.
	From time.Time `json:"from,omitzero"`
}

// ParseBackfill reads none, all, or since: and a time of RFC 3339. now is what none counts from.
func ParseBackfill(choice string, now time.Time) (Backfill, error) {
	since, found := strings.CutPrefix(choice, "since:")
	switch {
	case choice == "none":
		return Backfill{Choice: choice, From: now.UTC()}, nil
	case choice == "all":
		return Backfill{Choice: choice}, nil
	case found:
		from, err := time.Parse(time.RFC3339, since)
		if err == nil && !from.IsZero() {
			return Backfill{Choice: choice, From: from.UTC()}, nil
		}
	}
	return Backfill{}, &FieldError{
		Field: "backfill", Want: "want none, all, or since: and a time such as since:2026-01-31T00:00:00Z: which of the images that are there already are signed",
	}
}

// Block keeps one digest from ever being signed, in all repositories of the project. It is a veto: it counts wherever it
// stands, in the API's document or in the file.
type Block struct {
	Digest string    `json:"digest"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at,omitzero"`
}

// validate is for blocks of a file: those of the API were checked when they were set.
func (b Block) validate(at string) error {
	switch {
	case artifact.ValidateDigest(b.Digest) != nil:
		return &FieldError{Field: at + ".digest", Want: "want sha256: and 64 lower-case hexadecimal digits"}
	case !ValidReason(b.Reason):
		return &FieldError{Field: at + ".reason", Want: fmt.Sprintf("want why, in at most %d bytes", MaxReason)}
	default:
		return nil
	}
}

// Document is the policy of one project as the API keeps it.
type Document struct {
	Version int    `json:"v"`
	Project string `json:"project"`
	// ProjectID is Harbor's: a project that is deleted and made anew has another one.
	ProjectID int64 `json:"project_id"`
	Spec
	Backfill  Backfill  `json:"backfill"`
	Blocks    []Block   `json:"blocks,omitempty"`
	ChangedBy string    `json:"changed_by"`
	ChangedAt time.Time `json:"changed_at"`
}

// Encode gives the JSON form, with the version of this program.
func (d Document) Encode() ([]byte, error) {
	d.Version = documentVersion
	if err := d.validate(); err != nil {
		return nil, fmt.Errorf("encoding a policy: %w", err)
	}
	return json.Marshal(d)
}

// DecodeDocument reads the JSON form of this version and older ones.
func DecodeDocument(data []byte) (Document, error) {
	var d Document
	if err := decode(data, &d); err != nil {
		return Document{}, fmt.Errorf("decoding a policy: %w", err)
	}
	if err := d.validate(); err != nil {
		return Document{}, fmt.Errorf("decoding a policy: %w", err)
	}
	return d, nil
}

func (d Document) validate() error {
	if err := artifact.ValidateProject(d.Project); err != nil {
		return err
	}
	switch {
	case d.ProjectID <= 0:
		return errors.New("project_id is missing")
	case d.Backfill.Choice == "":
		return errors.New("backfill is missing")
	case len(d.Blocks) > MaxBlocks:
		return fmt.Errorf("more than %d blocks", MaxBlocks)
	}
	return d.Validate()
}

// State is what the service itself keeps about an enabled project.
type State struct {
	Version int    `json:"v"`
	Project string `json:"project"`
	// ProjectID is Harbor's, as it was when the webhook was made.
	ProjectID int64 `json:"project_id"`
	// WebhookID is the id of our webhook policy in Harbor; 0 if there is none.
	WebhookID int64 `json:"webhook_id,omitempty"`
	// SecretVersion is the version of the webhook's secret; PreviousVersion, unless it is 0, is accepted beside it until
	// PreviousUntil, because deliveries that Harbor has made already carry it.
	SecretVersion   int       `json:"secret_version,omitempty"`
	PreviousVersion int       `json:"previous_version,omitempty"`
	PreviousUntil   time.Time `json:"previous_until,omitzero"`
	// SuspendedFor is the id of another project that was found under the name; 0 if there is none. Nothing is signed then.
	SuspendedFor int64 `json:"suspended_for,omitempty"`
	// Problems is what is wrong at the moment and not for this service to repair.
	Problems  []Problem `json:"problems,omitempty"`
	CheckedAt time.Time `json:"checked_at,omitzero"`
}

// Problem is one thing that is wrong with a project in Harbor.
type Problem struct {
	// Reason is from a closed set, see package enroll.
	Reason string `json:"reason"`
	// Detail is for people: what is wrong, and what to do.
	Detail string    `json:"detail"`
	Since  time.Time `json:"since"`
}

// Encode gives the JSON form, with the version of this program.
func (s State) Encode() ([]byte, error) {
	s.Version = documentVersion
	if err := artifact.ValidateProject(s.Project); err != nil {
		return nil, fmt.Errorf("encoding a project's state: %w", err)
	}
	return json.Marshal(s)
}

// DecodeState reads the JSON form of this version and older ones.
func DecodeState(data []byte) (State, error) {
	var s State
	if err := decode(data, &s); err != nil {
		return State{}, fmt.Errorf("decoding a project's state: %w", err)
	}
	return s, artifact.ValidateProject(s.Project)
}

// Pause stops signing, for one project or for all, until somebody resumes it.
type Pause struct {
	Version int       `json:"v"`
	Paused  bool      `json:"paused"`
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at"`
}

// Encode gives the JSON form, with the version of this program.
func (p Pause) Encode() ([]byte, error) {
	p.Version = documentVersion
	return json.Marshal(p)
}

// DecodePause reads the JSON form of this version and older ones.
func DecodePause(data []byte) (Pause, error) {
	var p Pause
	if err := decode(data, &p); err != nil {
		return Pause{}, fmt.Errorf("decoding a pause: %w", err)
	}
	return p, nil
}

// decode looks at the version first, because a newer document may differ in everything else: what this program does not
// understand must not be taken for a policy that asks for less.
func decode(data []byte, into any) error {
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	switch {
	case head.Version > documentVersion:
		return artifact.ErrNewerVersion
	case head.Version < 1:
		return errors.New("field v is missing")
	}
	return json.Unmarshal(data, into)
}
