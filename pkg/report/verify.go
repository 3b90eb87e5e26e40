package report

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"

	"golang.org/x/mod/sumdb/note"

	"github.com/harborseal/harborseal/pkg/notary"
)

// VerifyOptions say what an export is checked with.
type VerifyOptions struct {
	// Keys are the verifier keys that are trusted: those of the ledger key, and of the ones before it. Without any, the one that the
	// export itself names is used, which proves nothing about who made it.
	Keys []string
	// AllowUnsigned passes an export that nobody vouches for: without a signature, or with one of the key that it names itself.
	AllowUnsigned bool
}

// The results of a check.
const (
	CheckOK      = "ok"
	CheckFailed  = "FAILED"
	CheckWarning = "WARNING"
	CheckNone    = "none" // there is nothing to check
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// Verification is what was found out about an export.
type Verification struct {
	// OK says that no check failed. Trusted says more: that the export is signed by a key that was given.
	OK      bool    `json:"ok"`
	Trusted bool    `json:"trusted"`
	Checks  []Check `json:"checks"`
	// Manifest is the one of the export; nil where there is none that can be read.
	Manifest *Manifest `json:"manifest"`
}

func (v *Verification) add(name, result, format string, args ...any) {
	v.Checks = append(v.Checks, Check{Name: name, Result: result, Detail: fmt.Sprintf(format, args...)})
	if result == CheckFailed {
		v.OK = false
	}
}

// Verify checks an export, without any connection. The error says that a key that was given is none; what is wrong with the export is in
// the answer. It reads the rows once, and keeps none.
func Verify(r io.ReaderAt, size int64, options VerifyOptions) (Verification, error) {
	v := Verification{OK: true}
	for _, key := range options.Keys {
		if _, err := note.NewVerifier(key); err != nil {
			return v, fmt.Errorf("the verifier key %.100q is none: %w", key, err)
		}
	}
	found, err := openFiles(r, size)
	if err != nil {
		v.add("archive", CheckFailed, "%v", err)
		return v, nil
	}
	v.add("archive", CheckOK, "%s, %s, nothing else", found.rows.Name, manifestName)
	manifest, err := decodeManifest(found)
	if err != nil {
		v.add("manifest", CheckFailed, "%v", err)
		return v, nil
	}
	v.Manifest = manifest
	v.add("manifest", CheckOK, "%d rows as of ledger sequence %d", manifest.File.Rows, manifest.AsOf.Sequence)
	keys := v.signature(found, options)
	if !v.OK {
		return v, nil // what the manifest says of the rows is nobody's word
	}
	v.checkpoint(found, keys)
	v.rows(found, keys)
	return v, nil
}

// decodeManifest reads the manifest, which must be written as this program writes it: what is shown is what was signed.
func decodeManifest(found *files) (*Manifest, error) {
	m := &Manifest{}
	if err := json.Unmarshal(found.manifest, m); err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	switch {
	case m.FormatVersion > formatVersion:
		return nil, fmt.Errorf("it is of version %d, which this program does not know: use a newer one", m.FormatVersion)
	case m.FormatVersion != formatVersion:
		return nil, errors.New("it is not of an export")
	case m.File.Name != found.rows.Name || m.File.Format != found.format:
		return nil, fmt.Errorf("it is of %.100q, and the archive holds %s", m.File.Name, found.rows.Name)
	}
	return m, nil
}

// signature checks the signature and gives the keys to go on with; nil without any.
func (v *Verification) signature(found *files, options VerifyOptions) *notary.Keys {
	const name = "signature"
	texts, trusted := options.Keys, true
	if len(texts) == 0 && v.Manifest.SignedBy != "" {
		texts, trusted = []string{v.Manifest.SignedBy}, false
	}
	var keys *notary.Keys
	var verifiers []note.Verifier
	for _, text := range texts {
		verifier, err := note.NewVerifier(text)
		if err != nil {
			v.add(name, CheckFailed, "the key that the manifest names is none")
			return nil
		}
		verifiers = append(verifiers, verifier)
	}
	if len(texts) > 0 {
		var err error
		if keys, err = notary.NewKeys(texts...); err != nil {
			v.add(name, CheckFailed, "%v", err)
			return nil
		}
	}
	switch {
	case found.signature == nil && options.AllowUnsigned:
		v.add(name, CheckWarning, "UNSIGNED: anybody can have made this file")
		return keys
	case found.signature == nil:
		v.add(name, CheckFailed, "UNSIGNED: anybody can have made this file; --allow-unsigned checks the rest")
		return nil
	case keys == nil:
		v.add(name, CheckFailed, "there is a signature, and no key to check it with: give one with --key or --key-file")
		return nil
	}
	by, err := checkSignature(found.manifest, found.signature, note.VerifierList(verifiers...))
	switch {
	case err != nil:
		v.add(name, CheckFailed, "%v", err)
	case !trusted && !options.AllowUnsigned:
		v.add(name, CheckFailed, "UNTRUSTED KEY: it holds with the key that the file itself names, which anybody can make; give the ledger's with --key, or check the rest with --allow-unsigned")
	case !trusted:
		v.add(name, CheckWarning, "UNTRUSTED KEY: it holds with the key that the file itself names, which anybody can make; give the ledger's with --key")
	default:
		v.Trusted = true
		v.add(name, CheckOK, "by %s", by)
	}
	return keys
}

// checkpoint checks the ledger's checkpoint.
func (v *Verification) checkpoint(found *files, keys *notary.Keys) {
	const name = "checkpoint"
	switch signed := v.Manifest.Checkpoint; {
	case string(found.checkpoint) != signed:
		v.add(name, CheckFailed, "%s is another one than that of the manifest", checkpointName)
	case signed == "":
		v.add(name, CheckNone, "the ledger had none")
	case keys == nil:
		v.add(name, CheckWarning, "there is no key to check it with")
	default:
		c, err := notary.OpenCheckpoint(keys, signed)
		if err != nil {
			v.add(name, CheckFailed, "%v", err)
			return
		}
		v.add(name, CheckOK, "%d events in %s", c.Size, c.Origin)
	}
}

// rows checks the file of rows: its bytes, and what they add up to.
func (v *Verification) rows(found *files, keys *notary.Keys) {
	m := v.Manifest
	sum := &summed{left: m.File.Bytes}
	counted, err := readRows(found.rows, sum, func(r io.Reader) (*recount, error) {
		if found.format == CSV {
			return recountCSV(r, m.Registry)
		}
		return recountJSONL(r, m.Registry, m.Checkpoint, keys)
	})
	switch {
	case errors.Is(err, errTooLong) || err == nil && sum.left > 0:
		v.add("sha256", CheckFailed, "%s does not have the %d bytes that the manifest says", found.rows.Name, m.File.Bytes)
		return
	case hex.EncodeToString(sum.hash.Sum(nil)) != m.File.SHA256:
		v.add("sha256", CheckFailed, "%s is not the file that the manifest is about: it was changed", found.rows.Name)
		return
	}
	v.add("sha256", CheckOK, "%s, %d bytes", m.File.SHA256, m.File.Bytes)
	if err != nil {
		v.add("rows", CheckFailed, "%v", err)
		return
	}
	if counted.tally.totals.Rows != m.File.Rows {
		v.add("rows", CheckFailed, "%d, and %d in the manifest", counted.tally.totals.Rows, m.File.Rows)
	} else {
		v.add("rows", CheckOK, "%d, of which %d in the population", m.File.Rows, m.Totals.Population)
	}
	if !sameJSON(counted.tally.totals, m.Totals) || !sameJSON(counted.tally.exceptions, m.Exceptions) {
		v.add("totals", CheckFailed, "the rows add up to something else than the manifest says")
	} else {
		v.add("totals", CheckOK, "as counted again from the rows")
	}
	switch {
	case counted.proven != m.File.Proven:
		v.add("proofs", CheckFailed, "%d, and %d in the manifest", counted.proven, m.File.Proven)
	case counted.proven == 0:
		v.add("proofs", CheckNone, "no row has one")
	default:
		v.add("proofs", CheckOK, "%s of %d rows are in the ledger's log", strconv.FormatUint(counted.proven, 10), m.File.Rows)
	}
}

// readRows reads all of the file through sum, also where counting ends early: the check of the hash comes first.
func readRows(f *zip.File, sum *summed, count func(io.Reader) (*recount, error)) (*recount, error) {
	in, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name, err)
	}
	defer func() { _ = in.Close() }() // it was only read
	sum.r, sum.hash = in, sha256.New()
	counted, err := count(sum)
	_, rest := io.Copy(io.Discard, sum)
	if rest != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name, rest)
	}
	return counted, err
}

// sameJSON compares what two values are in a manifest.
func sameJSON(a, b any) bool {
	one, err1 := decoded(a)
	two, err2 := decoded(b)
	return err1 == nil && err2 == nil && reflect.DeepEqual(one, two)
}

func decoded(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var plain any
	err = json.Unmarshal(raw, &plain)
	return plain, err
}
