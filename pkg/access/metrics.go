package access

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// scheme is how somebody tries to get in, a closed set.
type scheme string

const (
	schemeNone    scheme = "none"
	schemeBasic   scheme = "basic"
	schemeToken   scheme = "api_token"
	schemeIDToken scheme = "id_token"
)

type metrics struct {
	logins *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{logins: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "harborseal_access_requests_total",
		Help: "Requests that were to be authenticated, by what they brought and by what became of it: accepted, refused, throttled, unavailable.",
	}, []string{"scheme", "outcome"})}
	if reg == nil {
		return m, nil
	}
	return m, reg.Register(m.logins)
}

func (m *metrics) login(by scheme, err error) {
	outcome := "unavailable"
	var slow *ThrottledError
	switch {
	case err == nil:
		outcome = "accepted"
	case errors.As(err, &slow):
		outcome = "throttled"
	case errors.Is(err, ErrUnauthenticated):
		outcome = "refused"
	}
	m.logins.WithLabelValues(string(by), outcome).Inc()
}
