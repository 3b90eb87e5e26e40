package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// soon is how long before its end a certificate, or an account, is worth a warning.
	soon = 14 * 24 * time.Hour
	// maxPing is how much is read of the answer to a ping, in bytes.
	maxPing = 1 << 10
)

// AccountHarbor is what is asked of Harbor about itself and about the account. Each method makes one attempt, changes
// nothing, returns a fault, and is safe for concurrent use.
type AccountHarbor interface {
	System(ctx context.Context) (artifact.SystemInfo, error)
	// CurrentAccount fails with Unauthorized if Harbor does not accept the credentials.
	CurrentAccount(ctx context.Context) (artifact.Account, error)
}

// ForAccount checks the way to Harbor and one account there, apart from any project. Fields without a default in their comment
// are required.
type ForAccount struct {
	Harbor AccountHarbor
	// URL is Harbor's origin.
	URL string
	// Account is the name of the account in Harbor.
	Account string
	// Program stands behind the host in the results, where several programs check; empty for none.
	Program string
	// Transport carries a request without credentials, by whose connection the certificate is judged.
	Transport *http.Transport
	// Lookup resolves a name. Default: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Expiry says when the account's secret expires, the zero time if it never does. The fault is Denied if the account
	// may not know. Nil leaves the check out.
	Expiry func(ctx context.Context) (time.Time, error)
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Check does all checks.
func (f ForAccount) Check(ctx context.Context) []Check {
	if f.Lookup == nil {
		f.Lookup = net.DefaultResolver.LookupHost
	}
	if f.Now == nil {
		f.Now = time.Now
	}
	one := func(check func(context.Context) Check) func(context.Context) []Check {
		return func(ctx context.Context) []Check { return []Check{check(ctx)} }
	}
	system := once(f.Harbor.System)
	tasks := []task{
		{DNS, "", one(f.dns)},
		{TLS, "", one(f.tls)},
		{Login, f.Account, one(f.login)},
		{Notifications, "", func(ctx context.Context) []Check { return []Check{checkNotifications(ctx, system)} }},
	}
	if f.Expiry != nil {
		tasks = append(tasks, task{CredentialExpiry, f.Account, one(f.expiry)})
	}
	return run(ctx, tasks)
}

// subject names a host, and who has looked.
func (f ForAccount) subject(host string) string {
	if f.Program == "" {
		return host
	}
	return host + " from the " + f.Program
}

// dialled gives the origin that is dialled: Harbor's, or that of the proxy on the way.
func (f ForAccount) dialled() (u *url.URL, proxy bool, err error) {
	u, err = url.Parse(f.URL)
	if err != nil || f.Transport.Proxy == nil {
		return u, false, err
	}
	through, err := f.Transport.Proxy(&http.Request{URL: u})
	if err != nil || through == nil {
		return u, false, err
	}
	return through, true, nil
}

func (f ForAccount) dns(ctx context.Context) Check {
	c := Check{Name: DNS, Status: OK}
	u, proxy, err := f.dialled()
	if err != nil {
		c.Status, c.Detail, c.Fix = Failed, "the address of Harbor, or of the proxy, cannot be read", "check harbor.url and HTTPS_PROXY"
		return c
	}
	c.Subject = f.subject(u.Hostname())
	addresses, err := f.Lookup(ctx, u.Hostname())
	if err != nil {
		c.Status, c.Detail = Failed, "the name does not resolve: "+err.Error()
		c.Fix = "check the host in harbor.url, and the name servers of this machine"
		if proxy {
			c.Fix = "check the host of the proxy in HTTPS_PROXY, and the name servers of this machine"
		}
		return c
	}
	c.Detail = strings.Join(addresses, ", ")
	if proxy {
		c.Detail = "the proxy: " + c.Detail
	}
	return c
}

// tls judges the certificate by a request without credentials, as other requests would: through the proxy where there is
// one.
func (f ForAccount) tls(ctx context.Context) Check {
	c := Check{Name: TLS, Status: OK}
	u, err := url.Parse(f.URL)
	if err != nil {
		c.Status, c.Detail, c.Fix = Failed, "the address of Harbor cannot be read", "check harbor.url"
		return c
	}
	c.Subject = f.subject(u.Host)
	state, err := f.ping(ctx, u)
	refused, isRefused := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case isRefused && len(refused.UnverifiedCertificates) > 0:
		leaf := refused.UnverifiedCertificates[0]
		c.Status = Failed
		c.Detail = fmt.Sprintf("the certificate does not verify: %v (for %s, by %s, until %s)", refused.Err,
			strings.Join(leaf.DNSNames, ", "), leaf.Issuer, leaf.NotAfter.UTC().Format(time.DateOnly))
		c.Fix = "renew the certificate if it has expired, set harbor.url to a name that it has, or add its authority to harbor.ca_file"
		return c
	case err != nil:
		c.Status, c.Detail = Failed, "no connection: "+err.Error()
		c.Fix = "see that Harbor runs, and that nothing on the way, such as a firewall, refuses this machine"
		return c
	case state == nil:
		c.Status, c.Detail = Warning, "Harbor is spoken to without TLS: whoever is on the way reads the account's secret"
		c.Fix = "give Harbor a certificate, and set harbor.url to its https:// address"
		return c
	}
	first := earliest(state.PeerCertificates)
	left := first.NotAfter.Sub(f.Now())
	c.Detail = fmt.Sprintf("the certificate is valid for %d more days, until %s", int(left.Hours()/24), first.NotAfter.UTC().Format(time.DateOnly))
	if left < soon {
		c.Status, c.Fix = Warning, "renew the certificate of Harbor: signing stops when it expires"
	}
	return c
}

