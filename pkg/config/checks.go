package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// entry is the path of one entry of a list.
func entry(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// required says whether there is a value.
func (p *problems) required(path, value string) bool {
	if strings.TrimSpace(value) == "" {
		p.add(path, "is required")
		return false
	}
	return true
}

// pair wants both or neither of two keys of the mapping at path.
func (p *problems) pair(path, key1, value1, key2, value2 string) {
	switch {
	case value1 != "" && value2 == "":
		p.add(join(path, key2), "is required beside %s", key1)
	case value1 == "" && value2 != "":
		p.add(join(path, key1), "is required beside %s", key2)
	}
}

func (p *problems) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(path, "want one of %s", strings.Join(allowed, ", "))
	}
}

func (p *problems) keyState(path string, state KeyState) {
	p.oneOf(path, string(state), string(Active), string(VerifyOnly), string(Revoked))
}

// names are those that entries have, with the list that each stands in.
type names map[string]string

// take wants a name that no other entry has.
func (n names) take(p *problems, path, list, name string) {
	if !p.required(path, name) {
		return
	}
	switch taken := n[name]; taken {
	case "":
		n[name] = list
	case list:
		p.add(path, "is the name of an earlier entry as well")
	default:
		p.add(path, "is the name of an entry of %s as well", taken)
	}
}

// label is take for a name that stands in metrics.
func (n names) label(p *problems, path, list, name string) {
	valid := len(name) <= maxLabel
	for _, r := range name {
		valid = valid && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if !valid {
		p.add(path, "want 1 to %d of a-z, A-Z, 0-9, dot, _ and -", maxLabel)
		return
	}
	n.take(p, path, list, name)
}

func (p *problems) between(path string, value, least, most time.Duration) {
	if value < least || value > most {
		p.add(path, "want %s to %s", least, most)
	}
}

func (p *problems) count(path string, value, least, most int) {
	if value < least || value > most {
		p.add(path, "want %d to %d", least, most)
	}
}

func (p *problems) nonEmptyList(path string, list []string) {
	if len(list) == 0 {
		p.add(path, "want at least one entry")
	}
	p.texts(path, list)
}

func (p *problems) texts(path string, list []string) {
	for i, s := range list {
		p.required(entry(path, i), s)
	}
}

func (p *problems) path(path, value string) {
	if p.required(path, value) && strings.ContainsRune(value, 0) {
		p.add(path, "want a path")
	}
}

// harborName wants what can be a token of a NATS subject, and stays readable in one.
func (p *problems) harborName(path, name string) {
	valid := name != "" && len(name) <= 32
	for _, r := range name {
		valid = valid && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	if !valid {
		p.add(path, "want 1 to 32 of a-z, 0-9 and -")
	}
}

func (p *problems) listen(path, address string) {
	host, port, err := net.SplitHostPort(address)
	_, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || strings.ContainsFunc(host, unicode.IsSpace) {
		p.add(path, "want host:port, such as 127.0.0.1:8443 or :8443")
	}
}

// resolver wants an address: whoever resolves names cannot be a name.
func (p *problems) resolver(path, address string) {
	if address == "" {
		return
	}
	if server, err := netip.ParseAddrPort(address); err != nil || server.Port() == 0 {
		p.add(path, "want the address and the port of a DNS server, such as 10.0.0.53:53 or [fd00::53]:53")
	}
}

// host wants a host as it stands in an image's name: with a port where it is not the scheme's own.
func (p *problems) host(path, host string) {
	if !isHost(host) {
		p.add(path, "want a host as image names have it, such as harbor.example.com or harbor.example.com:8443")
	}
}

func isHost(host string) bool {
	u, err := url.Parse("https://" + host)
	return err == nil && u.Host == host && u.Hostname() != "" && validPort(u) && host == strings.ToLower(host)
}

// origin wants scheme and host and nothing else, and gives the host with its port. The sentence of url.Parse would repeat
// the address, which may carry a password.
func (p *problems) origin(path, address string) (host string, ok bool) {
	u, err := url.Parse(address)
	switch {
	case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || !validPort(u):
		p.add(path, "want an address such as https://harbor.example.com")
	case u.User != nil:
		p.add(path, "must not carry credentials: username and secret_file are keys of their own")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		p.add(path, "want scheme and host alone: Harbor is not served below a path")
	default:
		return strings.ToLower(u.Host), true
	}
	return "", false
}

// server wants an address that nobody on the way can answer for: https, or http on a loopback address, where an agent may
// listen. below allows a path. The sentence of url.Parse would repeat the address, which may carry a password.
func (p *problems) server(path, address, example string, below bool) {
	if !p.required(path, address) {
		return
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || !validPort(u):
		p.add(path, "want an address such as %s", example)
	case u.User != nil:
		p.add(path, "must not carry credentials")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		p.add(path, "want no query and no fragment")
	case !below && strings.Trim(u.Path, "/") != "":
		p.add(path, "want scheme, host and port alone")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		p.add(path, "want https, or http on a loopback address, where an agent may listen")
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (p *problems) natsURLs(path string, addresses []string) {
	for i, address := range addresses {
		at := entry(path, i)
		u, err := url.Parse(address)
		switch {
		case err != nil || (u.Scheme != "nats" && u.Scheme != "tls") || u.Hostname() == "" || !validPort(u):
			p.add(at, "want an address such as nats://nats.example.com:4222 or tls://nats.example.com:4222")
		case u.User != nil:
			p.add(at, "must not carry credentials: username, password_file and credentials_file are keys of their own")
		case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			p.add(at, "want scheme, host and port alone")
		}
	}
}

func validPort(u *url.URL) bool {
	if strings.HasSuffix(u.Host, ":") {
		return false
	}
	_, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || err == nil
}

func (p *problems) networks(path string, list []string) {
	for i, s := range list {
		_, err := netip.ParseAddr(s)
		_, prefixErr := netip.ParsePrefix(s)
		if err != nil && prefixErr != nil {
			p.add(entry(path, i), "want an address or a network, such as 10.1.2.3 or 10.0.0.0/8")
		}
	}
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
