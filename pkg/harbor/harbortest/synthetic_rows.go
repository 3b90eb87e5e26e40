package harbortest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// syntheticRoom is how many rows can come later, by Touch.
const syntheticRoom = 1 << 24

// idsPerRow is how many artifacts a row can stand for: itself and two signatures.
const idsPerRow = 3

// syntheticSet is all synthetic content, guarded by Harbor.mu. Each row has a number; all else follows from it and the
// seed.
type syntheticSet struct {
	seed                                 [16]byte
	count                                uint32 // Numbers given so far.
	projects                             []*syntheticProject
	extra                                []place                  // Of the numbers from first on, which Touch added.
	first                                uint32                   // The first number that Touch gave.
	unsigned                             map[digest.Digest]uint32 // Numbers by digest, of rows without a signature.
	rand                                 *rand.Rand
	firstArtifact, firstAccessory, tagID int64
	limit                                uint32 // Of numbers.
}

// place is where a row is.
type place struct {
	project *syntheticProject
	row     int32
}

type syntheticProject struct {
	set     *syntheticSet
	project *project
	base    uint32 // The number of its first row; those that Synthesize made follow without a gap.
	repos   []*repository
	rows    []syntheticRow // By rising push time.
	all     []int32        // Their indexes: 0, 1, 2, ...
	byRepo  [][]int32      // Rows of each repository, by rising push time.
}

// syntheticRepo ties a repository to its rows. nil is a repository without any.
type syntheticRepo struct {
	project *syntheticProject
	index   uint32
}

// syntheticRow is a digest. The children of an index are the rows before it.
type syntheticRow struct {
	pushed     int64 // Microseconds since 1970.
	number     uint32
	repo       uint32
	children   uint8
	parent     uint8 // How many rows further the index of a child is; 0 is no child.
	signatures uint8 // 0 has a manifest, whose digest it has.
	gone       bool  // Deleted, or an ordinary artifact now.
}

func newSyntheticSet(s *state, cfg SyntheticConfig, random *rand.Rand) *syntheticSet {
	set := &syntheticSet{
		rand: random, unsigned: make(map[digest.Digest]uint32),
		firstArtifact: s.seq["artifact"] + 1, firstAccessory: s.seq["accessory"] + 1, tagID: s.seq["tag"] + 1,
	}
	binary.BigEndian.PutUint64(set.seed[:], cfg.Seed)
	// Ids follow from numbers: those of all rows to come are taken at once.
	set.limit = uint32(cfg.Digests) + syntheticRoom //nolint:gosec // complete has checked it
	s.seq["artifact"] = set.artifactID(set.limit, 0) - 1
	s.seq["accessory"] = set.accessoryID(set.limit, 0) - 1
	s.seq["tag"] = set.tagID + int64(set.limit) - 1
	return set
}

func (row *syntheticRow) time() time.Time { return time.UnixMicro(row.pushed).UTC() }

// tag is the name of the one tag that images and indexes have.
func (row *syntheticRow) tag() string { return "v1." + strconv.FormatUint(uint64(row.number), 10) }

// push appends a row and gives it its number.
func (sp *syntheticProject) push(row syntheticRow) int32 {
	i := int32(len(sp.rows)) //nolint:gosec // a project has no 2^31 rows
	row.number = sp.set.count
	sp.set.count++
	sp.rows = append(sp.rows, row)
	sp.all = append(sp.all, i)
	sp.byRepo[row.repo] = append(sp.byRepo[row.repo], i)
	return i
}

// find tells where the row with a number is.
func (set *syntheticSet) find(number uint32) (place, bool) {
	if set.first != 0 && number >= set.first {
		if at := int(number - set.first); at < len(set.extra) {
			return set.extra[at], true
		}
		return place{}, false
	}
	at, exact := slices.BinarySearchFunc(set.projects, number, func(sp *syntheticProject, number uint32) int {
		return int(int64(sp.base) - int64(number))
	})
	if !exact {
		at--
	}
	// Projects without rows share their base with the next one.
	for ; at >= 0 && at < len(set.projects); at++ {
		sp := set.projects[at]
		if sp.base > number {
			break
		}
		if i := int(number - sp.base); i < len(sp.rows) && sp.rows[i].number == number {
			return place{sp, int32(i)}, true //nolint:gosec // the index of a slice
		}
	}
	return place{}, false
}

