package httpserver

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// certificate gives the pair in two files, and reads it again when a file changes. Safe for concurrent use.
type certificate struct {
	files    TLS
	logger   zerolog.Logger
	failures prometheus.Counter

	mu      sync.Mutex
	current *tls.Certificate // the last pair that fitted; never nil after newCertificate; guarded by mu
	tried   [2]fs.FileInfo   // the files when they were last read, or nil for one that was not there; guarded by mu
	failing bool             // the last try failed: try again without waiting for a change, but say so once; guarded by mu
}

func newCertificate(files TLS, logger zerolog.Logger) (*certificate, error) {
	c := &certificate{
		files:  files,
		logger: logger,
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_tls_reload_failures_total",
			Help: "Times that a changed certificate or key could not be used; the last good pair is served meanwhile.",
		}),
	}
	c.tried = c.look()
	pair, err := c.load()
	if err != nil {
		return nil, err
	}
	c.current = pair
	return c, nil
}

func (c *certificate) register(registerer prometheus.Registerer, name string) error {
	if registerer == nil {
		return nil
	}
	registerer = prometheus.WrapRegistererWith(prometheus.Labels{"listener": name}, registerer)
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "harborseal_tls_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that is served ends, in seconds since 1970.",
	}, func() float64 { return float64(c.refreshed().Leaf.NotAfter.Unix()) })
	for _, collector := range []prometheus.Collector{expiry, c.failures} {
		if err := registerer.Register(collector); err != nil {
			return fmt.Errorf("registering the metrics of the certificate: %w", err)
		}
	}
	return nil
}

// get is a tls.Config.GetCertificate. Two stat calls are nothing beside a handshake.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.refreshed(), nil }

// refreshed reads the pair again if a file changed since the last try. The two files are seldom replaced at the same
// instant: between them the pair does not fit, and the last good one is served until the second change.
func (c *certificate) refreshed() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Looked at before reading: a change between the two is seen at the next look.
	now := c.look()
	changed := !same(c.tried[0], now[0]) || !same(c.tried[1], now[1])
	if !changed && !c.failing {
		return c.current
	}
	pair, err := c.load()
	c.tried, c.failing = now, err != nil
	if err != nil {
		if changed {
			c.failures.Inc()
			c.logger.Error().Err(err).Msg("changed TLS certificate cannot be used, the last good one is served")
		}
		return c.current
	}
	c.current = pair
	c.logger.Info().Str("cert_file", c.files.CertFile).Time("not_after", pair.Leaf.NotAfter).Msg("TLS certificate was read again")
	return pair
}

func (c *certificate) look() [2]fs.FileInfo {
	var infos [2]fs.FileInfo
	for i, path := range []string{c.files.CertFile, c.files.KeyFile} {
		// A file that is not there is a state like others; reading it says why.
		if info, err := os.Stat(path); err == nil {
			infos[i] = info
		}
	}
	return infos
}

func (c *certificate) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s and key %s: %w", c.files.CertFile, c.files.KeyFile, err)
	}
	return &pair, nil
}

func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
