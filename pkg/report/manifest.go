package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// The files of an export, in their order. The rows come first.
const (
	manifestName   = "manifest.json"
	signatureName  = "manifest.sig"
	checkpointName = "checkpoint.txt"
)

// formatVersion is the version of the archive, and domain the first line of what is signed: no checkpoint begins with it.
const (
	formatVersion = 1
	domain        = "harborseal/report/v1"
)

// Format is how the rows are written.
type Format string

// The formats.
const (
	CSV   Format = "csv"
	JSONL Format = "jsonl"
)

// Formats gives all formats.
func Formats() []Format { return []Format{CSV, JSONL} }

// file is the name of the file of rows.
func (f Format) file() string { return "report." + string(f) }

// Manifest says what an export is. Times are UTC.
type Manifest struct {
	FormatVersion int `json:"format_version"`
	// Harbor is the name of the installation, Registry the host that images are pulled from, Program the version of the service.
	Harbor   string `json:"harbor"`
	Registry string `json:"registry"`
	Program  string `json:"program"`
	// GeneratedAt is when the export began, FinishedAt when its last row was written.
	GeneratedAt time.Time `json:"generated_at"`
	FinishedAt  time.Time `json:"finished_at"`

	Scope      Scope      `json:"scope"`
	Exceptions Exceptions `json:"exceptions"`
	Totals     Totals     `json:"totals"`
	// Aggregates are the counts that the service keeps beside the rows, read apart from them: digests that changed meanwhile can
	// differ. Null where the filters leave a part of a project, which the counts do not know.
	Aggregates *Aggregates `json:"aggregates"`
	// Inventory are the keys that the service knows. It is empty where it was not told any.
	Inventory []KeyEntry `json:"keys"`
	// AsOf is how far the ledger was when the rows were read.
	AsOf AsOf `json:"as_of"`
	File File `json:"file"`
	// Checkpoint is the ledger's signed checkpoint when the export began, as in checkpoint.txt; empty where there is none.
	Checkpoint string `json:"checkpoint"`
	// SignedBy is the verifier key of the ledger key that has signed this manifest; empty where the service has none, so that the
	// export is not signed. Whoever verifies must have the key from elsewhere.
	SignedBy string `json:"signed_by"`
}

// Scope is what was asked for, and by whom.
type Scope struct {
	AskedBy string `json:"asked_by"`
	Address string `json:"address"`
	// Parameters are those of the question, by name.
	Parameters map[string]string `json:"parameters"`
	// Projects are those that the caller may see; null for all.
	Projects []string `json:"projects"`
	// Since and Until bound first_seen_at, as asked for; null for no bound.
	Since *time.Time `json:"since"`
	Until *time.Time `json:"until"`
}

// Aggregates are counts of whole projects.
type Aggregates struct {
	Population uint64 `json:"population"`
	Signed     uint64 `json:"signed"`
	Pending    uint64 `json:"pending"`
	Failed     uint64 `json:"failed"` // given up ones included
	Excluded   uint64 `json:"excluded"`
	Blocked    uint64 `json:"blocked"`
	Unsigned   uint64 `json:"unsigned"`
	LogDebt    uint64 `json:"log_debt"`
}

func (a *Aggregates) add(c ledger.Coverage) {
	for _, part := range []struct {
		sum *uint64
		n   int
	}{
		{&a.Population, c.Population},
		{&a.Signed, c.Signed},
		{&a.Pending, c.Pending},
		{&a.Failed, c.Failed},
		{&a.Excluded, c.Excluded},
		{&a.Blocked, c.Blocked},
		{&a.Unsigned, c.Unsigned},
		{&a.LogDebt, c.LogDebt},
	} {
		*part.sum += uint64(max(part.n, 0))
	}
}

// KeyEntry is a key of the inventory. Dates that are unknown are null.
type KeyEntry struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Use       string     `json:"use"`
	State     string     `json:"state"`
	AddedAt   *time.Time `json:"added_at"`
	RetiredAt *time.Time `json:"retired_at"`
	RevokedAt *time.Time `json:"revoked_at"`
}

// AsOf is a place in the ledger.
type AsOf struct {
	Sequence uint64 `json:"sequence"`
	// Stream is when the ledger's stream was created: another one counts from 1 again.
	Stream time.Time `json:"stream"`
}

// File is the file of rows.
type File struct {
	Name   string `json:"name"`
	Format Format `json:"format"`
	Rows   uint64 `json:"rows"`
	Bytes  uint64 `json:"bytes"`
	// SHA256 is in hexadecimal.
	SHA256 string `json:"sha256"`
	// Proofs says whether the rows carry proofs; Proven counts those that do.
	Proofs bool   `json:"proofs"`
	Proven uint64 `json:"proven"`
}

// Key signs exports: the ledger key. It is safe for concurrent use.
type Key interface {
	note.Signer
	// VerifierKey is the public half, as signed notes write it.
	VerifierKey() string
}

// encode gives the manifest as it stands in the archive: for people too, and without anything that a terminal would obey.
func (m *Manifest) encode() ([]byte, error) {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the manifest: %w", err)
	}
	var b []byte
	for line := range splitLines(raw) {
		b = append(appendPrintable(b, line), '\n')
	}
	return b, nil
}

// statement is what is signed of a manifest.
func statement(manifest []byte) string {
	sum := sha256.Sum256(manifest)
	return domain + "\n" + manifestName + " sha256:" + hex.EncodeToString(sum[:]) + "\n"
}

// sign gives the detached signature of a manifest.
//
// SPEC: C2SP signed-note.
func sign(manifest []byte, key Key) ([]byte, error) {
	signed, err := note.Sign(&note.Note{Text: statement(manifest)}, key)
	if err != nil {
		return nil, fmt.Errorf("signing the manifest: %w", err)
	}
	return signed, nil
}

// checkSignature checks a detached signature and gives the name of the key.
func checkSignature(manifest, signature []byte, keys note.Verifiers) (string, error) {
	n, err := note.Open(signature, keys)
	var unknown *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unknown):
		return "", errors.New("not signed by a key that was given")
	case err != nil:
		return "", fmt.Errorf("the signature does not hold: %w", err)
	case n.Text != statement(manifest):
		return "", errors.New("the signature is of another manifest")
	}
	return n.Sigs[0].Name, nil
}
