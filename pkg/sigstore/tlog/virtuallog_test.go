package tlog_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	"github.com/go-openapi/runtime"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
	sumdb "golang.org/x/mod/sumdb/tlog"

	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	origin = "log.example.com"
	// treeID is the number of the tree of Rekor v1, and shard how many entries earlier shards have.
	treeID = 4815162342
	shard  = 1000
)

// virtualLog is a log in memory. It verifies and writes entries with the real logs' own libraries, and knows nothing of the
// client. It is safe for concurrent use.
type virtualLog struct {
	tb     testing.TB
	kind   policy.LogType
	key    crypto.Signer
	notes  note.Signer
	server *httptest.Server
	// instead answers in place of the log if it says so; set it before the first request.
	instead func(w http.ResponseWriter, r *http.Request) bool
	// lieV1 and lieV2 change an answer; set before the first request.
	lieV1 func(*answerV1)
	lieV2 func(*protorekor.TransparencyLogEntry)
	// published is the size of the tree that the checkpoint is of; -1 for all. Guarded by mu.
	published int64

	mu      sync.Mutex
	leaves  [][]byte         // guarded by mu
	times   []int64          // guarded by mu
	stored  []sumdb.Hash     // guarded by mu
	indexes map[string]int64 // of leaves; guarded by mu
	posts   int              // guarded by mu
}

// newVirtualLog starts a log that has so many entries of somebody else.
func newVirtualLog(tb testing.TB, kind policy.LogType, others int) *virtualLog {
	tb.Helper()
	key := newSigner(tb, "P-256")
	v := &virtualLog{tb: tb, kind: kind, key: key, notes: noteSigner(tb, key), indexes: make(map[string]int64), published: -1}
	for i := range others {
		v.add(fmt.Appendf(nil, `{"somebody":"else","number":%d}`, i))
	}
	v.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v.instead != nil && v.instead(w, r) {
			return
		}
		v.serve(w, r)
	}))
	tb.Cleanup(v.server.Close)
	return v
}

// ReadHashes implements sumdb.HashReader.
func (v *virtualLog) ReadHashes(indexes []int64) ([]sumdb.Hash, error) {
	all := make([]sumdb.Hash, len(indexes))
	for i, at := range indexes {
		all[i] = v.stored[at]
	}
	return all, nil
}

// add gives the index of a leaf and says whether it was there before.
func (v *virtualLog) add(leaf []byte) (index int64, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at, ok := v.indexes[string(leaf)]; ok {
		return at, true
	}
	index = int64(len(v.leaves))
	hashes, err := sumdb.StoredHashes(index, leaf, v)
	if err != nil {
		v.tb.Errorf("hashing a leaf: %v", err)
	}
	v.stored = append(v.stored, hashes...)
	v.leaves, v.times = append(v.leaves, leaf), append(v.times, time.Now().Unix())
	v.indexes[string(leaf)] = index
	return index, false
}

func (v *virtualLog) postCount() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.posts
}

func (v *virtualLog) publish(size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.published = size
}

// checkpoint signs the tree of a size. It is called with mu held.
func (v *virtualLog) checkpoint(size int64) (string, sumdb.Hash) {
	root := sumdb.Hash(sha256.Sum256(nil))
	if size > 0 {
		var err error
		if root, err = sumdb.TreeHash(size, v); err != nil {
			v.tb.Errorf("hashing the tree: %v", err)
		}
	}
	first := origin
	if v.kind == policy.RekorV1 {
		first = fmt.Sprintf("%s - %d", origin, treeID)
	}
	return signNote(v.tb, v.notes, fmt.Sprintf("%s\n%d\n%s\n", first, size, base64.StdEncoding.EncodeToString(root[:]))), root
}

// noteSigner signs checkpoints by the log's name.
func noteSigner(tb testing.TB, key crypto.Signer) note.Signer {
	tb.Helper()
	signer, err := signature.LoadDefaultSigner(key)
	if err != nil {
		tb.Fatalf("loading the log's key: %v", err)
	}
	notes, err := rekornote.NewNoteSigner(tb.Context(), origin, signer)
	if err != nil {
		tb.Fatalf("loading the log's key: %v", err)
	}
	return notes
}

func signNote(tb testing.TB, by note.Signer, text string) string {
	tb.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, by)
	if err != nil {
		tb.Errorf("signing a checkpoint: %v", err)
	}
	return string(signed)
}

