package harbortest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// syntheticSignatureSize is the size of a synthetic signature with its blobs.
const syntheticSignatureSize = 1200

// artifact renders a row as an artifact that lives until the request is answered.
func (sp *syntheticProject) artifact(i int32) *artifact {
	row := &sp.rows[i]
	r := sp.repos[row.repo]
	a := sp.outline(i)
	a.repo = r
	if row.parent > 0 {
		a.parents = map[*artifact]bool{sp.outline(i + int32(row.parent)): true}
	} else {
		a.tags = []*tag{{id: sp.set.tagID + int64(row.number), name: row.tag(), artifact: a, pushed: a.pushed}}
	}
	for n := range int32(row.children) {
		p := syntheticPlatform(int(n))
		a.children = append(a.children, child{artifact: sp.outline(i - int32(row.children) + n), platform: &p})
	}
	return a
}

// outline is an artifact without those that it belongs to.
func (sp *syntheticProject) outline(i int32) *artifact {
	row := &sp.rows[i]
	a := &artifact{
		id: sp.set.artifactID(row.number, 0), repo: sp.repos[row.repo], digest: sp.digest(i), kind: kindImage,
		manifestType: typeOCIIndex, mediaType: typeOCIIndex, size: sp.size(i), pushed: row.time(),
		synthetic: place{project: sp, row: i},
	}
	if row.children == 0 {
		a.manifestType, a.mediaType, a.artifactType = typeOCIManifest, typeOCIConfig, typeOCIConfig
		a.extra = map[string]any{
			"architecture": "amd64", "author": "", "config": map[string]any{}, "created": "2026-01-01T00:00:00Z", "os": "linux",
		}
	}
	if row.signatures == 0 {
		a.content = sp.manifest(i)
	}
	return a
}

// signature renders one of a row's signatures; slot is 1 or 2.
func (sp *syntheticProject) signature(i int32, slot uint8) *artifact {
	row := &sp.rows[i]
	return &artifact{
		id: sp.set.artifactID(row.number, slot), repo: sp.repos[row.repo], digest: sp.set.invented(row.number, slot),
		kind: kindImage, manifestType: typeOCIManifest, mediaType: typeOCIConfig, artifactType: typeOCIConfig,
		size: syntheticSignatureSize, pushed: row.time(), synthetic: place{project: sp, row: i},
		accessory: &accessory{
			id: sp.set.accessoryID(row.number, slot-1), kind: accessoryCosign, subject: sp.digest(i), created: row.time(),
		},
	}
}

// isSynthetic tells whether an artifact is derived from a row.
func (a *artifact) isSynthetic() bool { return a.synthetic.project != nil }

// length is that of the manifest.
func (a *artifact) length() int {
	switch {
	case a.content != nil || !a.isSynthetic():
		return len(a.content)
	case a.accessory != nil:
		return syntheticSignatureSize
	default:
		return len(a.synthetic.project.manifest(a.synthetic.row))
	}
}

// row finds the row, and the slot of a digest of this repository.
func (r *syntheticRepo) row(d digest.Digest) (at place, slot uint8, ok bool) {
	if r == nil {
		return place{}, 0, false
	}
	number, slot, ok := r.project.set.reveal(d)
	if !ok {
		return place{}, 0, false
	}
	at, ok = r.project.set.find(number)
	if !ok || at.project != r.project {
		return place{}, 0, false
	}
	row := &at.project.rows[at.row]
	return at, slot, row.repo == r.index && !row.gone && slot <= row.signatures
}

// resolve finds a synthetic artifact by tag or digest.
func (r *syntheticRepo) resolve(reference string) *artifact {
	if r == nil {
		return nil
	}
	if strings.Contains(reference, ":") {
		at, slot, ok := r.row(digest.Digest(reference))
		switch {
		case !ok:
			return nil
		case slot > 0:
			return at.project.signature(at.row, slot)
		default:
			return at.project.artifact(at.row)
		}
	}
	if encoded, ok := strings.CutSuffix(reference, ".sig"); ok {
		at, slot, ok := r.row(digest.Digest(strings.Replace(encoded, "-", ":", 1)))
		if !ok || slot > 0 || at.project.rows[at.row].signatures == 0 {
			return nil
		}
		return at.project.signature(at.row, at.project.rows[at.row].signatures)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(reference, "v1."), 10, 32)
	if err != nil || !strings.HasPrefix(reference, "v1.") {
		return nil
	}
	at, ok := r.project.set.find(uint32(n))
	if !ok || at.project != r.project {
		return nil
	}
	if row := &at.project.rows[at.row]; row.repo != r.index || row.gone || row.parent > 0 {
		return nil
	}
	return at.project.artifact(at.row)
}

