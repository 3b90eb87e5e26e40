package report

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/notary"
)

// maxLine bounds a row: beyond it, none that an export has written.
const maxLine = 16 << 20

// recount is what the rows of a file say.
type recount struct {
	tally  *tally
	proven uint64
}

// recountCSV reads report.csv to its end.
func recountCSV(r io.Reader, registry string) (*recount, error) {
	in := csv.NewReader(&lineLimit{r: r})
	in.ReuseRecord = true
	columns := Columns()
	in.FieldsPerRecord = len(columns)
	header, err := in.Read()
	if err != nil || !slices.Equal(header, columns) {
		return nil, fmt.Errorf("the first line of %s does not have the columns of a report", CSV.file())
	}
	at := make(map[string]int, len(columns))
	for i, name := range columns {
		at[name] = i
	}
	c := &recount{tally: newTally()}
	var keys []string
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a row: %w", err)
		}
		var f fact
		f, keys, err = factOfCSV(record, at, keys[:0], registry)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", c.tally.totals.Rows+1, err)
		}
		c.tally.add(&f)
	}
}

func factOfCSV(record []string, at map[string]int, keys []string, registry string) (fact, []string, error) {
	var err error
	text := func(column string) string {
		s, wrong := Unescape(record[at[column]])
		if wrong != nil {
			err = fmt.Errorf("%s: %w", column, wrong)
		}
		return s
	}
	f := fact{
		repository: text("repository"), digest: text("digest"), state: ledger.State(text("state")), reason: text("reason"),
		owed: text("log_state") == string(ledger.LogOwed),
	}
	if text("registry") != registry {
		err = errors.New("registry: another one than in the manifest")
	}
	list, wrong := UnescapeList(record[at["key_ids"]])
	if wrong != nil {
		err = fmt.Errorf("key_ids: %w", wrong)
	}
	keys = append(keys, list...)
	f.keys = keys
	if f.firstSeen, wrong = time.Parse(time.RFC3339Nano, record[at["first_seen_at"]]); wrong != nil {
		err = fmt.Errorf("first_seen_at: %w", wrong)
	}
	return f, keys, err
}

// lineLimit fails where a line is longer than any of a report, so that package encoding/csv does not keep it all.
type lineLimit struct {
	r io.Reader
	n int
}

// Read implements io.Reader.
func (l *lineLimit) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	for _, c := range b[:n] {
		if l.n++; c == '\n' {
			l.n = 0
		}
	}
	if l.n > maxLine {
		return 0, bufio.ErrTooLong
	}
	return n, err
}

// recountJSONL reads report.jsonl to its end, and checks the proofs.
func recountJSONL(r io.Reader, registry, checkpoint string, keys *notary.Keys) (*recount, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	c := &recount{tally: newTally()}
	proofs := proofChecks{keys: keys, ours: checkpoint, opened: map[string]notary.Checkpoint{}}
	for in.Scan() {
		var line Line
		err := json.Unmarshal(in.Bytes(), &line)
		switch {
		case err != nil:
		case line.Registry != registry:
			err = errors.New("registry: another one than in the manifest")
		case line.Proof != nil:
			c.proven++
			err = proofs.check(&line)
		}
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", c.tally.totals.Rows+1, err)
		}
		f := factOf(&line.Row, nil)
		c.tally.add(&f)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("reading a row: %w", err)
	}
	return c, nil
}

// maxOpened bounds the checkpoints that are remembered.
const maxOpened = 1024

// proofChecks checks proofs. It belongs to one goroutine.
type proofChecks struct {
	keys   *notary.Keys // nil if there is no key to check with
	ours   string
	opened map[string]notary.Checkpoint
}

// errProof is for a proof that does not hold.
var errProof = errors.New("the proof does not hold")

func (p *proofChecks) check(line *Line) error {
	if p.keys == nil {
		return fmt.Errorf("%w: there is no key to check its checkpoint with", errProof)
	}
	signed := line.Proof.Checkpoint
	if signed == "" {
		signed = p.ours
	}
	checkpoint, known := p.opened[signed]
	if !known {
		var err error
		if checkpoint, err = notary.OpenCheckpoint(p.keys, signed); err != nil {
			return fmt.Errorf("%w: %w", errProof, err)
		}
		if len(p.opened) == maxOpened {
			clear(p.opened)
		}
		p.opened[signed] = checkpoint
	}
	if checkpoint.Size != line.Proof.Size {
		return fmt.Errorf("%w: it is of size %s, its checkpoint of another", errProof, strconv.FormatUint(line.Proof.Size, 10))
	}
	leaf := notary.LeafHash(line.LedgerSeq, line.Proof.Subject, line.Proof.Event)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, line.Proof.Index, line.Proof.Size, leaf[:], line.Proof.Hashes, checkpoint.Root[:]); err != nil {
		return fmt.Errorf("%w: %w", errProof, err)
	}
	// The event is in the ledger; it must be one of this digest.
	event, err := artifact.DecodeEvent(line.Proof.Event)
	if err != nil || event.Ref.Repository() != line.Repository || event.Ref.Digest() != line.Digest {
		return fmt.Errorf("%w: the event is of another digest", errProof)
	}
	return nil
}
