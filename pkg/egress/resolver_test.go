package egress_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/egress"
)

func TestResolver(t *testing.T) {
	names, err := harness.StartDNS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close() //nolint:errcheck // only a test's
	const host = "rekor.example.test"
	names.Set(host, netip.MustParseAddr("127.0.0.1"))
	_, port, err := net.SplitHostPort(listen(t))
	if err != nil {
		t.Fatal(err)
	}
	var record bytes.Buffer
	d, err := egress.NewDialer(egress.Config{Resolver: names.Addr(), Record: &record})
	if err != nil {
		t.Fatal(err)
	}
	dial(t, d, host+":"+port)
	found, err := d.Lookup(t.Context(), host)
	if err != nil || !slices.ContainsFunc(found, func(a netip.Addr) bool { return a.Unmap() == netip.MustParseAddr("127.0.0.1") }) {
		t.Errorf("%v, %v; want 127.0.0.1", found, err)
	}
	if got, want := addresses(parse(t, record.Bytes())), []string{names.Addr(), host + ":" + port}; !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) || len(got) != 2 {
		t.Errorf("recorded %q, want %q", got, want)
	}
	// Nothing is remembered.
	names.Remove(host)
	var gone *net.DNSError
	if _, err := d.Lookup(t.Context(), host); !errors.As(err, &gone) || !gone.IsNotFound {
		t.Errorf("a name that went: %v, want that it is not there", err)
	}
	if conn, err := d.DialContext(t.Context(), "tcp", host+":"+port); !errors.As(err, &gone) {
		if err == nil {
			_ = conn.Close()
		}
		t.Errorf("dialling a name that went: %v, want that it is not there", err)
	}
}

func TestLookupAsTheSystemDoes(t *testing.T) {
	if found, err := new(egress.Dialer).Lookup(t.Context(), "localhost"); err != nil || len(found) == 0 {
		t.Errorf("localhost: %v, %v; want an address", found, err)
	}
}

func TestResolverThatIsNone(t *testing.T) {
	for _, resolver := range []string{"127.0.0.1", ":53", "127.0.0.1:", "a:b:c"} {
		if _, err := egress.NewDialer(egress.Config{Resolver: resolver}); err == nil || !strings.Contains(err.Error(), "host:port") {
			t.Errorf("%q: %v, want that it is refused", resolver, err)
		}
	}
}
