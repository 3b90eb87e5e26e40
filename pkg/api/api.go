// Package api is the REST door for compliance admins, auditors and pipelines: the projects with their policies and coverage,
// the signed-digest report, the dead letters, the outages of what the programs depend on, and what verifiers are to trust.
//
// It guarantees that
//   - everybody sees and changes what package access lets them, and nothing else: a project that is not there and one of
//     others get the same answer;
//   - every answer is JSON (errors are problem documents, RFC 9457), and a parameter or a field of a body that is wrong or
//     unknown is a 400 that names it;
//   - a policy is changed by who has read it: PUT needs the ETag of what it replaces;
//   - no request runs longer than the configured times, and no body is larger than 256 KiB;
//   - what it takes and answers is what openapi.yaml beside this file says, which it serves.
//
// It never writes credentials anywhere: those of a caller are handed on to Harbor, for the pre-checks of a change.
//
// It assumes TLS in front of it or beneath it, panics recovered by a middleware of the engine, and that the engine answers
// unknown paths and methods itself. It decides nothing about signatures or policies: it hands on what package ledger's view
// says and what package enroll does.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/printable"
)

const (
	defaultTimeout       = 10 * time.Second
	defaultChangeTimeout = 30 * time.Second
	// answerWithin is how long after the end of a change its answer may still be written.
	answerWithin = 5 * time.Second
)

// view is the ledger's. It is safe for concurrent use, makes one attempt and ends when ctx does. The errors are a
// [*ledger.InvalidQueryError] or faults.
type view interface {
	// Signatures, ProjectEvents and Outages answer with one page.
	Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error)
	ProjectEvents(ctx context.Context, q ledger.EventQuery) (ledger.EventPage, error)
	Outages(ctx context.Context, q ledger.OutageQuery) (ledger.OutagePage, error)
	// Coverage counts for each of the projects, also for those that nothing is known of.
	Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error)
	// Names are the projects that the ledger knows.
	Names(ctx context.Context) ([]string, error)
}

// rotations says how far a change of keys has come in a project: left are the digests that are signed by none of the keys,
// done those that were known before since and have got a signature of one of the keys from then on. keys are never empty.
type rotations interface {
	Resigned(ctx context.Context, project string, keys []string, since time.Time) (left, done int, err error)
}

// projects enables projects and changes their policies. It is safe for concurrent use. Everything is safe to repeat. The
// errors are those of package enroll, policy.ErrConflict, policy.FieldError, or faults. None holds a secret.
type projects interface {
	Get(ctx context.Context, project string) (enroll.View, error)
	Put(ctx context.Context, actor enroll.Actor, project string, req enroll.PutRequest, ifMatch string) (enroll.View, error)
	Delete(ctx context.Context, actor enroll.Actor, project, ifMatch string) (enroll.View, error)
	Sweep(ctx context.Context, actor enroll.Actor, project string) error
	Rotate(ctx context.Context, actor enroll.Actor, project string) (enroll.View, error)
	Block(ctx context.Context, actor enroll.Actor, project, digest, why string) (enroll.View, error)
	Unblock(ctx context.Context, actor enroll.Actor, project, digest string) (enroll.View, error)
	// Listed gives the names of Harbor's projects, as the receiver's account sees them and as it was at most a minute ago, or
	// when Harbor answered last; none without an account.
	Listed(ctx context.Context) ([]string, error)
}

// policies are those in force, in memory. An error of Projects means that they are not loaded.
type policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
	State(project string) (state policy.State, revision uint64, err error)
	Projects() (names []string, globs bool, err error)
}

// Config is what the API needs. Ledger, Projects, Policies, DeadLetters and Access are required.
type Config struct {
	Ledger   view
	Projects projects
	Policies policies
	// DeadLetters are the requests that were given up.
	DeadLetters letters
	// Access says who may do what.
	Access guard
	// Rotations may be nil: then the rate of signing anew after a change of keys is not told.
	Rotations rotations
	// Coverage reports how far projects are signed; nil means that there is no such path.
	Coverage coverages
	// Status says how images stand; nil means that there is no such path. Door asks for signatures; nil means that nobody can.
	Status states
	Door   door
	// Trust asks a signer for the trust document; nil means that there is nobody to ask, so that GET /api/v1/trust answers 503.
	Trust trust
	// Images asks signers what holds of an image at this moment; nil means that there is nobody to ask.
	Images images
	// Unit, History and Prove give the parts of the evidence of one manifest; where one is nil, its part is missing.
	Unit    unit
	History history
	Prove   prove
	// Exports makes exports of the report; nil means that there is no such path. Reads is told who has read or exported it; nil for nobody.
	Exports exports
	Reads   reads
	// Merkle is the tamper evidence of the ledger; nil without a ledger key, so that GET /api/v1/ledger answers 404.
	Merkle merkle
	// Registry is the host, with a port where it has one, that images are pulled from: what the report names.
	Registry string
	// Keys are the public keys by which signatures are checked, in the order in which they are listed.
	Keys []Key
	// Timeout bounds a request that reads; 0 means 10 s.
	Timeout time.Duration
	// ChangeTimeout bounds a request that changes something, which Harbor and the signers are asked about before; 0 means 30 s.
	ChangeTimeout time.Duration
	Logger        zerolog.Logger
}

