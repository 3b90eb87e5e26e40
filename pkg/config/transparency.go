package config

import (
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
)

// maxLabel bounds names that stand in metrics, in bytes. A policy takes no longer name of a log.
const maxLabel = 64

// TransparencyLog is a transparency log. An active one takes entries; the entries that one had taken which is VerifyOnly now
// still count. None is there by default, the public ones neither.
type TransparencyLog struct {
	// Name is what sign.log and the policies call it, and what stands in metrics and reports.
	Name string         `key:"name"`
	Type policy.LogType `key:"type"`
	// URL is an origin. It is dialled if the log is active, and names the log in the trusted root.
	URL string `key:"url"`
	// CAFile holds further authorities of the server's certificate in PEM; empty for those of the system alone.
	CAFile string `key:"ca_file,file"`
	// PublicKeyFile is the log's public key in PEM, by which all that it says is verified.
	PublicKeyFile string `key:"public_key_file,file"`
	// Origin is the first line of the checkpoints of a Rekor v2, and TilesURL where its checkpoint and its tiles are read; empty
	// for where a server of Rekor v2 has them, below URL. Both are empty for Rekor v1.
	Origin   string `key:"origin"`
	TilesURL string `key:"tiles_url"`
	// Timeout bounds one request. Rekor v2 answers with its next checkpoint.
	Timeout time.Duration `key:"timeout" default:"30s"`
	// State is Active or VerifyOnly.
	State KeyState `key:"state" default:"active"`
}

// TimestampAuthority is an authority that makes timestamps of RFC 3161. The active one makes them; those that one had made
// which is VerifyOnly now still count.
type TimestampAuthority struct {
	// Name is what stands in metrics and reports.
	Name string `key:"name"`
	// URL is the address that takes requests, with its path. It is dialled if the authority is active.
	URL string `key:"url"`
	// CAFile holds further authorities of the server's certificate in PEM; empty for those of the system alone.
	CAFile string `key:"ca_file,file"`
	// CertificateChainFile is the chain of the certificate that signs timestamps, in PEM, the trusted one last.
	CertificateChainFile string `key:"certificate_chain_file,file"`
	// Timeout bounds one request.
	Timeout time.Duration `key:"timeout" default:"5s"`
	// State is Active or VerifyOnly.
	State KeyState `key:"state" default:"active"`
}

// Fulcio is an identity instead of a key: Fulcio gives a certificate of minutes to whoever has its token, and images are
// signed with that.
type Fulcio struct {
	// URL is an origin. It, CAFile and TokenFile are empty where the key is not active.
	URL string `key:"url"`
	// CAFile holds further authorities of the server's certificate in PEM; empty for those of the system alone.
	CAFile string `key:"ca_file,file"`
	// RootsFile holds the roots of the certificates that Fulcio makes, in PEM.
	RootsFile string `key:"roots_file,file"`
	// TokenFile holds the identity token. It is read again when it changes.
	TokenFile string `key:"token_file,file"`
	// Issuer and Subject are the identity that stands in the certificates: who issues the token, and for whom.
	Issuer  string `key:"issuer"`
	Subject string `key:"subject"`
}

// Keyless says whether the key is an identity of Fulcio.
func (k Key) Keyless() bool { return k.Fulcio != Fulcio{} }

// Means gives what is configured for what terms ask for. Formats, Bundles and Locked are left open: they are Harbor's to say.
func (c *Signer) Means(t policy.Terms) policy.Means {
	var m policy.Means
	for _, l := range c.Logs {
		if l.Name == t.Log && l.State == Active {
			m.Log = l.Type
		}
	}
	_, m.Timestamps = c.ActiveAuthority()
	for _, k := range c.Keys {
		if k.Name == t.Key && k.State == Active {
			m.Keyless = k.Keyless()
		}
	}
	return m
}

// ActiveAuthority gives the authority that makes timestamps; false if there is none.
func (c *Signer) ActiveAuthority() (TimestampAuthority, bool) {
	i := slices.IndexFunc(c.TimestampAuthorities, func(a TimestampAuthority) bool { return a.State == Active })
	if i < 0 {
		return TimestampAuthority{}, false
	}
	return c.TimestampAuthorities[i], true
}