// ping asks for what Harbor tells everybody. Whatever it answers shows that there is a connection.
func (f ForAccount) ping(ctx context.Context, u *url.URL) (*tls.ConnectionState, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("api/v2.0/ping").String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := f.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()                                        //nolint:errcheck // only read
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxPing)) // so that the connection can be used again
	return resp.TLS, nil
}

// earliest gives the certificate of a chain that expires first.
func earliest(chain []*x509.Certificate) *x509.Certificate {
	first := chain[0]
	for _, c := range chain[1:] {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	return first
}

func (f ForAccount) login(ctx context.Context) Check {
	c := Check{Name: Login, Subject: f.Account, Status: OK}
	account, err := f.Harbor.CurrentAccount(ctx)
	switch {
	case err != nil && fault.Of(err).Reason == fault.Unauthorized:
		c.Status, c.Detail = Failed, "Harbor does not accept the account's name and secret"
		c.Fix = "check harbor.username, with Harbor's prefix for robots, and the secret in harbor.secret_file; in Harbor, see that the account is enabled and has not expired"
	case err != nil:
		return unknown(c, err)
	case !account.Robot:
		c.Status, c.Detail = Warning, "a user's account: its password is a person's, and each request costs Harbor much more"
		c.Fix = "make a robot account with the rights that it needs, and no others"
	default:
		c.Detail = "robot account"
	}
	return c
}

func (f ForAccount) expiry(ctx context.Context) Check {
	c := Check{Name: CredentialExpiry, Subject: f.Account, Status: OK}
	at, err := f.Expiry(ctx)
	left := at.Sub(f.Now())
	switch {
	case err != nil && fault.Of(err).Reason == fault.Denied:
		c.Status, c.Detail = Skipped, "the account may not list robot accounts (robot:list): Harbor shows its expiry to admins"
	case err != nil: // it works today, and the login says so
		c = unknown(c, err)
		c.Status, c.Fix = Skipped, ""
	case at.IsZero():
		c.Detail = "never expires"
	case left <= 0:
		c.Status, c.Detail = Failed, "expired on "+at.UTC().Format(time.DateOnly)
		c.Fix = "renew the robot account in Harbor"
	default:
		c.Detail = fmt.Sprintf("expires in %d days, on %s", int(left.Hours()/24), at.UTC().Format(time.DateOnly))
		if left < soon {
			c.Status, c.Fix = Warning, "renew the robot account in Harbor: signing stops when it expires"
		}
	}
	return c
}