// API serves the REST paths. It is safe for concurrent use.
type API struct {
	cfg Config
	// keys and openapi are answers.
	keys, openapi []byte
	active        []Key
	origins       *http.CrossOriginProtection
	verifying     *places
	collecting    *places // evidence
	exporting     *rounds
	logger        zerolog.Logger
}

// New checks the configuration.
func New(cfg Config) (*API, error) {
	required := func(there bool, name string) error {
		if there {
			return nil
		}
		return errors.New("making the API: " + name + " is required")
	}
	err := errors.Join(
		required(cfg.Ledger != nil, "Ledger"), required(cfg.Projects != nil, "Projects"),
		required(cfg.Policies != nil, "Policies"), required(cfg.DeadLetters != nil, "DeadLetters"), required(cfg.Access != nil, "Access"),
	)
	if cfg.Timeout < 0 || cfg.ChangeTimeout < 0 {
		err = errors.Join(err, errors.New("making the API: a Timeout is negative"))
	}
	if err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.ChangeTimeout == 0 {
		cfg.ChangeTimeout = defaultChangeTimeout
	}
	a := &API{cfg: cfg, origins: http.NewCrossOriginProtection(), logger: cfg.Logger}
	a.verifying = &places{total: verifying, each: verifyingEach, taking: map[string]int{}}
	a.collecting = &places{total: verifying, each: verifyingEach, taking: map[string]int{}}
	a.exporting = &rounds{each: exportsEach, stretch: exportsTime, begun: map[string]int{}}
	if a.keys, a.active, err = encodeKeys(cfg.Keys); err != nil {
		return nil, err
	}
	if a.openapi, err = encodeOpenAPI(); err != nil {
		return nil, err
	}
	return a, nil
}

// Register adds the paths below /api/v1.
func (a *API) Register(router gin.IRouter) {
	open := router.Group("/api/v1", a.within(a.cfg.Timeout))
	open.GET("/keys", a.plain, a.getKeys)
	open.GET("/openapi.json", a.plain, a.getOpenAPI)

	known := open.Group("", a.authenticate)
	known.GET("/signatures", a.recorded, a.getSignatures)
	known.GET("/signatures/*reference", a.plain, a.getEvidence) // a repository has slashes
	if a.cfg.Coverage != nil {
		known.GET("/coverage", a.recorded, a.getCoverage)
	}
	known.GET("/projects", a.plain, a.getProjects)
	known.GET("/events", a.getAllEvents)
	known.GET("/outages", a.getOutages)
	known.GET("/dead-letters", a.getLetters)
	known.GET("/dead-letters/:id", a.plain, a.getLetter)
	known.GET("/trust", a.plain, a.getTrust)
	known.GET("/ledger", a.plain, a.getLedger)
	reading := known.Group("/projects/:name", a.requireRead)
	reading.GET("", a.plain, a.getProject)
	reading.GET("/events", a.getEvents)

	// A page of another origin must not use the credentials that a browser keeps; who may not change a project must not keep
	// a connection for longer than others.
	changing := router.Group("/api/v1/projects/:name", a.sameOrigin, a.within(a.cfg.ChangeTimeout), a.authenticate, a.requireChange, a.plain, a.patient)
	changing.PUT("", a.putProject)
	changing.DELETE("", a.deleteProject)
	changing.POST("/sweep", a.postSweep)
	changing.POST("/webhook-secret", a.postWebhookSecret)
	changing.PUT("/blocks/:digest", a.putBlock)
	changing.DELETE("/blocks/:digest", a.deleteBlock)

	// Verifying changes nothing, and costs signers and Harbor something all the same.
	verifying := router.Group("/api/v1/verify", a.sameOrigin, a.within(a.cfg.ChangeTimeout), a.authenticate, a.plain, a.patient)
	verifying.POST("", a.postVerify)

	// Whose letter it is, and so who may touch it, is known when it is read.
	mending := router.Group("/api/v1/dead-letters/:id", a.sameOrigin, a.within(a.cfg.Timeout), a.authenticate, a.plain)
	mending.POST("/replay", a.postReplay)
	mending.DELETE("", a.deleteLetter)

	a.registerStatus(router)
	a.registerExport(router)
}

// within ends the work for a request in time.
func (a *API) within(limit time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx, cancel := context.WithTimeout(c.Request.Context(), limit)
		defer cancel()
		c.Request = c.Request.WithContext(ctx)
		c.Next()
	}
}

// patient gives a change the time that it needs: the server's own limit for writing an answer is for those that take none.
func (a *API) patient(c *gin.Context) {
	// A connection without deadlines, as in a test, needs none to be moved.
	_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(a.cfg.ChangeTimeout + answerWithin))
}

// plain refuses parameters where there are none.
func (a *API) plain(c *gin.Context) {
	if err := (parameters{}).read(c.Request.URL.RawQuery); err != nil {
		a.refuse(c, err)
	}
}

// answer writes a value as JSON. What HTML could take for its own is escaped, and what does not print: people read it at terminals.
func (a *API) answer(c *gin.Context, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		a.refuse(c, fault.New(fault.Permanent, fault.Malformed, err))
		return
	}
	c.Header("Cache-Control", "no-store")
	write(c, status, body)
}

func write(c *gin.Context, status int, body []byte) {
	c.Header("X-Content-Type-Options", "nosniff")
	c.Data(status, "application/json; charset=utf-8", printable.JSON(body))
}
