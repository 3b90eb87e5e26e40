package harbortest

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Defaults and limits of SyntheticConfig.
const (
	defaultSyntheticHistory = 365 * 24 * time.Hour
	defaultSyntheticPrefix  = "synthetic"
	defaultPageOfListing    = 100
	maxSyntheticDigests     = 1 << 30
	maxSyntheticChildren    = 8
	// maxChildGap is how much later the next child of an index is pushed, at most.
	maxChildGap = 80 * time.Millisecond
)

// SyntheticConfig says how much content Synthesize makes. Shares are in [0,1].
type SyntheticConfig struct {
	Projects     int     `json:"projects"`
	Repositories int     `json:"repositories"` // In all projects together; at least one in each.
	Digests      int     `json:"digests"`      // Images, indexes and their children; signatures come on top.
	Indexes      float64 `json:"indexes"`      // The share of all digests that are indexes.
	Children     int     `json:"children"`     // Of each index, untagged; at most 8.
	Unsigned     float64 `json:"unsigned"`     // The share of all digests without a signature, children among them.
	Twice        float64 `json:"twice"`        // The share of the signed digests that have two signatures.
	// Prefix begins the names of the projects, as synthetic-0001; empty is "synthetic".
	Prefix string `json:"prefix"`
	// Everything was pushed in the time of History before Until; zero is a year before now.
	Until   time.Time     `json:"until"`
	History time.Duration `json:"history"` // Nanoseconds on the wire.
	// Seed decides everything that is random: the same configuration and seed make the same content.
	Seed uint64 `json:"seed"`
}

// Synthetic is what Synthesize made.
type Synthetic struct {
	Projects     []string       `json:"projects"`
	Repositories int            `json:"repositories"`
	Digests      int            `json:"digests"`
	Indexes      int            `json:"indexes"`
	Signatures   int            `json:"signatures"`
	Unsigned     []SyntheticRef `json:"unsigned"`
	// Requests is the fewest requests that list every digest: pages of 100 from each project.
	Requests int `json:"requests"`
}

// SyntheticRef names a digest in its repository.
type SyntheticRef struct {
	Repository string `json:"repository"` // Full, as synthetic-0001/app-00001.
	Digest     string `json:"digest"`
}

// SyntheticArtifact is a digest with what Harbor lists of it.
type SyntheticArtifact struct {
	SyntheticRef
	Pushed time.Time `json:"pushed"`
	Index  bool      `json:"index,omitempty"`
	Child  bool      `json:"child,omitempty"`
	Tag    string    `json:"tag,omitempty"`
	// Signatures are the digests of its accessories, all legacy cosign signatures; the last one holds the .sig tag.
	Signatures []string `json:"signatures,omitempty"`
}

// Errors of Synthesize and Touch.
var (
	errSyntheticConfig = errors.New("impossible synthetic content")
	errSyntheticTwice  = errors.New("there is synthetic content already")
	errNoSynthetic     = errors.New("there is no synthetic content")
)

func (cfg *SyntheticConfig) complete() error {
	cfg.Prefix = cmp.Or(cfg.Prefix, defaultSyntheticPrefix)
	cfg.History = cmp.Or(cfg.History, defaultSyntheticHistory)
	if cfg.Until.IsZero() {
		cfg.Until = time.Now()
	}
	share := func(x float64) bool { return x >= 0 && x <= 1 }
	switch {
	case cfg.Projects < 1, cfg.Repositories < cfg.Projects, cfg.Digests < 1, cfg.Digests > maxSyntheticDigests:
		return fmt.Errorf("%w: %d digests in %d repositories of %d projects", errSyntheticConfig, cfg.Digests,
			cfg.Repositories, cfg.Projects)
	case !share(cfg.Indexes), !share(cfg.Unsigned), !share(cfg.Twice):
		return fmt.Errorf("%w: a share is in [0,1]", errSyntheticConfig)
	case cfg.Children < 0, cfg.Children > maxSyntheticChildren, cfg.Indexes > 0 && cfg.Children == 0:
		return fmt.Errorf("%w: %d children of an index", errSyntheticConfig, cfg.Children)
	case cfg.indexes()*(1+cfg.Children) > cfg.Digests:
		return fmt.Errorf("%w: %d indexes with %d children each are more than %d digests", errSyntheticConfig,
			cfg.indexes(), cfg.Children, cfg.Digests)
	case cfg.History < time.Duration(cfg.Digests)*maxChildGap:
		return fmt.Errorf("%w: a history of %s is too short for %d digests", errSyntheticConfig, cfg.History, cfg.Digests)
	}
	return nil
}