func (v *virtualLog) serve(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case r.Method == http.MethodPost && path == "/api/v1/log/entries" && v.kind == policy.RekorV1:
		v.submitV1(w, r)
	case r.Method == http.MethodPost && path == "/api/v2/log/entries" && v.kind == policy.RekorV2:
		v.submitV2(w, r)
	case strings.HasPrefix(path, "/api/v1/log/entries/") && v.kind == policy.RekorV1:
		v.entryV1(w, strings.TrimPrefix(path, "/api/v1/log/entries/"))
	case path == "/api/v1/log" && v.kind == policy.RekorV1:
		v.mu.Lock()
		size := int64(len(v.leaves))
		cp, root := v.checkpoint(size)
		v.mu.Unlock()
		writeJSON(w, http.StatusOK, map[string]any{
			"rootHash": hex.EncodeToString(root[:]), "signedTreeHead": cp, "treeID": strconv.Itoa(treeID), "treeSize": size,
		})
	case path == "/healthz" && v.kind == policy.RekorV2:
		writeJSON(w, http.StatusOK, map[string]any{"status": "SERVING"})
	case strings.HasPrefix(path, "/api/v2/") && v.kind == policy.RekorV2:
		v.serveTiles(w, strings.TrimPrefix(path, "/api/v2/"))
	default:
		writeError(w, http.StatusNotFound, "path "+path+" was not found")
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]any{"code": status, "message": message})
}

// answerV1 is what Rekor v1 answers.
type answerV1 struct {
	Body           string       `json:"body"`
	IntegratedTime int64        `json:"integratedTime"`
	LogID          string       `json:"logID"`
	LogIndex       int64        `json:"logIndex"`
	Verification   verification `json:"verification"`
}

type verification struct {
	InclusionProof *proofV1 `json:"inclusionProof,omitempty"`
	SET            []byte   `json:"signedEntryTimestamp"`
}

type proofV1 struct {
	Checkpoint string   `json:"checkpoint"`
	Hashes     []string `json:"hashes"`
	LogIndex   int64    `json:"logIndex"`
	RootHash   string   `json:"rootHash"`
	TreeSize   int64    `json:"treeSize"`
}

func (v *virtualLog) submitV1(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.posts++
	v.mu.Unlock()
	proposed, err := models.UnmarshalProposedEntry(r.Body, runtime.JSONConsumer())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	entry, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	leaf, err := types.CanonicalizeEntry(r.Context(), entry)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	index, known := v.add(leaf)
	id := entryID(leaf)
	if known {
		w.Header().Set("Location", "/api/v1/log/entries/"+id)
		writeError(w, http.StatusConflict, "an equivalent entry already exists in the transparency log with UUID "+id)
		return
	}
	writeJSON(w, http.StatusCreated, map[string]answerV1{id: v.answerV1(index)})
}

func entryID(leaf []byte) string {
	sum := sumdb.RecordHash(leaf)
	return fmt.Sprintf("%016x%s", treeID, hex.EncodeToString(sum[:]))
}

func (v *virtualLog) entryV1(w http.ResponseWriter, id string) {
	v.mu.Lock()
	index := int64(-1)
	for i, leaf := range v.leaves {
		if entryID(leaf) == id && (v.published < 0 || int64(i) < v.published) {
			index = int64(i)
		}
	}
	v.mu.Unlock()
	if index < 0 {
		writeError(w, http.StatusNotFound, "")
		return
	}
	writeJSON(w, http.StatusOK, map[string]answerV1{id: v.answerV1(index)})
}

func (v *virtualLog) answerV1(index int64) answerV1 {
	v.mu.Lock()
	defer v.mu.Unlock()
	size := int64(len(v.leaves))
	cp, root := v.checkpoint(size)
	path, err := sumdb.ProveRecord(size, index, v)
	if err != nil {
		v.tb.Errorf("proving an entry: %v", err)
	}
	id := sha256.Sum256(spki(v.tb, v.key.Public()))
	a := answerV1{
		Body: base64.StdEncoding.EncodeToString(v.leaves[index]), IntegratedTime: v.times[index],
		LogID: hex.EncodeToString(id[:]), LogIndex: index + shard,
		Verification: verification{InclusionProof: &proofV1{
			Checkpoint: cp, LogIndex: index, TreeSize: size, RootHash: hex.EncodeToString(root[:]), Hashes: []string{},
		}},
	}
	for _, one := range path {
		a.Verification.InclusionProof.Hashes = append(a.Verification.InclusionProof.Hashes, hex.EncodeToString(one[:]))
	}
	a.Verification.SET = signSET(v.tb, v.key, a)
	if v.lieV1 != nil {
		v.lieV1(&a)
	}
	return a
}

// signSET promises what an answer says.
func signSET(tb testing.TB, key crypto.Signer, a answerV1) []byte {
	tb.Helper()
	raw, err := json.Marshal(map[string]any{
		"body": a.Body, "integratedTime": a.IntegratedTime, "logID": a.LogID, "logIndex": a.LogIndex,
	})
	if err != nil {
		tb.Fatalf("writing a promise: %v", err)
	}
	if raw, err = jsoncanonicalizer.Transform(raw); err != nil {
		tb.Fatalf("writing a promise: %v", err)
	}
	sum := sha256.Sum256(raw)
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		tb.Fatal("the log's key is not ECDSA")
	}
	set, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
	if err != nil {
		tb.Fatalf("signing a promise: %v", err)
	}
	return set
}
