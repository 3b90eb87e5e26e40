package notary

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// epochDomain is the first line of the statement that opens an epoch; no checkpoint begins with it.
const epochDomain = "harborseal/epoch/v1"

// epochPart stands between the name of a key and the number of an epoch, in the origin of a log.
const epochPart = "/epoch/"

// Origin is the name of the log of an epoch.
func Origin(keyName string, epoch uint64) string {
	return keyName + epochPart + strconv.FormatUint(epoch, 10)
}

// Checkpoint is what a checkpoint says.
type Checkpoint struct {
	Origin string
	Epoch  uint64
	Size   uint64
	Root   [HashSize]byte
}

// SignCheckpoint makes a checkpoint.
//
// SPEC: C2SP tlog-checkpoint: origin, size in decimal and root in base64, each on a line, as a signed note.
func SignCheckpoint(key *Key, epoch, size uint64, root [HashSize]byte) (string, error) {
	text := Origin(key.Name(), epoch) + "\n" + strconv.FormatUint(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
	return signNote(key, text)
}

func signNote(key *Key, text string) (string, error) {
	signed, err := note.Sign(&note.Note{Text: text}, key)
	if err != nil {
		return "", fmt.Errorf("signing with the ledger key: %w", err)
	}
	return string(signed), nil
}

// OpenCheckpoint verifies a checkpoint. Its origin must be that of the key that has signed it.
func OpenCheckpoint(keys *Keys, signed string) (Checkpoint, error) {
	text, signer, err := keys.open(signed)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", err)
	}
	c, err := parseCheckpoint(text, signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", err)
	}
	return c, nil
}

func parseCheckpoint(text, signer string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, errors.New("want three lines: origin, size, root")
	}
	c := Checkpoint{Origin: lines[0]}
	number, ok := strings.CutPrefix(c.Origin, signer+epochPart)
	var err error
	if c.Epoch, err = parseNumber(number); !ok || err != nil || c.Epoch == 0 {
		return Checkpoint{}, fmt.Errorf("origin %.200q is not of the key %.100q", c.Origin, signer)
	}
	if c.Size, err = parseNumber(lines[1]); err != nil {
		return Checkpoint{}, fmt.Errorf("size %.30q: %w", lines[1], err)
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != HashSize {
		return Checkpoint{}, errors.New("the root is no SHA-256 in base64")
	}
	copy(c.Root[:], root)
	return c, nil
}

// parseNumber reads a number that is written in the one way in which it is: without signs and leading zeros.
func parseNumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err == nil && strconv.FormatUint(n, 10) != text {
		err = errors.New("not written as numbers are")
	}
	return n, err
}

// newRecord signs a tree and describes it.
func newRecord(key *Key, epoch uint64, t *tree) (artifact.CheckpointRecord, error) {
	root, err := t.root()
	if err != nil {
		return artifact.CheckpointRecord{}, fmt.Errorf("computing the root: %w", err)
	}
	signed, err := SignCheckpoint(key, epoch, t.size(), root)
	if err != nil {
		return artifact.CheckpointRecord{}, err
	}
	record := artifact.CheckpointRecord{Epoch: epoch, Size: t.size(), Note: signed, Frontier: t.frontier()}
	if t.size() > 0 {
		record.LastSeq = t.lastSeq
	}
	return record, nil
}

// openRecord verifies a checkpoint record: its note, and that the rest of it fits.
func openRecord(keys *Keys, r artifact.CheckpointRecord) (Checkpoint, *tree, error) {
	c, err := OpenCheckpoint(keys, r.Note)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Epoch != r.Epoch || c.Size != r.Size {
		return Checkpoint{}, nil, fmt.Errorf("the note is of epoch %d and size %d, its record of %d and %d", c.Epoch, c.Size, r.Epoch, r.Size)
	}
	t, err := treeAt(r.Size, r.LastSeq, r.Frontier)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("the frontier does not fit: %w", err)
	}
	root, err := t.root()
	if err != nil || root != c.Root {
		return Checkpoint{}, nil, errors.New("the frontier does not have the root that was signed")
	}
	return c, t, nil
}

// epochText is what the opening of an epoch says, and what is signed of it.
func epochText(keyName, reason string, r artifact.EpochRecord) string {
	previous := "none"
	if r.Previous != "" {
		sum := sha256.Sum256([]byte(r.Previous))
		previous = hex.EncodeToString(sum[:])
	}
	return strings.Join([]string{
		epochDomain, Origin(keyName, r.Epoch), "first " + strconv.FormatUint(r.First, 10),
		"stream " + r.Stream.UTC().Format(time.RFC3339Nano), "reason " + reason, "previous " + previous, "",
	}, "\n")
}

// openEpoch verifies the record of an epoch.
func openEpoch(keys *Keys, reason string, r artifact.EpochRecord) error {
	text, signer, err := keys.open(r.Note)
	if err != nil {
		return fmt.Errorf("reading the opening of an epoch: %w", err)
	}
	if r.Epoch == 0 || r.First == 0 || text != epochText(signer, reason, r) {
		return errors.New("reading the opening of an epoch: the note says something else than its record")
	}
	return nil
}
