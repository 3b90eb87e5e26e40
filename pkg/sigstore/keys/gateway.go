//go:build !no_hashivault

package keys

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// placeholder is the token that the provider sends to the gateway. It opens nothing.
	placeholder = "set-by-the-gateway"
	// The gateway answers errors with these alone: the provider's client would do things of its own at others. It takes a 404 for
	// an empty answer, say.
	statusAway    = 460
	statusRefused = 461
	statusWrong   = 462
	// staleAfter is how old a folder has to be to count as left behind: a younger one may be that of a program that is starting.
	staleAfter   = time.Minute
	folderPrefix = "harborseal-vault-"
	socketName   = "s"
	// maxVaultBody bounds requests and answers, in bytes. A key with a thousand versions stays below it.
	maxVaultBody = 1 << 20
	readTimeout  = 10 * time.Second
)

// gateway stands between sigstore's provider for Vault and Vault, because the provider takes neither a transport nor a
// context. It listens on a Unix socket in a folder that only this process's user can enter, and passes exactly the two requests
// on that a signature needs: read the key, sign with it.
//
// What it adds: connections are those of the given transport; each request ends after the timeout, so that the provider's calls
// end too; the token is read from its file for each request and sent to the configured origin alone, redirects are not
// followed; what Vault says about an error is cleared of the token, and told with what to do, before the provider sees it; an
// empty answer, at which the provider panics, becomes an error.
type gateway struct {
	server *http.Server
	folder string
	// done is closed when the server's goroutine has ended.
	done chan struct{}

	client  *http.Client
	origin  *url.URL
	options VaultOptions
	key     string
	timeout time.Duration
}

func newGateway(ctx context.Context, transport http.RoundTripper, o VaultOptions, key string, timeout time.Duration) (*gateway, error) {
	origin, err := vaultOrigin(o.Address)
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(o.Mount, "/") {
		if part == "" || strings.Trim(part, ".") == "" || part != url.PathEscape(part) {
			return nil, fmt.Errorf("mount of the transit engine %q: want a path such as transit or team/transit", o.Mount)
		}
	}
	sweepFolders(ctx)
	folder, err := os.MkdirTemp("", folderPrefix) // mode 0700
	if err != nil {
		return nil, fmt.Errorf("making a folder for the way to Vault (TMPDIR may name another place): %w", err)
	}
	g := &gateway{
		folder: folder, done: make(chan struct{}), origin: origin, options: o, key: key, timeout: timeout,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", g.socket())
	if err != nil {
		if errors.Is(err, syscall.EINVAL) {
			err = fmt.Errorf("its path has %d bytes, and a Unix socket takes about 100: set TMPDIR to a shorter folder: %w", len(g.socket()), err)
		}
		return nil, errors.Join(fmt.Errorf("opening the way to Vault: %w", err), os.RemoveAll(folder))
	}
	mux := http.NewServeMux()
	// The provider puts two slashes behind /v1, and ServeMux redirects these: see clean.
	mux.HandleFunc("GET /v1/"+o.Mount+"/keys/"+key, g.pass)
	mux.HandleFunc("PUT /v1/"+o.Mount+"/sign/"+key, g.pass)
	mux.HandleFunc("PUT /v1/"+o.Mount+"/sign/"+key+"/sha2-256", g.pass)
	g.server = &http.Server{Handler: clean(mux), ReadHeaderTimeout: readTimeout}
	go func() {
		defer close(g.done)
		_ = g.server.Serve(listener) // it ends when close is called
	}()
	return g, nil
}

// vaultOrigin reads an address that a token may be sent to.
func vaultOrigin(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("address of Vault: want an origin such as https://vault.example.com:8200")
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return nil, fmt.Errorf("address of Vault %s://%s: want https, or http on a loopback address", u.Scheme, u.Host)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func (g *gateway) socket() string { return filepath.Join(g.folder, socketName) }

// address is what the provider takes for Vault's.
func (g *gateway) address() string { return "unix://" + g.socket() }

// sweepFolders removes what programs of this user that were killed have left behind: folders with a socket at which nobody
// listens. What cannot be removed stays; it holds nothing.
func sweepFolders(ctx context.Context) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil { // a TMPDIR that reads as a broken pattern: nothing is swept
		return
	}
	for _, folder := range found {
		info, err := os.Lstat(folder)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		owner, known := info.Sys().(*syscall.Stat_t)
		if !known || int(owner.Uid) != os.Getuid() {
			continue
		}
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", filepath.Join(folder, socketName))
		switch {
		case err == nil:
			_ = conn.Close() // somebody is there
		case errors.Is(err, syscall.ECONNREFUSED):
			_ = os.RemoveAll(folder)
		}
	}
}

// close ends the requests that run.
func (g *gateway) close() error {
	err := g.server.Close()
	<-g.done
	return errors.Join(err, os.RemoveAll(g.folder))
}

// clean undoes the doubled slash of the provider's paths.
func clean(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.Replace(r.URL.Path, "/v1//", "/v1/", 1)
		next.ServeHTTP(w, r)
	})
}

