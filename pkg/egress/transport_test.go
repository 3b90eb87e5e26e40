package egress_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/egress"
)

// secure starts a server, and gives it with a file of its certificate.
func secure(t *testing.T, maxVersion uint16) (s *httptest.Server, caFile string) {
	t.Helper()
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Protocol", r.Proto)
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: maxVersion} //nolint:gosec // an old server is what is tested
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(caFile, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, caFile
}

// get gives the protocol that was spoken.
func get(t *testing.T, d *egress.Dialer, caFile, address string) (string, error) {
	t.Helper()
	transport, err := egress.NewTransport(d, caFile)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	_ = response.Body.Close()
	return response.Header.Get("Protocol"), nil
}

func TestTransport(t *testing.T) {
	s, caFile := secure(t, tls.VersionTLS13)
	var record bytes.Buffer
	d, err := egress.NewDialer(egress.Config{Record: &record})
	if err != nil {
		t.Fatal(err)
	}
	if protocol, err := get(t, d, caFile, s.URL); err != nil || protocol != "HTTP/2.0" {
		t.Errorf("got %q (%v), want HTTP/2.0", protocol, err)
	}
	if got, want := addresses(parse(t, record.Bytes())), s.Listener.Addr().String(); !slices.Equal(got, []string{want}) {
		t.Errorf("got %q in the record, want %q", got, want)
	}
	if _, err := get(t, d, "", s.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that nobody named: got %v, want it refused", err)
	}
}

func TestTransportRefusesOldTLS(t *testing.T) {
	s, caFile := secure(t, tls.VersionTLS11)
	if _, err := get(t, new(egress.Dialer), caFile, s.URL); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: got %v, want it refused", err)
	}
}

func TestTransportAsksForAProxy(t *testing.T) {
	transport, err := egress.NewTransport(new(egress.Dialer), "")
	if err != nil {
		t.Fatal(err)
	}
	if transport.Proxy == nil {
		t.Error("got no function that knows the proxies")
	}
}

func TestAuthoritiesThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if _, err := egress.NewTransport(new(egress.Dialer), file); err == nil || !strings.HasPrefix(err.Error(), "reading the authorities: ") {
		t.Errorf("no file: got %v, want one that says so", err)
	}
	if err := os.WriteFile(file, []byte("Hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := egress.NewTransport(new(egress.Dialer), file)
	if want := "reading the authorities in " + file + ": no certificate in PEM form"; err == nil || err.Error() != want {
		t.Errorf("no PEM: got %v, want %s", err, want)
	}
}
