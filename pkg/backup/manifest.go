package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// Format is the version of the folder's form that this program writes and reads.
	Format = 1
	// manifestName is the file whose presence makes a backup whole.
	manifestName = "manifest.json"
	suffix       = ".snapshot"
	// maxManifest bounds what is read of a manifest.
	maxManifest = 4 << 20
)

// Manifest says what a backup holds.
type Manifest struct {
	Format  int    `json:"format"`
	Harbor  string `json:"harbor"`
	Version string `json:"program_version"`
	// Created and Finished are when the backup began and when everything was copied. What happened before Created is in it.
	Created  time.Time `json:"created"`
	Finished time.Time `json:"finished"`
	// Streams are in the order in which they were copied, which is the one in which they are restored.
	Streams []File `json:"streams"`

	// SHA256 is that of the manifest itself, in hexadecimal.
	SHA256 string `json:"-"`
}

// File is the copy of a stream.
type File struct {
	Stream string `json:"stream"`
	Name   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	Contents
	// Description is the queue's own.
	Description json.RawMessage `json:"description"`
}

// Of gives the copy of a stream; a zero File if there is none.
func (m Manifest) Of(stream string) File {
	for _, f := range m.Streams {
		if f.Stream == stream {
			return f
		}
	}
	return File{}
}

// Bytes is what all copies take.
func (m Manifest) Bytes() int64 {
	var n int64
	for _, f := range m.Streams {
		n += f.Bytes
	}
	return n
}

// write puts the manifest where it makes the backup whole, and gives its digest. A crash before the rename leaves none, and one
// behind it a backup that is whole.
func (m Manifest) write(dir string) (digest string, err error) {
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", err
	}
	content = append(content, '\n')
	path := filepath.Join(dir, manifestName)
	file, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the operator names the folder
	if err != nil {
		return "", err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	// The names of the copies are on the disk before that of the manifest.
	if err := syncDir(dir); err != nil {
		return "", err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return "", err
	}
	return digestOf(content), syncDir(dir)
}

func syncDir(dir string) error {
	file, err := os.Open(dir) //nolint:gosec // the operator names the folder
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// read gives the manifest of a backup that this program can restore for a Harbor.
func read(o Options, streams []string) (Manifest, error) {
	file, err := os.Open(filepath.Join(o.Dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%s has no %s: it is no backup, or one that was interrupted", o.Dir, manifestName)
	}
	if err != nil {
		return Manifest{}, err
	}
	defer file.Close() //nolint:errcheck // it is only read
	content, err := io.ReadAll(io.LimitReader(file, maxManifest+1))
	if err != nil {
		return Manifest{}, err
	}
	if len(content) > maxManifest {
		return Manifest{}, fmt.Errorf("%s is larger than any that this program writes", manifestName)
	}
	return parse(content, o, streams)
}

// parse takes nothing for granted: names become paths.
func parse(content []byte, o Options, streams []string) (Manifest, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(content, &head); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", manifestName, err)
	}
	if head.Format != Format {
		return Manifest{}, fmt.Errorf("the backup has format %d, and this program knows %d: restore with the version that made it, or a newer one", head.Format, Format)
	}
	var m Manifest
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", manifestName, err)
	}
	if m.Harbor != o.Harbor {
		return Manifest{}, fmt.Errorf("the backup is of the Harbor %.40q (harbor.name), and this configuration is of %q", m.Harbor, o.Harbor)
	}
	if len(m.Streams) != len(streams) {
		return Manifest{}, fmt.Errorf("%s names %d streams, and a backup has %d", manifestName, len(m.Streams), len(streams))
	}
	for i, f := range m.Streams {
		if f.Stream != streams[i] || f.Name != streams[i]+suffix || f.Bytes < 0 {
			return Manifest{}, fmt.Errorf("%s: entry %d is not that of stream %s", manifestName, i+1, streams[i])
		}
	}
	m.SHA256 = digestOf(content)
	return m, nil
}

// check reads a copy to its end, compares it with the manifest, and gives what it holds.
func (f File) check(ctx context.Context, by Checker, dir string) (Contents, error) {
	file, err := os.Open(filepath.Join(dir, f.Name)) //nolint:gosec // the name is that of a stream
	if err != nil {
		return Contents{}, err
	}
	defer file.Close() //nolint:errcheck // it is only read
	read := &counted{r: stopping{ctx, file}, hash: sha256.New()}
	found, checkErr := by.Check(f.Stream, f.Description, read)
	// What is behind the end belongs to the digest as well, and a wrong digest explains everything else.
	if _, err := io.Copy(io.Discard, read); err != nil {
		return Contents{}, fmt.Errorf("%s: %w", f.Name, err)
	}
	if read.bytes != f.Bytes || read.sum() != f.SHA256 {
		return Contents{}, fmt.Errorf("%s is damaged: it has %d bytes with the SHA-256 %s instead of %d with %.64s", f.Name, read.bytes, read.sum(), f.Bytes, f.SHA256)
	}
	if checkErr != nil {
		return Contents{}, fmt.Errorf("%s: %w", f.Name, checkErr)
	}
	return found, nil
}

// stopping ends a long reading when its context ends.
type stopping struct {
	ctx context.Context //nolint:containedctx // it lives as long as one reading
	r   io.Reader
}

// Read implements io.Reader.
func (s stopping) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
