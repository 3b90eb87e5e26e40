package harbor_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
)

// TestCertificates says what to do about a certificate that does not verify.
func TestCertificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	for name, tt := range map[string]struct {
		change func(*http.Transport)
		want   string
	}{
		"an authority that is not trusted": {func(*http.Transport) {}, `the authority "O=Acme Co" is not trusted`},
		"another name": {func(transport *http.Transport) {
			transport.TLSClientConfig = &tls.Config{RootCAs: trusted, ServerName: "harbor.example.org", MinVersion: tls.VersionTLS12}
		}, "it is for example.com, *.example.com, 127.0.0.1"},
	} {
		c := newClient(t, server.URL, "s3cr3t", func(cfg *harbor.Config) {
			transport := &http.Transport{DisableKeepAlives: true}
			tt.change(transport)
			cfg.Transport = transport
		})
		_, err := c.AllProjects(t.Context())
		if !fault.Is(err, fault.Transient) || fault.Of(err).Reason != fault.Unreachable || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a transient fault with %q", name, err, tt.want)
		}
	}
}