// signatures are those of a digest, oldest first.
func (r *syntheticRepo) signatures(subject digest.Digest) []*artifact {
	at, slot, ok := r.row(subject)
	if !ok || slot > 0 {
		return nil
	}
	return at.signatures()
}

// signatures are those of a row, oldest first; no row has none.
func (p place) signatures() []*artifact {
	if p.project == nil {
		return nil
	}
	var out []*artifact
	for slot := range p.project.rows[p.row].signatures {
		out = append(out, p.project.signature(p.row, slot+1))
	}
	return out
}

// tags are the names of all synthetic tags of the repository.
func (r *syntheticRepo) tags() []string {
	if r == nil {
		return nil
	}
	var out []string
	for _, i := range r.project.byRepo[r.index] {
		row := &r.project.rows[i]
		if row.gone {
			continue
		}
		if row.parent == 0 {
			out = append(out, row.tag())
		}
		if row.signatures > 0 {
			out = append(out, strings.Replace(r.project.digest(i).String(), ":", "-", 1)+".sig")
		}
	}
	return out
}

// listed counts what the default listing of the repository shows.
func (r *syntheticRepo) listed() int {
	if r == nil {
		return 0
	}
	n := 0
	for _, i := range r.project.byRepo[r.index] {
		if row := &r.project.rows[i]; !row.gone && row.parent == 0 {
			n++
		}
	}
	return n
}

// drop forgets all rows of the repository.
func (r *syntheticRepo) drop() {
	if r == nil {
		return
	}
	for _, i := range r.project.byRepo[r.index] {
		r.project.rows[i].gone = true
	}
}

// own makes an ordinary artifact of a synthetic one, with its index and that one's children, if the reference names
// one. The caller holds Harbor.mu for writing.
func (r *repository) own(reference string) {
	if a := r.synthetic.resolve(reference); a != nil {
		sp, i := a.synthetic.project, a.synthetic.row
		i += int32(sp.rows[i].parent)
		index := r.adopt(sp.artifact(i))
		for n, ch := range index.children {
			adopted := r.adopt(ch.artifact)
			adopted.parents[index] = true
			index.children[n].artifact = adopted
		}
	}
}

// adopt stores a synthetic artifact with its tag and its signatures.
func (r *repository) adopt(a *artifact) *artifact {
	row := &a.synthetic.project.rows[a.synthetic.row]
	a.parents = make(map[*artifact]bool)
	signatures := r.synthetic.signatures(a.digest)
	row.gone = true
	a.synthetic = place{}
	r.insert(a)
	for _, t := range a.tags {
		r.tags[t.name] = t
	}
	for n, sig := range signatures {
		sig.synthetic, sig.parents = place{}, make(map[*artifact]bool)
		r.insert(sig)
		if n == len(signatures)-1 {
			name := strings.Replace(a.digest.String(), ":", "-", 1) + ".sig"
			t := &tag{id: sig.id, name: name, artifact: sig, pushed: sig.pushed}
			sig.tags, r.tags[name] = []*tag{t}, t
		}
	}
	r.accessories[a.digest] = append(signatures, r.accessories[a.digest]...)
	return a
}

// insert stores an artifact among those of its project, by rising id.
func (r *repository) insert(a *artifact) {
	r.artifacts[a.digest] = a
	p := r.project
	at, _ := slices.BinarySearchFunc(p.artifacts, a.id, func(other *artifact, id int64) int { return int(other.id - id) })
	p.artifacts = slices.Insert(p.artifacts, at, a)
}
