package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/problem"
)

// Handler answers deliveries. It is safe for concurrent use, starts no goroutine and has nothing to close.
type Handler struct {
	cfg     Config
	auth    *authenticator
	door    *Door
	metrics *metrics
	// What is in hand, and those whose secret is being looked at.
	inHand    *inHand
	strangers strangers
	quiet     *quiet
}

// New validates cfg and reads the secret files.
func New(cfg Config) (*Handler, error) {
	cfg = cfg.withDefaults()
	auth, err := newAuthenticator(cfg.SecretFiles, cfg.Secrets, cfg.Logger)
	if err := errors.Join(cfg.validate(), err); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	h := &Handler{
		cfg: cfg, auth: auth, door: newDoor(cfg), strangers: make(strangers, maxStrangers), quiet: &quiet{},
		inHand: newInHand(limits{cfg.MaxInHand, cfg.MaxPerProject}, limits{cfg.MaxWaiting, cfg.MaxWaitingPerProject}, maxWait),
	}
	if h.metrics, err = newMetrics(cfg.Registerer, h.inHand.counts, h.door.gate.isShut); err != nil {
		return nil, err
	}
	h.door.metrics = h.metrics
	return h, nil
}

// Door is the one that deliveries come in by, for those who ask by other ways.
func (h *Handler) Door() *Door { return h.door }

// Register adds POST /webhooks/harbor/:project.
func (h *Handler) Register(r gin.IRouter) {
	r.POST("/webhooks/harbor/:project", h.serve)
}

// Answer is the body of every 202.
type Answer struct {
	// Status is "queued", "duplicate" (a request for the same manifest waits already) or "ignored".
	Status string `json:"status"`
	// Reason says why a delivery was ignored; it is a policy.Reason.
	Reason string `json:"reason,omitempty"`
	// CorrelationID joins all records of this push; it is there unless the delivery was ignored.
	CorrelationID string `json:"correlation_id,omitempty"`
	// Artifacts has one entry for each manifest if the delivery named several, which Harbor does not do.
	Artifacts []ArtifactAnswer `json:"artifacts,omitempty"`
}

