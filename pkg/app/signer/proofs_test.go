package signer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

// root gives the certificate of an authority in PEM.
func root(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// TestASlowAuthorityStaysOpenForThoseWhoWait: projects that can do without a timestamp give up early, and soon do not ask any more.
// Those that cannot are not stopped by that.
func TestASlowAuthorityStaysOpenForThoseWhoWait(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	}))
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	const timeout = time.Second
	authority, err := tsa.New(tsa.Config{Name: "slow", URL: server.URL, Chain: root(t), Transport: transport, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	breaker, err := dependency.NewBreaker(dependency.BreakerConfig{Name: "timestamp_authority/slow", Pause: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	guarded, err := signer.NewGuardedAuthority(authority, timeout, breaker)
	if err != nil {
		t.Fatal(err)
	}
	stamp := func(patience time.Duration) fault.Reason {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, _, err := guarded.Stamp(ctx, artifact.Signature{Bytes: []byte("signature")})
		if err == nil {
			t.Fatal("a timestamp of a server that gives none")
		}
		return fault.Of(err).Reason
	}
	for range 20 {
		stamp(20 * time.Millisecond)
	}
	if n := asked.Load(); n > 5 {
		t.Errorf("%d requests by those who do not wait, want at most 5 before it is left alone", n)
	}
	if !breaker.Ready() {
		t.Error("closed to those who wait as long as it may take")
	}
	for range 5 {
		if got := stamp(time.Minute); got != fault.Timeout {
			t.Errorf("who waits got %q, want an attempt that takes too long", got)
		}
	}
	if breaker.Ready() || stamp(time.Minute) != fault.DependencyDown || stamp(20*time.Millisecond) != fault.DependencyDown {
		t.Error("open to everybody, want it closed after it took too long for all")
	}
}

// TestAQueueThatIsAwayAtTheStart is seen, though a signer waits for it before it does anything else.
func TestAQueueThatIsAwayAtTheStart(t *testing.T) {
	s := newSite(t)
	s.write(t, "signer.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {url: %q, username: "robot$harborseal", secret_file: robot}
keys: [{name: k, file: k.key, password_file: key.pw}]
queue: {urls: ["nats://127.0.0.1:1"], username: signer, password_file: queue.pw}
`, s.harbor.URL()))
	cfg, err := config.LoadSigner(filepath.Join(s.dir, "signer.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := signer.New(t.Context(), cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, "signer", a.Run)
	metrics := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.OpsAddr().String()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client.Do(req)
		if err != nil {
			return ""
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			return ""
		}
		return string(raw)
	}
	waitFor(t, "the outage of the queue", func() bool {
		return strings.Contains(metrics(), `harborseal_dependency_failures_total{cause="refused",dependency="queue"} 1`)
	})
	waitFor(t, "the others to be seen", func() bool { return strings.Contains(metrics(), `harborseal_dependency_up{dependency="harbor_api"} 1`) })
	if strings.Contains(metrics(), `harborseal_dependency_up{dependency="token_rights"}`) {
		t.Error("the rights in projects were judged, want nothing before a project is known")
	}
	stop()
}

// TestAKMSThatIsAway holds what it has to sign. A debt for which the signature is there needs the log alone.
func TestAKMSThatIsAway(t *testing.T) {
	kms, err := dependency.NewBreaker(dependency.BreakerConfig{Name: "kms/k", Failures: 1, Pause: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	away := fault.Newf(fault.Transient, fault.Unreachable, "away")
	if err := kms.Do(t.Context(), func(context.Context) error { return away }); err == nil {
		t.Fatal("no error")
	}
	for _, tt := range []struct {
		format policy.Format
		lane   artifact.Lane
		want   bool
	}{
		{policy.FormatLegacy, artifact.Live, true},
		{policy.FormatLegacy, artifact.Debt, false},
		{policy.FormatBundle, artifact.Debt, false},
		{policy.FormatBoth, artifact.Debt, true}, // whose bundle is still to be signed
		{policy.FormatAuto, artifact.Debt, true},
	} {
		terms := policy.Terms{Key: "k", Format: tt.format, Transparency: policy.TransparencyDeferred}
		if got := signer.Lacks(kms, terms, tt.lane); got != tt.want {
			t.Errorf("%s, %s: held %t, want %t", tt.format, tt.lane, got, tt.want)
		}
	}
}
