package reconcile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// sum is a digest without its text form.
type sum [sha256.Size]byte

// population is the set of manifests that a sweep has seen. A million take about 50 MB. It is built first and asked then: add
// knows of repetitions only what the listing can produce, which repeats the manifests of its last page.
type population struct {
	repositories map[string]*repository
	total        int
	// recent and older are those that were added last, by which repetitions are recognised.
	recent, older map[artifact.Ref]struct{}
	// blind says that not everything was seen that the listing has.
	blind bool
}

// repository is the digests of one repository.
type repository struct {
	digests []sum
	sorted  bool
}

// recentSize bounds what repetitions are recognised among: many pages.
const recentSize = 2048

func newPopulation() population {
	return population{repositories: map[string]*repository{}, recent: map[artifact.Ref]struct{}{}}
}

// add says whether the manifest was not among the last ones.
func (p *population) add(ref artifact.Ref) bool {
	_, repeated := p.recent[ref]
	if _, before := p.older[ref]; repeated || before {
		return false
	}
	if len(p.recent) >= recentSize {
		p.recent, p.older = make(map[artifact.Ref]struct{}, recentSize), p.recent
	}
	p.recent[ref] = struct{}{}
	if p.blind {
		return true
	}
	digest, ok := parseSum(ref.Digest())
	if !ok {
		return true
	}
	of := p.repositories[ref.Repository()]
	if of == nil {
		of = &repository{}
		p.repositories[strings.Clone(ref.Repository())] = of
	}
	of.digests, of.sorted = append(of.digests, digest), false
	p.total++
	return true
}

// remove takes back the manifest that was added last.
func (p *population) remove(ref artifact.Ref) {
	delete(p.recent, ref)
	if of := p.repositories[ref.Repository()]; of != nil && !p.blind && len(of.digests) > 0 {
		of.digests = of.digests[:len(of.digests)-1]
		p.total--
	}
}

// has says whether the manifest was added.
func (p *population) has(ref artifact.Ref) bool {
	of := p.repositories[ref.Repository()]
	digest, ok := parseSum(ref.Digest())
	if of == nil || !ok {
		return false
	}
	p.sort(of)
	_, found := slices.BinarySearchFunc(of.digests, digest, compareSums)
	return found
}

// sort brings a repository into order and drops repetitions.
func (p *population) sort(of *repository) {
	if of.sorted {
		return
	}
	slices.SortFunc(of.digests, compareSums)
	distinct := slices.Compact(of.digests)
	p.total -= len(of.digests) - len(distinct)
	of.digests, of.sorted = distinct, true
}

// count is how many distinct manifests were added.
func (p *population) count() int {
	for _, of := range p.repositories {
		p.sort(of)
	}
	return p.total
}

// digest is the SHA-256 over the sorted references, each followed by a line feed; empty if not all were seen.
func (p *population) digest() string {
	if p.blind {
		return ""
	}
	h := sha256.New()
	// A reference is the repository, @ and the digest: @ decides between a name and one that begins with it.
	names := slices.SortedFunc(maps.Keys(p.repositories), func(a, b string) int { return strings.Compare(a+"@", b+"@") })
	for _, name := range names {
		of := p.repositories[name]
		p.sort(of)
		for _, digest := range of.digests {
			writeLine(h, name, digest)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeLine(h hash.Hash, repository string, digest sum) {
	h.Write([]byte(repository + "@" + digest.String() + "\n"))
}

// String gives the text form.
func (s sum) String() string { return "sha256:" + hex.EncodeToString(s[:]) }

func compareSums(a, b sum) int { return bytes.Compare(a[:], b[:]) }

// parseSum is always ok for what a reference holds.
func parseSum(digest string) (s sum, ok bool) {
	n, err := hex.Decode(s[:], []byte(strings.TrimPrefix(digest, "sha256:")))
	return s, err == nil && n == len(s)
}
