package harness

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// EnvFulcio names the program of Fulcio; make sets it.
const EnvFulcio = "HARBORSEAL_TEST_FULCIO"

// fulcioAudience is whom tokens for Fulcio are made for.
const fulcioAudience = "sigstore"

// Fulcio is a real Fulcio on the loopback interface, with an issuer of tokens that it believes and authorities of its own
// that outlive restarts. Its methods are for one goroutine.
type Fulcio struct {
	// Address is the host and port, and URL the same with the scheme.
	Address, URL string
	// Chain is a PEM file: the authority that issues certificates, and the root.
	Chain string
	// TokenFile holds a token for Subject by the issuer with the URL Issuer; see [Fulcio.WriteToken].
	TokenFile       string
	Issuer, Subject string

	server  Command
	process *Process
	issuer  *tokenIssuer
}

// StartFulcio starts Fulcio, and an issuer of tokens in the manner of Kubernetes' service accounts, with their files in dir.
// There is a token for an hour. It takes some tenths of a second.
func StartFulcio(ctx context.Context, dir string) (_ *Fulcio, err error) {
	path, err := program(EnvFulcio)
	if err != nil {
		return nil, err
	}
	f := &Fulcio{Chain: filepath.Join(dir, "fulcio-chain.pem"), TokenFile: filepath.Join(dir, "fulcio.token")}
	if f.issuer, err = startTokenIssuer(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	f.Issuer, f.Subject = f.issuer.url, "https://kubernetes.io/namespaces/harborseal/serviceaccounts/signer"
	if err := f.WriteToken(time.Hour); err != nil {
		return nil, err
	}
	key, config := filepath.Join(dir, "fulcio.key"), filepath.Join(dir, "fulcio.json")
	chain, err := issueChain(authorityTemplate("fulcio root"), authorityTemplate("fulcio intermediate", x509.ExtKeyUsageCodeSigning))
	if err == nil {
		err = chain.write(f.Chain, key)
	}
	if err == nil {
		// It reads JSON by other names than YAML.
		err = write(config, Config{"OIDCIssuers": Config{
			f.Issuer: Config{"IssuerURL": f.Issuer, "ClientID": fulcioAudience, "Type": "kubernetes"},
		}})
	}
	if err != nil {
		return nil, fmt.Errorf("starting Fulcio: %w", err)
	}
	addresses, err := FreePorts(ctx, 3)
	if err != nil {
		return nil, err
	}
	f.Address, f.URL = addresses[0], "http://"+addresses[0]
	f.server = Command{
		Name: "Fulcio", Path: path, Log: filepath.Join(dir, "fulcio.log"), Env: []string{"HOME=" + dir},
		Args: append([]string{
			"serve", "--host", "127.0.0.1", "--grpc-host", "127.0.0.1", "--ca", "fileca", "--fileca-cert", f.Chain, "--fileca-key", key,
			"--fileca-key-passwd", "none", "--fileca-watch=false", "--ct-log-url", "", "--config-path", config, "--log_type", "prod",
			// An abstract name is one for the whole machine.
			"--legacy-unix-domain-socket", "@" + Random("fulcio-"),
			// The last one is bound to all interfaces: it has no flag for another.
		}, ports("-", addresses[0], "--grpc", addresses[1], "--metrics", addresses[2])...),
	}
	return f, f.Start(ctx)
}

// WriteToken replaces the token, in one step, as the kubelet does. A negative life is over already.
func (f *Fulcio) WriteToken(life time.Duration) error {
	token, err := f.issuer.token(life)
	if err == nil {
		err = os.WriteFile(f.TokenFile+".new", []byte(token), 0o600)
	}
	if err == nil {
		err = os.Rename(f.TokenFile+".new", f.TokenFile)
	}
	return wrap("writing a token", err)
}

// Start starts Fulcio after a Stop, where and with what it was before.
func (f *Fulcio) Start(ctx context.Context) error {
	process, err := Launch(ctx, f.server)
	if err != nil {
		return err
	}
	f.process = process
	return process.answers(ctx, func(ctx context.Context) error { return answersOK(ctx, f.URL+"/api/v2/trustBundle") })
}

// Stop ends Fulcio at once; it has nothing to lose. Its issuer of tokens goes on.
func (f *Fulcio) Stop() error {
	if f.process == nil {
		return nil
	}
	return f.process.Kill()
}

// Close ends both.
func (f *Fulcio) Close() error { return errors.Join(f.Stop(), f.issuer.close()) }
