package report

import (
	"errors"
	"hash"
	"io"
)

// errTooLong is for a file that has more bytes than its manifest says: a bomb, or a wrong file.
var errTooLong = errors.New("more bytes than the manifest says")

// summed reads at most so many bytes and hashes them.
type summed struct {
	r    io.Reader
	hash hash.Hash
	left uint64
}

// Read implements io.Reader.
func (s *summed) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if uint64(n) > s.left { //nolint:gosec // a count of bytes
		s.left = 0
		return 0, errTooLong
	}
	s.left -= uint64(n) //nolint:gosec // as above
	s.hash.Write(b[:n])
	return n, err
}
