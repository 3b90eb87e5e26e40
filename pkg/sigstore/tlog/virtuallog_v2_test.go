package tlog_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekortilespb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/rekor-tiles/v2/pkg/types/hashedrekord"
	"github.com/sigstore/sigstore/pkg/signature"
	sumdb "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

func (v *virtualLog) submitV2(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.posts++
	v.mu.Unlock()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var request rekortilespb.CreateEntryRequest
	if err := protojson.Unmarshal(raw, &request); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	registry, err := signature.NewAlgorithmRegistryConfig([]protocommon.PublicKeyDetails{
		protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256,
	})
	if err != nil {
		v.tb.Errorf("allowing algorithms: %v", err)
	}
	entry, err := hashedrekord.ToLogEntry(request.GetHashedRekordRequestV002(), registry)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	serialized, err := protojson.Marshal(entry)
	if err != nil {
		v.tb.Errorf("writing an entry: %v", err)
	}
	leaf, err := jsoncanonicalizer.Transform(serialized)
	if err != nil {
		v.tb.Errorf("writing an entry: %v", err)
	}
	index, known := v.add(leaf)
	if known {
		w.Header().Set("X-Log-Index", strconv.FormatInt(index, 10))
		writeJSON(w, http.StatusConflict, map[string]any{
			"code": 6, "message": fmt.Sprintf("an equivalent entry already exists in the transparency log with index %d", index), "details": []any{},
		})
		return
	}
	v.answerV2(w, index)
}

func (v *virtualLog) answerV2(w http.ResponseWriter, index int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	size := int64(len(v.leaves))
	cp, root := v.checkpoint(size)
	path, err := sumdb.ProveRecord(size, index, v)
	if err != nil {
		v.tb.Errorf("proving an entry: %v", err)
	}
	_, id, err := rekornote.KeyHash(origin, v.key.Public())
	if err != nil {
		v.tb.Errorf("naming the log: %v", err)
	}
	a := &protorekor.TransparencyLogEntry{
		LogIndex: index, LogId: &protocommon.LogId{KeyId: id}, CanonicalizedBody: v.leaves[index],
		KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: index, TreeSize: size, RootHash: root[:], Checkpoint: &protorekor.Checkpoint{Envelope: cp},
		},
	}
	for _, one := range path {
		a.InclusionProof.Hashes = append(a.InclusionProof.Hashes, one[:])
	}
	if v.lieV2 != nil {
		v.lieV2(a)
	}
	raw, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(a)
	if err != nil {
		v.tb.Errorf("writing an answer: %v", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(raw)
}

// serveTiles answers what the log publishes: as C2SP's tlog-tiles says, read from the tree and not from what the client asks.
func (v *virtualLog) serveTiles(w http.ResponseWriter, path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	size := int64(len(v.leaves))
	if v.published >= 0 {
		size = v.published
	}
	if path == "checkpoint" {
		cp, _ := v.checkpoint(size)
		_, _ = io.WriteString(w, cp)
		return
	}
	if bundle, ok := strings.CutPrefix(path, "tile/entries/"); ok {
		tile, err := sumdb.ParseTilePath("tile/8/0/" + bundle)
		if err != nil || tile.N*256+int64(tile.W) > size {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		for _, leaf := range v.leaves[tile.N*256 : tile.N*256+int64(tile.W)] {
			_, _ = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(leaf))), leaf...)) //nolint:gosec // they are short
		}
		return
	}
	tile, err := sumdb.ParseTilePath("tile/8/" + strings.TrimPrefix(path, "tile/"))
	if err == nil && (tile.N*256+int64(tile.W))<<(8*tile.L) <= size {
		if raw, err := sumdb.ReadTileData(tile, v); err == nil {
			_, _ = w.Write(raw) //nolint:gosec // hashes
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}