func (cfg *SyntheticConfig) indexes() int { return int(math.Round(float64(cfg.Digests) * cfg.Indexes)) }

// Synthesize fills the emulator with projects whose artifacts are derived from a seed when somebody asks for them; a
// digest costs some forty bytes of memory. It can be called once. What it makes answers like any other content, except that
//
//   - a signed digest has no manifest: HEAD answers, GET does not, for nothing could hash to an invented digest;
//   - an unsigned digest has its manifest, but no blobs;
//   - no signature can be pulled;
//   - pulls of a synthetic digest move the times of its repository and not its own;
//   - nothing of it is in the audit log, as after a purge, nor does it use up a quota.
//
// What changes a synthetic digest (a new tag, a deletion) makes an ordinary artifact of it first.
func (h *Harbor) Synthesize(cfg SyntheticConfig) (Synthetic, error) {
	if err := cfg.complete(); err != nil {
		return Synthetic{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	if s.synthetic != nil {
		return Synthetic{}, errSyntheticTwice
	}
	for n := range cfg.Projects {
		if s.projects[cfg.projectName(n)] != nil {
			return Synthetic{}, fmt.Errorf("%w: project %s exists", errSyntheticConfig, cfg.projectName(n))
		}
	}
	b := newSyntheticBuilder(s, cfg)
	for n, share := range b.shares() {
		b.project(n, share)
	}
	s.synthetic = b.set
	return b.out, nil
}

func (cfg *SyntheticConfig) projectName(n int) string { return fmt.Sprintf("%s-%04d", cfg.Prefix, n+1) }

// syntheticBuilder makes the rows of all projects, one project after the other.
type syntheticBuilder struct {
	state *state
	cfg   SyntheticConfig
	rand  *rand.Rand
	set   *syntheticSet
	out   Synthetic
	// What is left to be made, so that each share is met exactly.
	indexes, single, unsigned, rows int
}

func newSyntheticBuilder(s *state, cfg SyntheticConfig) *syntheticBuilder {
	random := rand.New(rand.NewPCG(cfg.Seed, 2)) //nolint:gosec // content of a test double
	set := newSyntheticSet(s, cfg, random)
	return &syntheticBuilder{
		state: s, cfg: cfg, rand: random, set: set, indexes: cfg.indexes(),
		single:   cfg.Digests - cfg.indexes()*(1+cfg.Children),
		unsigned: int(math.Round(float64(cfg.Digests) * cfg.Unsigned)), rows: cfg.Digests,
		out: Synthetic{
			Repositories: cfg.Repositories, Digests: cfg.Digests, Indexes: cfg.indexes(), Unsigned: []SyntheticRef{},
		},
	}
}

// shares tells how many images and indexes each project gets: between a quarter of and almost double the mean.
func (b *syntheticBuilder) shares() []int {
	weights, sum := make([]float64, b.cfg.Projects), 0.0
	for n := range weights {
		weights[n] = 0.25 + 1.5*b.rand.Float64()
		sum += weights[n]
	}
	groups := b.indexes + b.single
	out, given, upTo := make([]int, len(weights)), 0, 0.0
	for n, w := range weights {
		upTo += w
		until := int(math.Round(float64(groups) * upTo / sum))
		out[n] = until - given
		given = until
	}
	out[len(out)-1] += groups - given
	return out
}

// project makes one project with so many images and indexes.
func (b *syntheticBuilder) project(n, groups int) {
	repositories := b.cfg.Repositories / b.cfg.Projects
	if n < b.cfg.Repositories%b.cfg.Projects {
		repositories++
	}
	began := b.cfg.Until.Add(-b.cfg.History).UTC()
	p := b.state.addProject(b.cfg.projectName(n), b.state.users["admin"], map[string]string{metaPublic: "false"},
		b.state.defaultLimit())
	p.created, p.updated = began, began
	sp := &syntheticProject{set: b.set, project: p, base: b.set.count, byRepo: make([][]int32, repositories)}
	p.synthetic = sp
	for i := range repositories {
		r := b.state.ensureRepo(p, fmt.Sprintf("%s/app-%03d", p.name, i+1))
		r.synthetic = &syntheticRepo{project: sp, index: uint32(i)}
		r.created, r.updated = began, began
		sp.repos = append(sp.repos, r)
	}
	b.fill(sp, groups, began)
	b.set.projects = append(b.set.projects, sp)
	b.out.Projects = append(b.out.Projects, p.name)
	b.out.Requests += max(1, (len(sp.rows)+defaultPageOfListing-1)/defaultPageOfListing)
}

// fill pushes images and indexes into a project at rising times: the children some milliseconds before their index.
func (b *syntheticBuilder) fill(sp *syntheticProject, groups int, at time.Time) {
	sp.rows = make([]syntheticRow, 0, groups*(1+b.cfg.Children*b.indexes/max(1, b.indexes+b.single)))
	clock := at.UnixMicro()
	end := clock + b.cfg.History.Microseconds()
	busy := int64(b.cfg.Children+1) * maxChildGap.Microseconds() // What an index takes, at most.
	for i := range groups {
		left := end - clock - int64(groups-i)*busy
		clock += 1 + b.rand.Int64N(max(1, min(2*left/int64(groups-i), left)))
		repo := uint32(i)
		if i >= len(sp.repos) {
			repo = b.rand.Uint32N(uint32(len(sp.repos))) //nolint:gosec // the length of a slice
		}
		children := 0
		if b.rand.IntN(b.indexes+b.single) < b.indexes {
			children = b.cfg.Children
			b.indexes--
		} else {
			b.single--
		}
		for child := range children {
			b.add(sp, syntheticRow{pushed: clock, repo: repo, parent: uint8(children - child)}) //nolint:gosec // at most 8
			clock += (maxChildGap / 2).Microseconds() + b.rand.Int64N((maxChildGap / 2).Microseconds())
		}
		b.add(sp, syntheticRow{pushed: clock, repo: repo, children: uint8(children)})
	}
	for _, r := range sp.repos {
		if rows := sp.byRepo[r.synthetic.index]; len(rows) > 0 {
			r.created, r.updated = sp.rows[rows[0]].time(), sp.rows[rows[len(rows)-1]].time()
		}
	}
}

func (b *syntheticBuilder) add(sp *syntheticProject, row syntheticRow) {
	row.signatures = 1
	switch {
	case b.rand.IntN(b.rows) < b.unsigned:
		row.signatures = 0
		b.unsigned--
	case b.rand.Float64() < b.cfg.Twice:
		row.signatures = 2
	}
	b.rows--
	b.out.Signatures += int(row.signatures)
	i := sp.push(row)
	if row.signatures == 0 {
		b.out.Unsigned = append(b.out.Unsigned, sp.remember(i))
	}
}

// SyntheticArtifacts goes through all synthetic digests that are still synthetic, project by project, oldest first. It
// holds no lock while the loop's body runs.
func (h *Harbor) SyntheticArtifacts() iter.Seq[SyntheticArtifact] {
	return func(yield func(SyntheticArtifact) bool) {
		h.mu.RLock()
		var projects []*syntheticProject
		if h.state.synthetic != nil {
			projects = slices.Clone(h.state.synthetic.projects)
		}
		h.mu.RUnlock()
		for _, sp := range projects {
			h.mu.RLock()
			out := make([]SyntheticArtifact, 0, len(sp.rows))
			for i := range sp.rows {
				if !sp.rows[i].gone {
					out = append(out, sp.describe(int32(i)))
				}
			}
			h.mu.RUnlock()
			for _, a := range out {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// describe tells what there is to know about a row.
func (sp *syntheticProject) describe(i int32) SyntheticArtifact {
	row := &sp.rows[i]
	out := SyntheticArtifact{
		SyntheticRef: sp.ref(i), Pushed: row.time(), Index: row.children > 0, Child: row.parent > 0,
	}
	if row.parent == 0 {
		out.Tag = row.tag()
	}
	for slot := range row.signatures {
		out.Signatures = append(out.Signatures, sp.set.invented(row.number, slot+1).String())
	}
	return out
}

func (sp *syntheticProject) ref(i int32) SyntheticRef {
	return SyntheticRef{Repository: sp.repos[sp.rows[i].repo].name, Digest: sp.digest(i).String()}
}

// remember notes the digest of an unsigned row, which is that of its manifest and names no number.
func (sp *syntheticProject) remember(i int32) SyntheticRef {
	ref := sp.ref(i)
	sp.set.unsigned[digest.Digest(ref.Digest)] = sp.rows[i].number
	return ref
}
