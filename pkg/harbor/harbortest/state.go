package harbortest

import (
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"
)

//go:embed data/permissions.json
var permissionsJSON []byte

//go:embed data/configurations.json
var configurationsJSON []byte

// Roles of project members, by Harbor's numbers.
const (
	roleProjectAdmin = 1
	roleDeveloper    = 2
	roleGuest        = 3
	roleMaintainer   = 4
	roleLimitedGuest = 5
)

// state is everything that the emulator knows, guarded by Harbor.mu.
type state struct {
	seq         map[string]int64 // The last id given, by table, as PostgreSQL's sequences.
	users       map[string]*user
	robots      map[string]*robot // By full name, as robot$demo+pusher.
	projects    map[string]*project
	registries  []*upstream // By rising id.
	projectByID map[int64]*project
	repos       map[string]*repository // By full name.
	blobs       map[digest.Digest][]byte
	blobLinks   map[string]map[digest.Digest]bool // By repository name: blobs come before their repository.
	uploads     map[string]*upload
	audit       []*auditEntry // Oldest first.
	synthetic   *syntheticSet // nil until Synthesize.
	release     release
	config      map[string]configItem
	permissions permissionCatalog
}

type configItem struct {
	Editable bool `json:"editable"`
	Value    any  `json:"value"`
}

type user struct {
	id                       int64
	name, password           string
	email, realname, comment string
	sysadmin                 bool
	created, updated         time.Time
	oidc                     *oidcLogin // nil of one that never came by OIDC.
}

type project struct {
	id               int64
	name             string
	owner            *user
	created, updated time.Time
	registryID       int64 // Of the registry that a proxy cache stands before; 0 otherwise.
	metadata         map[string]string
	members          []*member
	repos            []*repository // By rising id.
	artifacts        []*artifact   // By rising id; accessories too.
	synthetic        *syntheticProject
	policies         []*webhookPolicy
	rules            []*immutableRule // By rising id.
	quota            *quota
	executions       []*execution
}

type member struct {
	id   int64
	user *user
	role int
}

type repository struct {
	id               int64
	name             string // Full, as demo/team/app.
	project          *project
	created, updated time.Time
	pulls            int64
	artifacts        map[digest.Digest]*artifact
	tags             map[string]*tag
	accessories      map[digest.Digest][]*artifact // By their subject's digest, by rising id. Read by accessoriesOf.
	synthetic        *syntheticRepo
}

// artifact is a manifest, whatever it describes. The fields that come from its content never change.
type artifact struct {
	id             int64
	repo           *repository
	digest         digest.Digest
	content        []byte
	manifestType   string // The manifest's media type.
	mediaType      string // Its config's, or for an index its own.
	artifactType   string
	kind           string // IMAGE, CHART, UNKNOWN, ...
	annotations    map[string]string
	extra          map[string]any
	children       []child
	parts          []part // What the quota of its project counts.
	size           int64
	pushed, pulled time.Time
	tags           []*tag
	parents        map[*artifact]bool
	accessory      *accessory // nil unless it is one.
	synthetic      place      // Of one that is derived from a row.
}

type child struct {
	artifact *artifact
	platform *platform
}

type platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSFeatures   []string `json:"OsFeatures"` //nolint:tagliatelle // as recorded
	Variant      string   `json:"variant,omitempty"`
}

type accessory struct {
	id      int64
	kind    string // signature.cosign, subject.accessory, ...
	subject digest.Digest
	created time.Time
}

type tag struct {
	id             int64
	name           string
	artifact       *artifact
	pushed, pulled time.Time
}