func (set *syntheticSet) hash(domain string, number uint32, more ...byte) [sha256.Size]byte {
	buf := make([]byte, 0, 64)
	buf = append(append(buf, set.seed[:]...), domain...)
	return sha256.Sum256(append(binary.BigEndian.AppendUint32(buf, number), more...))
}

// invented is a digest without content that hides what it stands for: slot 0 is the row itself, 1 and 2 are its
// signatures.
func (set *syntheticSet) invented(number uint32, slot uint8) digest.Digest {
	sum := set.hash("digest", number, slot)
	mask := set.hash("mask", 0, sum[:24]...)
	binary.BigEndian.PutUint64(sum[24:], binary.BigEndian.Uint64(mask[:])^(uint64(number)<<8|uint64(slot)))
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
}

// reveal is the inverse of invented.
func (set *syntheticSet) reveal(d digest.Digest) (number uint32, slot uint8, ok bool) {
	if n, ok := set.unsigned[d]; ok {
		return n, 0, true
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(string(d), "sha256:"))
	if err != nil || len(sum) != sha256.Size {
		return 0, 0, false
	}
	mask := set.hash("mask", 0, sum[:24]...)
	hidden := binary.BigEndian.Uint64(mask[:]) ^ binary.BigEndian.Uint64(sum[24:])
	if hidden>>40 != 0 {
		return 0, 0, false
	}
	number, slot = uint32(hidden>>8), uint8(hidden)
	return number, slot, set.invented(number, slot) == d
}

// digest is that of a row's manifest where it has one.
func (sp *syntheticProject) digest(i int32) digest.Digest {
	if row := &sp.rows[i]; row.signatures > 0 {
		return sp.set.invented(row.number, 0)
	}
	return digest.FromBytes(sp.manifest(i))
}

func (set *syntheticSet) blob(kind string, number uint32) string {
	sum := set.hash(kind, number)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// sizes of the blobs of an image, in bytes, without and with a share that its number decides.
const (
	syntheticConfigSize = 1500
	syntheticLayerSize  = 1 << 20
)

// manifest is the content of a row. That of a signed one hashes to some other digest than its own.
func (sp *syntheticProject) manifest(i int32) []byte {
	row := &sp.rows[i]
	if row.children == 0 {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},`+
			`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`,
			typeOCIManifest, typeOCIConfig, sp.set.blob("config", row.number), syntheticConfigSize,
			sp.set.blob("layer", row.number), sp.layerSize(row))
	}
	var children []string
	for n := range int32(row.children) {
		at := i - int32(row.children) + n
		p := syntheticPlatform(int(n))
		children = append(children, fmt.Sprintf(
			`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":%q,"os":%q}}`,
			typeOCIManifest, sp.digest(at), len(sp.manifest(at)), p.Architecture, p.OS))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, typeOCIIndex, strings.Join(children, ","))
}

func (sp *syntheticProject) layerSize(row *syntheticRow) int64 {
	const spread = 977
	return syntheticLayerSize + int64(row.number%spread)<<10
}

func (sp *syntheticProject) size(i int32) int64 {
	row := &sp.rows[i]
	if row.children == 0 {
		const manifestSize = 520
		return manifestSize + syntheticConfigSize + sp.layerSize(row)
	}
	var total int64
	for n := range int32(row.children) {
		total += sp.size(i - 1 - n)
	}
	return total
}

func syntheticPlatform(n int) platform {
	return []platform{
		{Architecture: "amd64", OS: "linux"},
		{Architecture: "arm64", OS: "linux"},
		{Architecture: "arm", OS: "linux"},
		{Architecture: "s390x", OS: "linux"},
		{Architecture: "ppc64le", OS: "linux"},
		{Architecture: "riscv64", OS: "linux"},
		{Architecture: "386", OS: "linux"},
		{Architecture: "mips64le", OS: "linux"},
	}[n%maxSyntheticChildren]
}

func (set *syntheticSet) artifactID(number uint32, slot uint8) int64 {
	return set.firstArtifact + int64(number)*idsPerRow + int64(slot)
}

func (set *syntheticSet) accessoryID(number uint32, slot uint8) int64 {
	return set.firstAccessory + int64(number)*(idsPerRow-1) + int64(slot)
}