func (g *gateway) pass(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), g.timeout)
	defer cancel()
	body, err := g.ask(ctx, r)
	status := http.StatusOK
	if err != nil {
		body = sayError(err.Error())
		switch {
		case isAway(err):
			status = statusAway
		case isRefused(err):
			status = statusRefused
		default:
			status = statusWrong
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON for the provider, no page
}

// ask passes a request on, with nothing of it but method, path and body.
func (g *gateway) ask(ctx context.Context, in *http.Request) (body []byte, err error) {
	token, err := secretfile.ReadLine(g.options.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("token of Vault: %w", err)
	}
	secrets := redact.New(token)
	sent, err := io.ReadAll(io.LimitReader(in.Body, maxVaultBody))
	if err != nil {
		return nil, errors.New("reading the provider's request failed")
	}
	address := g.origin.JoinPath(in.URL.Path).String()
	out, err := http.NewRequestWithContext(ctx, in.Method, address, bytes.NewReader(sent)) //nolint:gosec // a configured origin, one of three paths
	if err != nil {
		return nil, errors.New("making the request to Vault failed")
	}
	out.Header.Set("X-Vault-Token", token)
	out.Header.Set("X-Vault-Request", "true")
	out.Header.Set("Content-Type", "application/json")
	if g.options.Namespace != "" {
		out.Header.Set("X-Vault-Namespace", g.options.Namespace)
	}
	answer, err := g.client.Do(out) //nolint:gosec // as above
	if err != nil {
		return nil, byNetwork(err, fmt.Errorf("reaching Vault: %s", secrets.Text(err.Error(), maxText)))
	}
	defer answer.Body.Close() //nolint:errcheck // what was read counts
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxVaultBody+1))
	switch {
	case err != nil:
		return nil, byNetwork(err, fmt.Errorf("reading the answer of Vault: %s", secrets.Text(err.Error(), maxText)))
	case len(body) > maxVaultBody:
		return nil, fmt.Errorf("answer of Vault with more than %d bytes", maxVaultBody)
	case answer.StatusCode == http.StatusOK && len(body) > 0:
		return body, nil
	case answer.StatusCode < http.StatusBadRequest:
		return nil, fmt.Errorf("%d from Vault with nothing to read; redirects are not followed: name the address of the active node or "+
			"of the load balancer", answer.StatusCode)
	default:
		said := cmp.Or(secrets.Text(errorsIn(body), maxText), http.StatusText(answer.StatusCode))
		return nil, byStatus(answer.StatusCode, g.advise(answer.StatusCode, said))
	}
}

// advise says what to do about an error of Vault.
func (g *gateway) advise(status int, said string) error {
	switch status {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%d from Vault (%s): is the token in %s expired, and may it read %[4]s/keys/%[5]s and update %[4]s/sign/%[5]s?",
			status, said, g.options.TokenFile, g.options.Mount, g.key)
	case http.StatusNotFound:
		return fmt.Errorf("404 from Vault (%s): is there a key %s in the transit engine at %s?", said, g.key, g.options.Mount)
	case http.StatusServiceUnavailable:
		return fmt.Errorf("503 from Vault (%s): is it sealed, or a standby?", said)
	default:
		return fmt.Errorf("%d from Vault (%s)", status, said)
	}
}

// errorsIn gives what Vault says about an error, or the start of the body of somebody else's answer.
//
// SPEC: Vault HTTP API, Error Response: a JSON object with a list of strings named errors.
func errorsIn(body []byte) string {
	var said struct {
		Errors []string `json:"errors"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return string(body)
	}
	return strings.Join(said.Errors, "; ")
}

func sayError(text string) []byte {
	body, err := json.Marshal(map[string][]string{"errors": {text}})
	if err != nil { // a string always encodes
		return nil
	}
	return body
}
