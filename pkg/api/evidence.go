package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/status"
)

const (
	// maxHistory is how many events of a manifest are shown, and maxRelated how many parents, and how many children.
	maxHistory = 500
	maxRelated = 100
)

// unit gives the row of one manifest; false if the ledger never heard of it. It is safe for concurrent use. The error is a fault.
type unit interface {
	One(ctx context.Context, ref artifact.Ref) (row ledger.Row, found bool, err error)
}

// history gives the newest events of a manifest, newest first, at most so many, and says whether there are older ones. It is safe
// for concurrent use. The error is a fault.
type history interface {
	History(ctx context.Context, ref artifact.Ref, limit int) (newest []artifact.Entry, more bool, err error)
}

// prove gives the proof that the event with a sequence is in the ledger's Merkle log; nil if no checkpoint has it yet. It is safe
// for concurrent use. The error is a fault.
type prove func(ctx context.Context, seq uint64) (*LedgerProof, error)

// LedgerProof leads from an event to a signed checkpoint of the ledger.
//
// SPEC: RFC 6962, section 2.1.1, Merkle audit paths; C2SP tlog-checkpoint.
type LedgerProof struct {
	// Epoch names the log. Index is the event's in it, Size that of the log; LeafHash and Hashes are base64, the one beside the leaf
	// first.
	Epoch      uint64   `json:"epoch"`
	Index      uint64   `json:"index"`
	Size       uint64   `json:"size"`
	LeafHash   []byte   `json:"leaf_hash"`
	Hashes     [][]byte `json:"hashes"`
	Checkpoint string   `json:"checkpoint"`
}

// evidenceAnswer is the body of GET /api/v1/signatures/{project}/{repository}/{digest}. A part that cannot be had is null, and
// Missing says why.
type evidenceAnswer struct {
	Image string      `json:"image"`
	Row   *ledger.Row `json:"row"`
	// Registry is what stands in the registry at this moment, with its documents.
	Registry *inspect.Report `json:"registry"`
	Events   []pastEvent     `json:"events"`
	// MoreEvents says that the ledger holds older ones.
	MoreEvents bool         `json:"more_events"`
	Proof      *eventProof  `json:"proof"`
	Tags       []pastTag    `json:"tags"`
	Parents    []related    `json:"parents"`
	Children   []related    `json:"children"`
	Commands   []commandFor `json:"commands"`
	Missing    []missing    `json:"missing"`
	AnsweredAt time.Time    `json:"answered_at"`
}

// missing is a part of the evidence that could not be had. Reason is from a closed set; Detail is for people.
type missing struct {
	Part   string       `json:"part"`
	Reason fault.Reason `json:"reason"`
	Detail string       `json:"detail"`
}

// pastEvent is an event as it is stored; Event is null if it cannot be read.
type pastEvent struct {
	Seq   uint64          `json:"seq"`
	Event *artifact.Event `json:"event"`
}

// eventProof proves the newest signed event. The leaf of the log is made of Seq, Subject and Data, in base64.
type eventProof struct {
	Seq     uint64 `json:"seq"`
	Subject string `json:"subject"`
	Data    []byte `json:"data"`
	LedgerProof
}

// pastTag is a tag that the manifest had, or has, with the times at which somebody pushed it, as far as events tell.
type pastTag struct {
	Name    string     `json:"name"`
	FirstAt *time.Time `json:"first_at"`
	LastAt  *time.Time `json:"last_at"`
}

// related is an index that names the manifest, or a manifest that it names; State is empty if the ledger never heard of it.
type related struct {
	Digest string       `json:"digest"`
	State  ledger.State `json:"state"`
	Reason string       `json:"reason"`
}

