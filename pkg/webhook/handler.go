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
	budgets *budgets
	metrics *metrics
}

// New validates cfg and reads the secret files.
func New(cfg Config) (*Handler, error) {
	cfg = cfg.withDefaults()
	auth, err := newAuthenticator(cfg.SecretFiles, cfg.Secrets, cfg.Logger)
	if err := errors.Join(cfg.validate(), err); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Handler{cfg: cfg, auth: auth, budgets: newBudgets(cfg.Rate), metrics: m}, nil
}

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
	delivery, refused := h.read(c, project)
	if refused == nil {
		var answer Answer
		if answer, refused = h.handle(c.Request.Context(), project, delivery); refused == nil {
			result = outcome(answer.Status)
			c.JSON(http.StatusAccepted, answer)
			return
		}
	}
	result = refused.outcome
	h.refuse(c, project, refused)
}

// read does everything up to a valid delivery. The order matters: nothing of the body is touched for a stranger.
func (h *Handler) read(c *gin.Context, project string) (Delivery, *refusal) {
	if refused := h.admit(c, project); refused != nil {
		return Delivery{}, refused
	}
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
	body, refused := h.readBody(c)
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

func (h *Handler) readBody(c *gin.Context) ([]byte, *refusal) {
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
	// By the clock of the machine, as the deadline is the connection's. net/http lifts it when the body was read to its end. A
	// connection that has none is let be.
	err := http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(bodyTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.cfg.Logger.Warn().Err(err).Msg("no deadline could be set for a webhook's body")
	}
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
			problem: problem.Document{Status: http.StatusRequestTimeout, Detail: fmt.Sprintf("The body did not arrive within %s.", bodyTimeout)},
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

func (h *Handler) refuse(c *gin.Context, project string, r *refusal) {
	for name, value := range r.header {
		c.Header(name, value)
	}
	// Without this, net/http would read the rest of an unread body before it sends the answer, at the pace of whoever sends.
	if slices.Contains([]outcome{unauthorized, unsupported, tooLarge, tooSlow}, r.outcome) || r.unread {
		c.Header("Connection", "close")
	}
	problem.Abort(c, r.problem)
	level := zerolog.WarnLevel
	if r.outcome == unavailable {
		level = zerolog.ErrorLevel
	}
	h.cfg.Logger.WithLevel(level).Err(r.cause).Str("project", bounded(project, maxPusher)).Str("repository", r.ref.Repository()).
		Str("digest", r.ref.Digest()).Str("outcome", string(r.outcome)).Str("reason", r.reason).Str("field", r.problem.Field).
		Int("status", r.problem.Status).Str("remote", c.ClientIP()).Msg("webhook refused")
}

// unavailableRefusal asks Harbor to repeat the delivery.
func unavailableRefusal(ref artifact.Ref, detail string, cause error) *refusal {
	return &refusal{
		outcome: unavailable,
		header:  map[string]string{"Retry-After": retryAfter},
		problem: problem.Document{Status: http.StatusServiceUnavailable, Detail: detail},
		cause:   cause,
		reason:  string(fault.Of(cause).Reason),
		ref:     ref,
	}
}

// deadline bounds what is asked of others for one delivery. It outlives the client on purpose: when Harbor hangs up between
// the two publications, the request should still follow the event, because Harbor may not come again.
func (h *Handler) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), h.cfg.PublishTimeout)
}
