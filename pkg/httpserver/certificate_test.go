package httpserver_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/httpserver"
)

// serial makes a handshake and gives the serial number of the certificate that it was shown.
func serial(t *testing.T, s *httpserver.Server, maxVersion uint16) (int64, error) {
	t.Helper()
	dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the test looks at the certificate itself
		MinVersion:         tls.VersionTLS10, MaxVersion: maxVersion,
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil //nolint:errcheck // a tls.Dialer gives nothing else
}

func wantSerial(t *testing.T, when string, s *httpserver.Server, want int64) {
	t.Helper()
	if got, err := serial(t, s, tls.VersionTLS13); err != nil || got != want {
		t.Errorf("%s: serial number = %d, %v; want %d", when, got, err, want)
	}
}

func TestCertificatesRotate(t *testing.T) {
	first, second, third := newPair(t, 1), newPair(t, 2), newPair(t, 3)
	files := tlsFiles(t, first)
	log, registry := &output{}, prometheus.NewRegistry()
	s := serve(t, httpserver.Config{TLS: &files, Logger: zerolog.New(log), Registerer: registry})
	if !strings.HasPrefix(s.URL(), "https://127.0.0.1:") {
		t.Errorf("URL() = %q, want https", s.URL())
	}
	wantSerial(t, "at first", s, 1)

	replace(t, files.CertFile, second.cert)
	for range 3 {
		wantSerial(t, "between the two files", s, 1)
	}
	if got := strings.Count(log.String(), "cannot be used"); got != 1 {
		t.Errorf("%d lines say that the certificate cannot be used, want 1:\n%s", got, log)
	}
	replace(t, files.KeyFile, second.key)
	wantSerial(t, "after both", s, 2)

	replace(t, files.CertFile, []byte("garbage"))
	wantSerial(t, "with garbage", s, 2)
	if err := os.Remove(files.CertFile); err != nil {
		t.Fatal(err)
	}
	wantSerial(t, "with a removed file", s, 2)
	replace(t, files.KeyFile, third.key)
	wantSerial(t, "with the next key alone", s, 2)
	replace(t, files.CertFile, third.cert)
	wantSerial(t, "after both again", s, 3)

	want := `
# HELP harborseal_tls_certificate_expiry_timestamp_seconds When the certificate that is served ends, in seconds since 1970.
# TYPE harborseal_tls_certificate_expiry_timestamp_seconds gauge
harborseal_tls_certificate_expiry_timestamp_seconds{listener="test"} 4.000000003e+09
# HELP harborseal_tls_reload_failures_total Times that a changed certificate or key could not be used; the last good pair is served meanwhile.
# TYPE harborseal_tls_reload_failures_total counter
harborseal_tls_reload_failures_total{listener="test"} 4
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "harborseal_tls_certificate_expiry_timestamp_seconds", "harborseal_tls_reload_failures_total"); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "PRIVATE") {
		t.Errorf("the log holds a key:\n%s", log)
	}
}

// A try that failed is repeated though the files look as they did then: what kept them from being read (too many open
// files, say) leaves no trace on them.
func TestAFailedTryIsRepeated(t *testing.T) {
	files := tlsFiles(t, newPair(t, 1))
	s := serve(t, httpserver.Config{TLS: &files})
	next := newPair(t, 2)
	replace(t, files.CertFile, next.cert)
	wantSerial(t, "between the two files", s, 1)
	before, err := os.Stat(files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.KeyFile, next.key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(files.KeyFile, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(files.KeyFile); err != nil || after.Size() != before.Size() {
		t.Fatalf("the key files differ in size, so this test shows nothing: %v", err)
	}
	wantSerial(t, "after the repeated try", s, 2)
}

func TestTwoListenersOfOneNameAreRefused(t *testing.T) {
	files, registry := tlsFiles(t, newPair(t, 1)), prometheus.NewRegistry()
	cfg := httpserver.Config{Name: "public", Listen: "127.0.0.1:0", TLS: &files, Handler: http.NotFoundHandler(), Registerer: registry}
	for i, want := range []bool{true, false} {
		s, err := httpserver.New(cfg)
		if (err == nil) != want {
			t.Errorf("New() no. %d: error = %v, want success: %t", i+1, err, want)
		}
		if err == nil {
			t.Cleanup(func() { _ = s.Stop(context.Background()) })
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	files := tlsFiles(t, newPair(t, 1))
	log := &output{}
	s := serve(t, httpserver.Config{TLS: &files, Logger: zerolog.New(log)})
	if _, err := serial(t, s, tls.VersionTLS11); err == nil {
		t.Error("a handshake with TLS 1.1 succeeded, want it refused")
	}
	if _, err := serial(t, s, tls.VersionTLS12); err != nil {
		t.Errorf("a handshake with TLS 1.2: %v, want it accepted", err)
	}
}

func TestPlainHTTPOnATLSListener(t *testing.T) {
	files := tlsFiles(t, newPair(t, 1))
	conn := dial(t, serve(t, httpserver.Config{TLS: &files}))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") {
		t.Errorf("answer = %q, want a 400", answer)
	}
}
