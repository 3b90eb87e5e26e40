package report

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// maxDirectory bounds what is read to find out what is in an archive.
	maxDirectory = 1 << 20
	maxManifest  = 16 << 20
	maxNote      = 64 << 10
)

var (
	// errCut is for archives without an end.
	errCut = errors.New("this is no whole export: it was cut off before its end, or it is another file")
	// errCancelled is for archives that end too early.
	errCancelled = errors.New("there is no manifest: the export ended before its time")
)

// files are those of an export, opened.
type files struct {
	rows       *zip.File
	format     Format
	manifest   []byte
	signature  []byte // nil if there is none
	checkpoint []byte // nil if there is none
}

// openFiles reads what is in an archive, except for the rows. Nothing may be in it that another program could take for its
// content: no other files, no gaps, nothing in front or behind.
func openFiles(r io.ReaderAt, size int64) (*files, error) {
	capped := &cappedReader{ReaderAt: r, left: maxDirectory}
	archive, err := zip.NewReader(capped, size)
	switch {
	case capped.left < 0:
		return nil, errors.New("this is no export: its directory is too large")
	case errors.Is(err, zip.ErrFormat), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, errCut
	case err != nil:
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	capped.left = -1
	names := make([]string, 0, len(archive.File))
	for _, f := range archive.File {
		names = append(names, f.Name)
	}
	found := &files{}
	for _, format := range Formats() {
		if len(names) > 0 && names[0] == format.file() {
			found.format, found.rows = format, archive.File[0]
		}
	}
	switch {
	case found.rows == nil:
		return nil, fmt.Errorf("want %s or %s as the first file: this is no export", CSV.file(), JSONL.file())
	case len(names) == 1:
		return nil, errCancelled
	case !slices.Equal(names[1:], slices.DeleteFunc([]string{manifestName, signatureName, checkpointName}, func(name string) bool {
		return name != manifestName && !slices.Contains(names, name)
	})):
		return nil, fmt.Errorf("want %s, and then %s and %s where they are there, and no other files: found %.300q", manifestName, signatureName, checkpointName, names)
	case archive.Comment != "":
		return nil, errors.New("the archive has a comment: no export has")
	}
	if err := checkLayout(r, size, archive.File); err != nil {
		return nil, err
	}
	for _, f := range archive.File[1:] {
		content, err := readSmall(f)
		if err != nil {
			return nil, err
		}
		switch f.Name {
		case manifestName:
			found.manifest = content
		case signatureName:
			found.signature = content
		default:
			found.checkpoint = content
		}
	}
	return found, nil
}

func readSmall(f *zip.File) ([]byte, error) {
	limit := int64(maxNote)
	if f.Name == manifestName {
		limit = maxManifest
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name, err)
	}
	content, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is larger than any that an export has", f.Name)
	}
	return content, nil
}

// Sizes and signatures of the records of an archive.
//
// SPEC: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local file header), 4.3.9 (data descriptor), 4.3.12 (central directory).
const (
	localSize      = 30
	localMark      = 0x04034b50
	descriptorMark = 0x08074b50
	directoryMark  = 0x02014b50
	descriptor     = 16
	descriptor64   = 24
	bigFile        = 1<<32 - 1
)

// checkLayout walks from file to file: each must begin where the one before ends, under the name that the directory has, and the
// directory must come right behind. Programs that read the files in their order see the same then as those that read the directory.
func checkLayout(r io.ReaderAt, size int64, all []*zip.File) error {
	at := int64(0)
	for _, f := range all {
		start, err := f.DataOffset()
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.Name, err)
		}
		head := make([]byte, localSize+len(f.Name))
		if err := readAt(r, head, at); err != nil {
			return err
		}
		length := int64(localSize) + int64(binary.LittleEndian.Uint16(head[26:])) + int64(binary.LittleEndian.Uint16(head[28:]))
		if binary.LittleEndian.Uint32(head) != localMark || string(head[localSize:]) != f.Name || at+length != start {
			return fmt.Errorf("the archive holds something that is not in its directory, in front of %s", f.Name)
		}
		if f.Method != zip.Deflate || f.Flags&8 == 0 || f.CompressedSize64 > uint64(size) { //nolint:gosec // a size is not negative
			return fmt.Errorf("%s is not written as in an export", f.Name)
		}
		at = start + int64(f.CompressedSize64) //nolint:gosec // at most size
		mark := make([]byte, 4)
		if err := readAt(r, mark, at); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(mark) != descriptorMark {
			return fmt.Errorf("%s does not end where the directory says", f.Name)
		}
		at += descriptor
		if f.CompressedSize64 > bigFile || f.UncompressedSize64 > bigFile {
			at += descriptor64 - descriptor
		}
	}
	mark := make([]byte, 4)
	if err := readAt(r, mark, at); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(mark) != directoryMark {
		return errors.New("the archive holds something that is not in its directory, behind the files")
	}
	return nil
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("reading the archive: %w", err)
	}
	return nil
}

// cappedReader reads so many bytes, until its limit is lifted by setting left to -1 between two reads.
type cappedReader struct {
	io.ReaderAt

	left  int64
	ended bool
}

// ReadAt implements io.ReaderAt.
func (c *cappedReader) ReadAt(b []byte, at int64) (int, error) {
	if c.left < 0 && !c.ended {
		return c.ReaderAt.ReadAt(b, at)
	}
	if c.left -= int64(len(b)); c.left < 0 {
		c.ended = true
		return 0, errors.New("too much to read")
	}
	return c.ReaderAt.ReadAt(b, at)
}