// ArtifactAnswer is the decision for one of several manifests.
type ArtifactAnswer struct {
	Digest        string `json:"digest"`
	Status        string `json:"status"`
	Reason        string `json:"reason,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
}

// refusal is an answer other than 202.
type refusal struct {
	outcome outcome
	header  map[string]string
	problem problem.Document
	// unread says that nothing of the body was read.
	unread bool
	// For the log alone.
	cause  error
	reason string
	ref    artifact.Ref
}

func (h *Handler) serve(c *gin.Context) {
	start := h.cfg.Now()
	result := crashed
	// Deferred, so that a panic is counted here too before the engine's recovery answers it.
	defer func() {
		h.metrics.requests.WithLabelValues(string(result)).Inc()
		h.metrics.seconds.Observe(h.cfg.Now().Sub(start).Seconds())
	}()

	project := c.Param("project")
	answer, refused := h.answer(c, project)
	if refused != nil {
		result = refused.outcome
		h.refuse(c, project, refused)
		return
	}
	result = outcome(answer.Status)
	c.JSON(http.StatusAccepted, answer)
}

// answer does everything but write the answer. The order matters: nothing of the body is touched for a stranger, and nothing
// is kept of a delivery that waits, or is beyond the limits.
func (h *Handler) answer(c *gin.Context, project string) (Answer, *refusal) {
	arrived := time.Now() // by the clock of the machine, as the deadlines of connections are
	if refused := h.admit(c, project); refused != nil {
		return Answer{}, refused
	}
	if b := h.inHand.enter(c.Request.Context(), project); b != unbounded {
		refused := h.busyRefusal(b)
		refused.unread = !h.discardBody(c)
		return Answer{}, refused
	}
	defer h.inHand.leave(project)
	delivery, refused := h.read(c, project, max(bodyTimeout-time.Since(arrived), lateBodyTimeout))
	if refused != nil {
		return Answer{}, refused
	}
	// It outlives the client on purpose: when Harbor hangs up between the two publications, the request should still follow the
	// event, because Harbor may not come again.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(c.Request.Context()), arrived.Add(answerTimeout))
	defer cancel()
	return h.handle(ctx, project, delivery)
}

// read gives the delivery if it is valid, and comes within the timeout.
func (h *Handler) read(c *gin.Context, project string, timeout time.Duration) (Delivery, *refusal) {
	format, ok := formatOf(c.Request.Header)
	if !ok {
		return Delivery{}, &refusal{
			outcome: unsupported,
			problem: problem.Document{
				Status: http.StatusUnsupportedMediaType,
				Detail: "Want application/json (Harbor's Default format) or application/cloudevents+json, not encoded.",
			},
		}
	}
	body, refused := h.readBody(c, timeout)
	if refused != nil {
		return Delivery{}, refused
	}
	delivery, err := Decode(format, body)
	if err != nil {
		doc := problem.Document{Status: http.StatusBadRequest, Detail: err.Error()}
		if wrong, ok := errors.AsType[*FieldError](err); ok {
			doc.Field, doc.Detail = wrong.Field, wrong.Error()
		}
		return Delivery{}, &refusal{outcome: invalid, problem: doc, cause: err}
	}
	if len(delivery.Pushes) > 0 && delivery.Project != project {
		err := fmt.Errorf("the path names project %.64q, the body %.64q", project, delivery.Project)
		return Delivery{}, &refusal{
			outcome: invalid,
			problem: problem.Document{Status: http.StatusBadRequest, Field: namespaceField(format), Detail: err.Error() + ": each Harbor project has its own address here."},
			cause:   err,
		}
	}
	return delivery, nil
}

// admit lets in who knows a secret that counts for the project of the path. The answer to a stranger is the same whether
// there is such a project or not.
func (h *Handler) admit(c *gin.Context, project string) *refusal {
	ctx, cancel := context.WithTimeout(c.Request.Context(), secretsTimeout)
	defer cancel()
	if !h.strangers.enter(ctx) {
		refused := h.busyRefusal(unauthenticated)
		refused.unread = true
		return refused
	}
	defer h.strangers.leave()
	allowed, err := h.auth.allows(ctx, project, c.Request.Header)
	switch {
	case err != nil:
		refused := unavailableRefusal(artifact.Ref{}, "The secrets of the projects are not loaded.", fmt.Errorf("asking for the project's secrets: %w", err))
		refused.unread = true
		return refused
	case !allowed:
		return &refusal{
			outcome: unauthorized,
			header:  map[string]string{"WWW-Authenticate": `Bearer realm="harborseal"`},
			problem: problem.Document{
				Status: http.StatusUnauthorized,
				Detail: "The Authorization header is not one that counts for this project. It must equal the auth header of Harbor's webhook policy.",
			},
		}
	default:
		return nil
	}
}

func namespaceField(format Format) string {
	if format == CloudEvents {
		return "data.repository.namespace"
	}
	return "event_data.repository.namespace"
}

// formatOf reads the media type; its parameters, such as a charset, do not matter: JSON is UTF-8.
func formatOf(header http.Header) (Format, bool) {
	if encoding := header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return "", false
	}
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	switch {
	case err != nil:
		return "", false
	case mediaType == "application/json":
		return Default, true
	case mediaType == "application/cloudevents+json":
		return CloudEvents, true
	default:
		return "", false
	}
}

func (h *Handler) readBody(c *gin.Context, timeout time.Duration) ([]byte, *refusal) {
	large := &refusal{
		outcome: tooLarge,
		problem: problem.Document{
			Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("The body has more than %d bytes; Harbor's deliveries have less than 1,000.", h.cfg.MaxBody),
		},
	}
	if c.Request.ContentLength > h.cfg.MaxBody {
		return nil, large
	}
	h.limitBody(c, timeout)
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, h.cfg.MaxBody))
	_, tooMany := errors.AsType[*http.MaxBytesError](err)
	switch {
	case err == nil:
		return body, nil
	case tooMany:
		return nil, large
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &refusal{
			outcome: tooSlow,
			problem: problem.Document{Status: http.StatusRequestTimeout, Detail: "The body did not arrive in time."},
			cause:   err,
		}
	default:
		return nil, &refusal{
			outcome: invalid,
			problem: problem.Document{Status: http.StatusBadRequest, Detail: "The body could not be read to its end."},
			cause:   err,
		}
	}
}

// limitBody bounds the time in which the body has to come. It is by the clock of the machine, as the deadline is the
// connection's. net/http lifts it when the body was read to its end. A connection that has none is let be.
func (h *Handler) limitBody(c *gin.Context, timeout time.Duration) {
	err := http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(timeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.cfg.Logger.Warn().Err(err).Msg("no deadline could be set for a webhook's body")
	}
}

// discardBody says whether the rest of a body that nobody wants was there already and has been read: then the connection can
// take the next delivery, which is cheaper for both sides in a crowd than a new connection.
func (h *Handler) discardBody(c *gin.Context) bool {
	if c.Request.ContentLength > maxDiscarded {
		return false
	}
	h.limitBody(c, lateBodyTimeout)
	n, err := io.Copy(io.Discard, io.LimitReader(c.Request.Body, maxDiscarded))
	return err == nil && n < maxDiscarded
}

func (h *Handler) refuse(c *gin.Context, project string, r *refusal) {
	for name, value := range r.header {
		c.Header(name, value)
	}
	// Without this, net/http would read the rest of an unread body before it sends the answer, at the pace of whoever sends.
	if slices.Contains([]outcome{unauthorized, unsupported, tooLarge, tooSlow}, r.outcome) || r.unread {
		c.Header("Connection", "close")
	}
	problem.Abort(c, r.problem)
	untold := 0
	if r.outcome == busy || r.outcome == notTried {
		var tell bool
		if untold, tell = h.quiet.next(h.cfg.Now()); !tell {
			return
		}
	}
	level := zerolog.WarnLevel
	if r.outcome == unavailable {
		level = zerolog.ErrorLevel
	}
	h.cfg.Logger.WithLevel(level).Err(r.cause).Str("project", bounded(project, maxPusher)).Str("repository", r.ref.Repository()).
		Str("digest", r.ref.Digest()).Str("outcome", string(r.outcome)).Str("reason", r.reason).Str("field", r.problem.Field).
		Int("status", r.problem.Status).Int("untold", untold).Str("remote", c.ClientIP()).Msg("webhook refused")
}

// busyRefusal is the answer to a delivery that a limit forbids.
func (h *Handler) busyRefusal(b bound) *refusal {
	h.metrics.busy.WithLabelValues(string(b)).Inc()
	return &refusal{
		outcome: busy,
		header:  map[string]string{"Retry-After": retryBusy},
		problem: problem.Document{Status: http.StatusServiceUnavailable, Detail: "Too many deliveries are being answered."},
		reason:  string(b),
	}
}

// unavailableRefusal asks Harbor to repeat the delivery.
func unavailableRefusal(ref artifact.Ref, detail string, cause error) *refusal {
	return &refusal{
		outcome: unavailable,
		header:  map[string]string{"Retry-After": retryAfter(fault.Of(cause).Reason)},
		problem: problem.Document{Status: http.StatusServiceUnavailable, Detail: detail},
		cause:   cause,
		reason:  string(fault.Of(cause).Reason),
		ref:     ref,
	}
}

func retryAfter(reason fault.Reason) string {
	if reason == fault.QueueFull {
		return retryFull
	}
	return retryAway
}
