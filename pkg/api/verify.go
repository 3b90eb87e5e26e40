package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/status"
)

const (
	// verifying is how many images are verified at once, and verifyingEach how many of them for one caller. As much evidence is collected.
	verifying     = 16
	verifyingEach = 4
	// answerMargin is what is kept of the time for a verification to write its answer.
	answerMargin = 2 * time.Second
)

// images says what holds of images in the registry at this moment: see package inspect, whose Client it is. It is safe for
// concurrent use. The errors are faults: one of kind Gone says that there is no such manifest, a transient one that no
// signer could tell.
type images interface {
	Verify(ctx context.Context, q inspect.Question) (inspect.Result, error)
	Evidence(ctx context.Context, ref artifact.Ref) (inspect.Report, error)
}

// verifyRequest is the body of POST /api/v1/verify.
type verifyRequest struct {
	Image   string            `json:"image"`
	Formats []artifact.Format `json:"formats,omitempty"`
	Key     string            `json:"key,omitempty"`
}

// verifyAnswer is the body of its answer. Image names what was looked at by its digest, and Tag is the one that it was found by.
type verifyAnswer struct {
	Image string `json:"image"`
	Tag   string `json:"tag"`
	inspect.Result
}

func (a *API) postVerify(c *gin.Context) {
	var request verifyRequest
	if err := body(c, &request); err != nil {
		a.refuse(c, err)
		return
	}
	q, tag, err := a.question(request)
	if err == nil {
		err = a.mayPull(c, q.Repository)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	leave, ok := a.verifying.enter(caller(c).Actor())
	if !ok {
		wait(c, retryAfter)
		problem.Abort(c, problem.Document{Status: http.StatusTooManyRequests, Detail: "too many images are being verified for you at once: try again when one of them is answered"})
		return
	}
	defer leave()
	result, err := a.verify(c.Request.Context(), q)
	if err != nil {
		a.refuseImage(c, err)
		return
	}
	image := status.Image{Repository: q.Repository, Digest: result.Manifests[0].Digest}
	project, _, _ := strings.Cut(q.Repository, "/")
	a.seen(c, project, image.At(a.cfg.Registry))
	a.answer(c, http.StatusOK, verifyAnswer{Image: image.At(a.cfg.Registry), Tag: tag, Result: result})
}

// question reads the body. Nothing of it is dialled: the image is one of the configured registry, or it is refused.
func (a *API) question(request verifyRequest) (q inspect.Question, tag string, err error) {
	image, err := status.ParseImage(a.cfg.Registry, request.Image)
	if err != nil {
		return inspect.Question{}, "", wrong("image", err.Error())
	}
	q = inspect.Question{Repository: image.Repository, Reference: image.Digest, Formats: request.Formats, Key: request.Key}
	if q.Reference == "" {
		q.Reference, tag = image.Tag, image.Tag
	}
	return q, tag, q.Validate()
}

// seen records what the caller is shown. An image that does not stand in the path is told as a parameter.
func (a *API) seen(c *gin.Context, project, image string) {
	if a.cfg.Reads == nil {
		return
	}
	shown := reading(c, project)
	if image != "" {
		shown.Parameters = url.Values{"image": {image}}
	}
	a.cfg.Reads.Read(shown)
}

// mayPull refuses who may not pull from a repository as if there were none.
func (a *API) mayPull(c *gin.Context, repository string) error {
	may, err := a.cfg.Access.CanPull(c.Request.Context(), caller(c), repository)
	if err == nil && !may {
		err = access.ErrNotFound
	}
	return err
}

// verify leaves time to tell what was seen until the end.
func (a *API) verify(ctx context.Context, q inspect.Question) (inspect.Result, error) {
	if a.cfg.Images == nil {
		return inspect.Result{}, errNobodyAsked()
	}
	if end, bounded := ctx.Deadline(); bounded {
		looking, cancel := context.WithDeadline(ctx, end.Add(-min(answerMargin, time.Until(end)/2)))
		defer cancel()
		ctx = looking
	}
	return a.cfg.Images.Verify(ctx, q)
}

func errNobodyAsked() error {
	return fault.Newf(fault.Transient, fault.QueueUnavailable, "this receiver asks no signer")
}

// refuseImage answers with what a signer's error about an image means.
func (a *API) refuseImage(c *gin.Context, err error) {
	f := fault.Of(err)
	if f.Kind != fault.Transient || f.Reason != fault.QueueUnavailable && f.Reason != fault.Timeout || errors.Is(err, context.Canceled) {
		a.refuse(c, err)
		return
	}
	a.logger.Warn().Err(err).Msg("no signer says what holds of an image")
	wait(c, max(retryAfter, f.RetryAfter))
	problem.Abort(c, problem.Document{
		Status: http.StatusServiceUnavailable, Detail: "no signer has answered, and only they have what signatures are verified with: try again later",
	})
}

// places bounds what is done at once, in all and for each caller.
type places struct {
	total, each int

	mu     sync.Mutex
	taken  int            // guarded by mu
	taking map[string]int // guarded by mu; by caller, none of them 0
}

// enter gives a place, to be left, or says that there is none.
func (p *places) enter(who string) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.total || p.taking[who] >= p.each {
		return nil, false
	}
	p.taken++
	p.taking[who]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken--
		if p.taking[who]--; p.taking[who] == 0 {
			delete(p.taking, who)
		}
	}, true
}
