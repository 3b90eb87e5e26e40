package notary

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// maxLine bounds a line of a file of checkpoints.
	maxLine = 64 << 10
	// SignatureHeader authenticates what is posted: the HMAC-SHA256 of the body with the secret, in hexadecimal, behind "sha256=".
	SignatureHeader = "X-Harborseal-Signature"
	// bodyLimit bounds what is read of an answer.
	bodyLimit = 4 << 10
)

// Place is where checkpoints are kept beside the ledger. Send makes one attempt; sending a checkpoint again is harmless.
type Place interface {
	Send(ctx context.Context, r artifact.CheckpointRecord) error
}

// File is a second place: a file of checkpoint records, one JSON document on each line, which several receivers of one machine may
// share. It is safe for concurrent use.
type File struct {
	path string
	mu   sync.Mutex
}

// NewFile names the file, which is made with the first checkpoint.
func NewFile(path string) *File { return &File{path: path} }

// Send implements Place. A crash in between leaves part of a line, which readers pass over.
func (f *File) Send(_ context.Context, r artifact.CheckpointRecord) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	// A line break in front ends what a full disk or a crash may have left. Readers pass over empty lines.
	_, err = file.Write(append(append([]byte{'\n'}, line...), '\n'))
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	return nil
}

// ReadFile reads a file of checkpoints, those of which keys accept the signature: other lines are counted, because whoever can only
// append to the file must not be able to hide those before.
func ReadFile(path string, keys *Keys) (known []Known, skipped int, err error) {
	file, err := os.Open(path) //nolint:gosec // the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, fmt.Errorf("reading checkpoints: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	known, skipped, err = ReadCheckpoints(file, path, keys)
	return known, skipped, err
}

// ReadCheckpoints reads what [File] wrote.
func ReadCheckpoints(r io.Reader, source string, keys *Keys) (known []Known, skipped int, err error) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if text := bytes.TrimSpace(line); len(text) > 0 {
			var record artifact.CheckpointRecord
			bad := errors.Is(err, bufio.ErrBufferFull) || json.Unmarshal(text, &record) != nil
			if !bad {
				_, _, recordErr := openRecord(keys, record)
				bad = recordErr != nil
			}
			if bad {
				skipped++
			} else {
				known = append(known, Known{record, source})
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return known, skipped, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return known, skipped, fmt.Errorf("reading checkpoints: %w", err)
		}
	}
}

// Webhook is a second place: each checkpoint record is posted as JSON. It is safe for concurrent use.
type Webhook struct {
	url    string
	secret func() ([]byte, error)
	client *http.Client
}

// NewWebhook needs all of it. secret gives the present secret; its errors must hold nothing of it. The client bounds the time of a
// request and decides where it may go; redirects are not followed.
func NewWebhook(url string, secret func() ([]byte, error), client *http.Client) (*Webhook, error) {
	if url == "" || secret == nil || client == nil {
		return nil, errors.New("making the webhook of checkpoints: a URL, a secret and a client are required")
	}
	// An answer that names another place is none of the one that was asked: followed, it could be a page that says 200 to everything.
	own := *client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Webhook{url, secret, &own}, nil
}

// Send implements Place.
func (w *Webhook) Send(ctx context.Context, r artifact.CheckpointRecord) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("posting a checkpoint: %w", err)
	}
	secret, err := w.secret()
	if err != nil {
		return fmt.Errorf("posting a checkpoint: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("posting a checkpoint: the URL cannot be used")
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	answer, err := w.client.Do(request)
	if err != nil {
		return fmt.Errorf("posting a checkpoint: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // what it holds is of no interest
	_, _ = io.CopyN(io.Discard, answer.Body, bodyLimit)
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("posting a checkpoint: answer %d", answer.StatusCode)
	}
	return nil
}
