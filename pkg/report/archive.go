package report

import (
	"archive/zip"
	"bufio"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"time"
)

const (
	// chunk is how many bytes of rows are compressed at a time, and chunks how many are on their way.
	chunk  = 128 << 10
	chunks = 4
	// outBuffer is what is kept before the first byte goes to the reader: an error until then can still be told in words.
	outBuffer = 64 << 10
)

// archive writes an export. What writes rows and what compresses and sends them are two goroutines, so that reading the database
// goes on while the reader takes what was read. Its methods belong to the one that makes it.
type archive struct {
	zip *zip.Writer
	out *bufio.Writer
	now time.Time

	full, free chan []byte
	done       chan struct{} // closed when the second goroutine has ended; what is below is its own until then
	err        error
	bytes      uint64
	sum        hash.Hash
}

// newArchive begins an archive with the file of rows. stop is called when it cannot be written any more.
func newArchive(w io.Writer, name string, now time.Time, stop context.CancelCauseFunc) (*archive, error) {
	out := bufio.NewWriterSize(w, outBuffer)
	a := &archive{
		zip: zip.NewWriter(out), out: out, now: now, full: make(chan []byte, chunks), free: make(chan []byte, chunks),
		done: make(chan struct{}), sum: sha256.New(),
	}
	a.zip.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	rows, err := a.create(name)
	if err != nil {
		return nil, err
	}
	for range chunks {
		a.free <- make([]byte, 0, chunk+chunk/2)
	}
	go a.send(rows, stop)
	return a, nil
}

func (a *archive) create(name string) (io.Writer, error) {
	w, err := a.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: a.now})
	if err != nil {
		return nil, fmt.Errorf("writing the archive: %w", err)
	}
	return w, nil
}

// send writes what comes until there is no more, or until it cannot.
func (a *archive) send(rows io.Writer, stop context.CancelCauseFunc) {
	defer close(a.done)
	for b := range a.full {
		a.sum.Write(b)
		a.bytes += uint64(len(b))
		if _, err := rows.Write(b); err != nil {
			a.err = fmt.Errorf("sending the export: %w", err)
			stop(a.err)
			return
		}
		a.free <- b[:0] // never waits: there are as many places as buffers
	}
}

// buffer gives an empty buffer.
func (a *archive) buffer() ([]byte, error) {
	select {
	case b := <-a.free:
		return b, nil
	case <-a.done:
		return nil, a.err
	}
}

// write hands a buffer on.
func (a *archive) write(b []byte) error {
	select {
	case a.full <- b:
		return nil
	case <-a.done:
		return a.err
	}
}

// finish waits until the rows are written. It is called once, and before what is below.
func (a *archive) finish() error {
	close(a.full)
	<-a.done
	return a.err
}

// file gives the size and the SHA-256 of the rows.
func (a *archive) file() (size uint64, sum string) {
	return a.bytes, hex.EncodeToString(a.sum.Sum(nil))
}

// add adds a file.
func (a *archive) add(name string, content []byte) error {
	w, err := a.create(name)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}

// close ends the archive: from now on it is an export.
func (a *archive) close() error {
	if err := a.zip.Close(); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	if err := a.out.Flush(); err != nil {
		return fmt.Errorf("sending the export: %w", err)
	}
	return nil
}
