package tsa

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
)

// connectionFault is the fault of a request without a whole answer. One that is a fault already comes from the transport,
// such as a breaker, and stays what it is.
func (a *Authority) connectionFault(err error) error {
	_, known := errors.AsType[*fault.Error](err)
	switch {
	case known, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Transient, fault.Timeout, err)
	default:
		return fault.New(fault.Transient, fault.Unreachable, redact.New().Error(egress.WithCertificate(err, a.url.Hostname()), maxText))
	}
}

// statusFault is the table of answers that are no success. None is permanent: a request is nothing but a hash, so that a
// refusal means the configuration, and no digest is to be given up for it.
func (a *Authority) statusFault(resp *http.Response, body []byte) error {
	err := fmt.Errorf("status %d", resp.StatusCode)
	if text := redact.New().Text(string(body), maxText/2); text != "" && isText(resp.Header) {
		err = fmt.Errorf("%w: %s", err, text)
	}
	after := fault.RetryAfter(resp.Header, a.now())
	switch code := resp.StatusCode; {
	case code/100 == 3:
		return fault.Newf(fault.Transient, fault.ForeignOrigin, "%w, a redirect, which is not followed: set the authority's url to its own address", err)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fault.Newf(fault.Transient, fault.Unauthorized, "%w: the authority wants to know who asks, and this client has nothing to show", err)
	case code == http.StatusProxyAuthRequired:
		return fault.Newf(fault.Transient, fault.Unreachable, "%w: a proxy on the way asks for credentials", err)
	case code == http.StatusRequestTimeout:
		return fault.New(fault.Transient, fault.Timeout, err)
	case code == http.StatusTooManyRequests:
		return fault.After(after, fault.RateLimited, err)
	case code >= http.StatusInternalServerError:
		return fault.After(after, fault.Unavailable, err)
	case code == http.StatusBadRequest, code == http.StatusUnsupportedMediaType, code == http.StatusUnprocessableEntity:
		return fault.New(fault.Transient, fault.Rejected, err)
	default:
		return fault.Newf(fault.Transient, fault.BadAnswer, "%w: no answer of a timestamp authority: check the path in its url", err)
	}
}

// isText says whether an answer is made for people. The pages that proxies answer with are left out: they say nothing.
func isText(header http.Header) bool {
	kind := header.Get("Content-Type")
	return strings.HasPrefix(kind, "text/plain") || strings.HasPrefix(kind, "application/json")
}

// SPEC: RFC 3161, section 2.4.2.
const (
	statusGranted         = 0
	statusGrantedWithMods = 1
	statusWaiting         = 3

	failureTimeNotAvailable = 14
	failureSystem           = 25
)

type timeStampResp struct {
	Status struct {
		Status  int
		Text    []asn1.RawValue `asn1:"optional"`
		Failure asn1.BitString  `asn1:"optional"`
	}
	Token asn1.RawValue `asn1:"optional"`
}

// checkStatus tells a refusal in the authority's own words from what is no answer of one.
func checkStatus(response []byte) error {
	var answer timeStampResp
	rest, err := asn1.Unmarshal(response, &answer)
	if err != nil || len(rest) > 0 {
		return fault.New(fault.Transient, fault.BadAnswer, errors.New("the answer is no timestamp response: check the path in the authority's url"))
	}
	status := answer.Status
	if status.Status == statusGranted {
		return nil
	}
	var words []string
	for _, t := range status.Text {
		words = append(words, string(t.Bytes))
	}
	refusal := fmt.Errorf("it refuses with PKI status %d: %s", status.Status, redact.New().Text(strings.Join(words, ", "), maxText/2))
	switch {
	case status.Status == statusWaiting, status.Failure.At(failureTimeNotAvailable) == 1, status.Failure.At(failureSystem) == 1:
		return fault.New(fault.Transient, fault.Unavailable, refusal)
	case status.Status == statusGrantedWithMods:
		// Verifiers accept none but what was granted as it was asked for.
		return fault.Newf(fault.Transient, fault.ProofInvalid, "it has changed what was asked for, and verifiers refuse that")
	default:
		return fault.New(fault.Transient, fault.Rejected, refusal)
	}
}

func newMetrics(reg prometheus.Registerer, name string) *prometheus.HistogramVec {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "harborseal_timestamp_request_seconds", Help: "Time of requests to a timestamp authority, verification included, by outcome.",
		Buckets:     prometheus.ExponentialBuckets(0.001, 2, 15),
		ConstLabels: prometheus.Labels{"authority": name},
	}, []string{"outcome"})
	if reg != nil {
		reg.MustRegister(seconds)
	}
	return seconds
}

func observe(seconds *prometheus.HistogramVec, started time.Time, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	seconds.WithLabelValues(outcome).Observe(time.Since(started).Seconds())
}
