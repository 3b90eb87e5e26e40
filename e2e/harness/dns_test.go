package harness_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

func TestDNS(t *testing.T) {
	t.Parallel()
	names, err := harness.StartDNS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := names.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}()
	four, six := netip.MustParseAddr("127.0.0.7"), netip.MustParseAddr("::1")
	for _, network := range []string{"udp", "tcp"} {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, names.Addr())
		}}
		lookup := func(name string) ([]netip.Addr, error) {
			found, err := r.LookupNetIP(t.Context(), "ip", name)
			for i := range found {
				found[i] = found[i].Unmap()
			}
			slices.SortFunc(found, netip.Addr.Compare)
			return found, err
		}
		names.Set("a.example.test", four, six)
		if found, err := lookup("A.Example.test"); err != nil || !slices.Equal(found, []netip.Addr{four, six}) {
			t.Errorf("%s: %v, %v; want %s and %s", network, found, err, four, six)
		}
		if names.Asked("a.example.test") == 0 {
			t.Errorf("%s: no question was counted", network)
		}
		names.Remove("a.example.test")
		var gone *net.DNSError
		if found, err := lookup("a.example.test"); !errors.As(err, &gone) || !gone.IsNotFound {
			t.Errorf("%s: %v, %v; want that it is not there", network, found, err)
		}
		names.Mute(true)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if found, err := r.LookupNetIP(ctx, "ip", "b.example.test"); err == nil {
			t.Errorf("%s: %v from a name server that says nothing", network, found)
		}
		cancel()
		names.Mute(false)
	}
}