func (a *API) getEvidence(c *gin.Context) {
	ref, err := evidenceOf(c.Param("reference"))
	if err == nil {
		err = a.mayPull(c, ref.Repository())
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	leave, ok := a.collecting.enter(caller(c).Actor())
	if !ok {
		wait(c, retryAfter)
		problem.Abort(c, problem.Document{Status: http.StatusTooManyRequests, Detail: "too much evidence is being collected for you at once: try again when one of the answers is there"})
		return
	}
	defer leave()
	e := a.collect(c.Request.Context(), ref)
	if err := e.unknown(); err != nil {
		a.refuse(c, err)
		return
	}
	if err := c.Request.Context().Err(); err != nil {
		a.refuse(c, err)
		return
	}
	a.seen(c, ref.Project(), "")
	a.answer(c, http.StatusOK, e.evidenceAnswer)
}

// evidenceOf reads /project/repository…/digest.
func evidenceOf(path string) (artifact.Ref, error) {
	path = strings.TrimPrefix(path, "/")
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 {
		return artifact.Ref{}, wrong("repository", "want signatures/project/repository/sha256:…")
	}
	if err := artifact.ValidateDigest(path[slash+1:]); err != nil {
		return artifact.Ref{}, wrong("digest", err.Error())
	}
	if err := artifact.ValidateRepository(path[:slash]); err != nil {
		return artifact.Ref{}, wrong("repository", err.Error())
	}
	return artifact.NewRef(path[:slash], path[slash+1:])
}

// collection is evidence that is being collected.
type collection struct {
	evidenceAnswer

	ref     artifact.Ref
	entries []artifact.Entry
	trust   []byte
	// gone says that the registry has no such manifest, unheard that the ledger never heard of it.
	gone, unheard bool
	mu            sync.Mutex // guards Missing
}

// lacks notes why a part is missing.
func (e *collection) lacks(part string, err error) {
	f := fault.Of(err)
	m := missing{Part: part, Reason: f.Reason, Detail: "this cannot be told at the moment: try again later"}
	switch {
	case f.Kind == fault.Gone:
		m.Detail = "it is not there"
	case part == "registry" || part == "commands":
		m.Detail = "no signer has answered, or it could not read this: try again later"
	case f.Reason == fault.StorageUnavailable:
		m.Detail = "the report's database does not answer at the moment: try again later"
	}
	e.note(m)
}

func (e *collection) note(m missing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Missing = append(e.Missing, m)
}

// unknown says whether nobody has ever heard of the manifest. If it cannot be told, it is known.
func (e *collection) unknown() error {
	if e.gone && e.unheard && len(e.Events) == 0 {
		return fault.Newf(fault.Gone, fault.NotFound, "nobody knows %s", e.ref)
	}
	return nil
}

// collect asks everybody at once, and then for what depends on the answers.
func (a *API) collect(ctx context.Context, ref artifact.Ref) *collection {
	image := status.Image{Repository: ref.Repository(), Digest: ref.Digest()}
	e := &collection{ref: ref, evidenceAnswer: evidenceAnswer{Image: image.At(a.cfg.Registry), Missing: []missing{}, AnsweredAt: time.Now().UTC()}}
	var asking sync.WaitGroup
	for _, part := range []func(context.Context, *collection){a.collectRow, a.collectEvents, a.collectRegistry, a.collectTrust} {
		asking.Go(func() { part(ctx, e) })
	}
	asking.Wait()
	a.collectProof(ctx, e)
	a.collectRelated(ctx, e)
	e.Tags = tagsOf(e.Row, e.entries)
	e.collectCommands()
	slices.SortFunc(e.Missing, func(a, b missing) int { return strings.Compare(a.Part, b.Part) })
	return e
}

func (a *API) collectRow(ctx context.Context, e *collection) {
	if a.cfg.Unit == nil {
		e.note(missing{"row", fault.Unavailable, "this receiver has no report"})
		return
	}
	row, found, err := a.cfg.Unit.One(ctx, e.ref)
	switch {
	case err != nil:
		e.lacks("row", err)
	case found:
		e.Row = &row
	default:
		e.unheard = true
		e.note(missing{"row", fault.NotFound, "the ledger has never heard of it"})
	}
}

func (a *API) collectEvents(ctx context.Context, e *collection) {
	if a.cfg.History == nil {
		e.note(missing{"events", fault.Unavailable, "this receiver does not read single events"})
		return
	}
	entries, more, err := a.cfg.History.History(ctx, e.ref, maxHistory)
	if err != nil {
		e.lacks("events", err)
		return
	}
	e.entries, e.Events, e.MoreEvents = entries, make([]pastEvent, len(entries)), more
	for i, entry := range entries {
		e.Events[i].Seq = entry.Seq
		if entry.Event.ID != "" {
			e.Events[i].Event = &entries[i].Event
		}
	}
}

func (a *API) collectRegistry(ctx context.Context, e *collection) {
	err := errNobodyAsked()
	var report inspect.Report
	if a.cfg.Images != nil {
		report, err = a.cfg.Images.Evidence(ctx, e.ref)
	}
	if err != nil {
		e.gone = fault.Is(err, fault.Gone)
		e.lacks("registry", err)
		return
	}
	e.Registry = &report
}

func (a *API) collectTrust(ctx context.Context, e *collection) {
	document, err := a.askTrust(ctx)
	if err != nil {
		e.lacks("commands", err)
		return
	}
	e.trust = document
}

// collectProof proves the newest signed event.
func (a *API) collectProof(ctx context.Context, e *collection) {
	at := slices.IndexFunc(e.entries, func(entry artifact.Entry) bool { return entry.Event.Kind == artifact.Signed })
	switch {
	case a.cfg.Prove == nil:
		e.note(missing{"proof", fault.Unavailable, "the ledger has no Merkle log: its key is not configured"})
		return
	case at < 0:
		e.note(missing{"proof", fault.NotFound, "the newest events hold no signed event"})
		return
	}
	entry := e.entries[at]
	proof, err := a.cfg.Prove(ctx, entry.Seq)
	switch {
	case err != nil:
		e.lacks("proof", err)
	case proof == nil:
		e.note(missing{"proof", fault.NotFound, "no checkpoint covers the event yet: there is one each minute"})
	default:
		e.Proof = &eventProof{Seq: entry.Seq, Subject: entry.Subject, Data: entry.Data, LedgerProof: *proof}
	}
}

// collectRelated looks up the states of parents, which the ledger knows, and of children, which the manifest names.
func (a *API) collectRelated(ctx context.Context, e *collection) {
	if e.Row == nil {
		e.note(missing{"parents", fault.NotFound, "the row of the manifest would name them"})
	} else {
		e.Parents = a.related(ctx, e, "parents", e.Row.Parents, e.Row.ParentsTotal)
	}
	if e.Registry == nil {
		e.note(missing{"children", fault.NotFound, "the manifest in the registry would name them"})
	} else {
		e.Children = a.related(ctx, e, "children", e.Registry.Children, e.Registry.ChildrenTotal)
	}
}

func (a *API) related(ctx context.Context, e *collection, part string, digests []string, total int) []related {
	if shown := min(len(digests), maxRelated); shown < total {
		e.note(missing{part, fault.TooLarge, "there are more than are shown"})
		digests = digests[:shown]
	}
	all := make([]related, 0, len(digests))
	for _, digest := range digests {
		r := related{Digest: digest}
		sibling, err := e.ref.Sibling(digest)
		if err == nil && a.cfg.Unit != nil {
			var row ledger.Row
			if row, _, err = a.cfg.Unit.One(ctx, sibling); err == nil {
				r.State, r.Reason = row.State, row.Reason
			}
		}
		if err != nil {
			e.lacks(part, err)
			return nil
		}
		all = append(all, r)
	}
	return all
}

// tagsOf gives the tags of the row, and those that events name, with their times; nil if neither is there.
func tagsOf(row *ledger.Row, entries []artifact.Entry) []pastTag {
	if row == nil && entries == nil {
		return nil
	}
	tags := []pastTag{}
	at := map[string]int{}
	add := func(name string) *pastTag {
		i, known := at[name]
		if !known {
			i = len(tags)
			at[name] = i
			tags = append(tags, pastTag{Name: name})
		}
		return &tags[i]
	}
	if row != nil {
		for _, name := range row.Tags {
			add(name)
		}
	}
	for _, entry := range entries { // newest first
		event := entry.Event
		if event.Tag == "" || event.Kind != artifact.Received && event.Kind != artifact.Confirmed {
			continue
		}
		pushed := event.Time.UTC()
		if event.PushedAt != nil {
			pushed = event.PushedAt.UTC()
		}
		tag := add(event.Tag)
		if tag.LastAt == nil || pushed.After(*tag.LastAt) {
			tag.LastAt = &pushed
		}
		if tag.FirstAt == nil || pushed.Before(*tag.FirstAt) {
			tag.FirstAt = &pushed
		}
	}
	return tags
}

// commandFor is a command line of the trust document, for this very image.
type commandFor struct {
	Title     string          `json:"title"`
	Key       string          `json:"key"`
	Format    artifact.Format `json:"format"`
	Log       string          `json:"log"`
	Authority string          `json:"authority"`
	Programs  []string        `json:"programs"`
	Line      string          `json:"line"`
}

// collectCommands picks the command lines that the signatures in the registry should pass.
func (e *collection) collectCommands() {
	var document struct {
		Commands []commandFor `json:"commands"`
	}
	switch {
	case e.trust == nil:
		return // it was noted
	case e.Registry == nil:
		e.note(missing{"commands", fault.NotFound, "they depend on what stands in the registry"})
		return
	case json.Unmarshal(e.trust, &document) != nil:
		e.note(missing{"commands", fault.BadAnswer, "what a signer says verifiers are to trust cannot be read"})
		return
	}
	e.Commands = []commandFor{}
	for _, command := range document.Commands {
		if slices.ContainsFunc(e.Registry.Signatures, command.fits) {
			command.Line = command.Line[:strings.LastIndexByte(command.Line, ' ')+1] + shellQuote(e.Image)
			e.Commands = append(e.Commands, command)
		}
	}
}

// fits says whether a signature has what the command asks for.
func (c commandFor) fits(s inspect.Signature) bool {
	return s.Verified && s.Key != nil && s.Key.Name == c.Key && s.Format == c.Format &&
		(c.Log == "" || s.Log != nil && s.Log.Verified && s.Log.Log == c.Log) &&
		(c.Authority == "" || s.Timestamp != nil && s.Timestamp.Verified && s.Timestamp.Authority == c.Authority)
}

// shellQuote writes a word for a POSIX shell.
func shellQuote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@=,+%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