func newState(adminPassword, version string) (*state, error) {
	now := storedNow()
	s := &state{
		seq:   map[string]int64{"user": 2}, // Harbor's second user is the built-in anonymous one.
		users: make(map[string]*user), robots: make(map[string]*robot),
		projects: make(map[string]*project), projectByID: make(map[int64]*project),
		repos: make(map[string]*repository), blobs: make(map[digest.Digest][]byte),
		blobLinks: make(map[string]map[digest.Digest]bool), uploads: make(map[string]*upload),
		release: parseRelease(version),
	}
	if err := json.Unmarshal(permissionsJSON, &s.permissions); err != nil {
		return nil, fmt.Errorf("reading the permissions: %w", err)
	}
	if err := json.Unmarshal(configurationsJSON, &s.config); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	admin := &user{
		id: 1, name: "admin", password: adminPassword, realname: "system admin", comment: "admin user",
		sysadmin: true, created: now, updated: now,
	}
	s.users[admin.name] = admin
	s.addProject("library", admin, map[string]string{"public": "true"}, s.defaultLimit())
	return s, nil
}

// next gives the next id of a table.
func (s *state) next(table string) int64 {
	s.seq[table]++
	return s.seq[table]
}

func (s *state) addProject(name string, owner *user, metadata map[string]string, limit int64) *project {
	now := storedNow()
	p := &project{
		id: s.next("project"), name: name, owner: owner, created: now, updated: now, metadata: metadata,
		quota: s.newQuota(limit, now),
	}
	s.projects[name] = p
	s.projectByID[p.id] = p
	p.members = append(p.members, &member{id: s.next("member"), user: owner, role: roleProjectAdmin})
	return p
}

// findProject resolves what stands for a project in a path: its name, or its id unless byName is set.
//
// SPEC: Harbor API, parameter project_name_or_id and header X-Is-Resource-Name: digits are an id unless the header
// says that they are a name.
func (s *state) findProject(ref string, byName bool) *project {
	if id, err := strconv.ParseInt(ref, 10, 64); err == nil && !byName {
		return s.projectByID[id]
	}
	return s.projects[ref]
}

func (s *state) ensureRepo(p *project, name string) *repository {
	if r := s.repos[name]; r != nil {
		return r
	}
	now := storedNow()
	r := &repository{
		id: s.next("repository"), name: name, project: p, created: now, updated: now,
		artifacts: make(map[digest.Digest]*artifact), tags: make(map[string]*tag),
		accessories: make(map[digest.Digest][]*artifact),
	}
	s.repos[name] = r
	p.repos = append(p.repos, r)
	return r
}

// hasBlob tells whether a blob is in a repository. That it is in another one does not count.
func (s *state) hasBlob(repoName string, d digest.Digest) bool { return s.blobLinks[repoName][d] }

func (s *state) linkBlob(repoName string, d digest.Digest) {
	if s.blobLinks[repoName] == nil {
		s.blobLinks[repoName] = make(map[digest.Digest]bool)
	}
	s.blobLinks[repoName][d] = true
}

func (p *project) public() bool { return p.metadata["public"] == "true" }

// short is a repository's name without its project.
func (r *repository) short() string { return strings.TrimPrefix(r.name, r.project.name+"/") }

// listed tells whether the default listing shows the artifact: accessories never, children of an index only when they
// carry a tag of their own.
func (a *artifact) listed() bool {
	return a.accessory == nil && (len(a.parents) == 0 || len(a.tags) > 0)
}

// resolve finds an artifact by tag or digest.
func (r *repository) resolve(reference string) *artifact {
	if strings.Contains(reference, ":") {
		if a := r.artifacts[digest.Digest(reference)]; a != nil {
			return a
		}
	} else if t := r.tags[reference]; t != nil {
		return t.artifact
	}
	return r.synthetic.resolve(reference)
}

// accessoriesOf lists the accessories of a digest, oldest first.
func (r *repository) accessoriesOf(subject digest.Digest) []*artifact {
	return append(r.synthetic.signatures(subject), r.accessories[subject]...)
}

// accessories is accessoriesOf for an artifact that was found.
func (a *artifact) accessories() []*artifact {
	return append(a.synthetic.signatures(), a.repo.accessories[a.digest]...)
}

// storedNow is the time as PostgreSQL stores it: in microseconds.
func storedNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func newUUID() string { return uuid.NewString() }

// newSecret makes n random letters and digits.
func newSecret(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // Never fails, by its contract.
	for i, b := range raw {
		raw[i] = alphabet[int(b)%len(alphabet)]
	}
	return string(raw)
}
