package fulcio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
)

// maxText is how much of another side's words an error repeats, in bytes.
const maxText = 512

// clean makes an error about what came from outside fit to be read.
func clean(err error) error { return redact.New().Error(err, maxText) }

// connectionFault is the fault of a request without a whole answer. One that is a fault already comes from the transport,
// such as a breaker, and stays what it is.
func connectionFault(err error, host string, redactor *redact.Redactor) error {
	_, known := errors.AsType[*fault.Error](err)
	switch {
	case known, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Transient, fault.Timeout, err)
	default:
		return fault.New(fault.Transient, fault.Unreachable, redactor.Error(egress.WithCertificate(err, host), maxText))
	}
}

// statusFault is the table of answers that are no success. None is permanent: whether Fulcio likes the token is no matter of a
// digest, and none is to be given up for it.
//
// SPEC: Fulcio answers 400 to a token that it refuses, and also where it could not ask the token's issuer for its keys.
func statusFault(resp *http.Response, body []byte, now time.Time, redactor *redact.Redactor) error {
	words := wordsOf(body)
	err := fmt.Errorf("status %d", resp.StatusCode)
	if text := redactor.Text(words, maxText/2); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	after := fault.RetryAfter(resp.Header, now)
	switch code := resp.StatusCode; {
	case code/100 == 3:
		return fault.Newf(fault.Transient, fault.ForeignOrigin, "%w, a redirect, which is not followed: set the url to Fulcio's own address", err)
	case code == http.StatusProxyAuthRequired:
		return fault.Newf(fault.Transient, fault.Unreachable, "%w: a proxy on the way asks for credentials", err)
	case code == http.StatusRequestTimeout:
		return fault.New(fault.Transient, fault.Timeout, err)
	case code == http.StatusTooManyRequests:
		return fault.After(after, fault.RateLimited, err)
	case code >= http.StatusInternalServerError:
		return fault.After(after, fault.Unavailable, err)
	case words == "", code == http.StatusNotFound:
		return fault.Newf(fault.Transient, fault.BadAnswer, "%w: not in Fulcio's words: check the url, and look for a proxy on the way", err)
	case code == http.StatusBadRequest, code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fault.Newf(fault.Transient, fault.Unauthorized,
			"%w: check that Fulcio knows the token's issuer and reaches it, and that the token's audience is the one that it asks for", err)
	default:
		return fault.New(fault.Transient, fault.Rejected, err)
	}
}

// wordsOf gives the message of an error in Fulcio's words; empty if they are somebody else's.
//
// SPEC: google.rpc.Status in JSON.
func wordsOf(body []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &status) != nil {
		return ""
	}
	return status.Message
}

type metrics struct{ seconds *prometheus.HistogramVec }

func newMetrics(reg prometheus.Registerer, key string) *metrics {
	m := &metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "harborseal_certificate_request_seconds", Help: "Time of requests to Fulcio for a certificate, verification included, by outcome.",
		Buckets:     prometheus.ExponentialBuckets(0.001, 2, 15),
		ConstLabels: prometheus.Labels{"key": key},
	}, []string{"outcome"})}
	if reg != nil {
		reg.MustRegister(m.seconds)
	}
	return m
}

func (m *metrics) observe(started time.Time, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.seconds.WithLabelValues(outcome).Observe(time.Since(started).Seconds())
}