// checkLogs gives the names of the active logs.
func (c *Signer) checkLogs(seen names, p *problems) []string {
	var active []string
	for i, l := range c.Logs {
		at := entry("logs", i)
		seen.label(p, at+".name", "logs", l.Name)
		p.oneOf(at+".type", string(l.Type), string(policy.RekorV1), string(policy.RekorV2))
		p.server(at+".url", l.URL, "https://rekor.example.com", false)
		p.required(at+".public_key_file", l.PublicKeyFile)
		p.between(at+".timeout", l.Timeout, time.Second, 10*time.Minute)
		p.oneOf(at+".state", string(l.State), string(Active), string(VerifyOnly))
		if l.State == Active {
			active = append(active, l.Name)
		}
		l.checkTiles(at, p)
	}
	return active
}

func (l TransparencyLog) checkTiles(at string, p *problems) {
	if l.Type != policy.RekorV2 {
		for _, given := range []struct{ key, value string }{{"origin", l.Origin}, {"tiles_url", l.TilesURL}} {
			if given.value != "" {
				p.add(join(at, given.key), "belongs to logs of the type rekor-v2")
			}
		}
		return
	}
	// Verifiers take the name of the checkpoint from the host in their trusted root.
	if p.required(at+".origin", l.Origin) && (strings.Contains(l.Origin, ":") || !isHost(l.Origin)) {
		p.add(at+".origin", "want a host without a port, as the log signs its checkpoints, such as rekor.example.com")
	}
	if l.TilesURL != "" {
		p.server(at+".tiles_url", l.TilesURL, "https://tiles.example.com", true)
	}
}

func (c *Signer) checkAuthorities(seen names, p *problems) {
	active := 0
	for i, a := range c.TimestampAuthorities {
		at := entry("timestamp_authorities", i)
		seen.label(p, at+".name", "timestamp_authorities", a.Name)
		p.server(at+".url", a.URL, "https://tsa.example.com/api/v1/timestamp", true)
		p.required(at+".certificate_chain_file", a.CertificateChainFile)
		p.between(at+".timeout", a.Timeout, 100*time.Millisecond, 5*time.Minute)
		p.oneOf(at+".state", string(a.State), string(Active), string(VerifyOnly))
		if a.State == Active {
			active++
		}
	}
	if active > 1 {
		p.add("timestamp_authorities", "want at most one whose state is active; timestamps of one that is verify-only still count")
	}
}

// check wants all that is needed to get certificates, and to verify them.
func (f Fulcio) check(at string, p *problems) {
	p.server(at+".url", f.URL, "https://fulcio.example.com", false)
	p.required(at+".token_file", f.TokenFile)
	f.checkIdentity(at, p)
}

// checkRetired wants what tells whose certificates count, and nothing that could get another one.
func (f Fulcio) checkRetired(at string, p *problems) {
	for _, given := range []struct{ key, value string }{{"url", f.URL}, {"ca_file", f.CAFile}, {"token_file", f.TokenFile}} {
		if given.value != "" {
			p.add(join(at, given.key), "belongs to active keys alone")
		}
	}
	f.checkIdentity(at, p)
}

func (f Fulcio) checkIdentity(at string, p *problems) {
	p.required(at+".roots_file", f.RootsFile)
	for _, given := range []struct{ key, value string }{{"issuer", f.Issuer}, {"subject", f.Subject}} {
		if p.required(join(at, given.key), given.value) && !isPrintable(given.value) {
			p.add(join(at, given.key), "want what stands in the certificates, in printable ASCII")
		}
	}
}

// checkVerifiable refuses terms by which nobody could verify a signature, whichever version Harbor has. What depends on Harbor
// is asked when a policy is set.
func (c *Signer) checkVerifiable(p *problems) {
	terms := c.Terms()
	formats, err := terms.Format.Formats(true)
	if err != nil || terms.Format.Validate() != nil || terms.Transparency.Validate() != nil || terms.Timestamp.Validate() != nil {
		return // said already
	}
	means := c.Means(terms)
	means.Formats, means.Bundles = formats, true
	for _, wrong := range policy.FieldErrors(terms.Verifiable(means)) {
		p.add("sign."+wrong.Field, "%s", wrong.Want)
	}
}
