package harness

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// EnvTSA names the server of a timestamp authority; make sets it.
const EnvTSA = "HARBORSEAL_TEST_TSA"

// TSA is a real timestamp authority on the loopback interface, with a chain of its own that outlives restarts. Its methods
// are for one goroutine.
//
// The server also serves metrics, on port 2112 of all interfaces, with no flag against it, and ends if somebody has that port.
// Where the system lets it, it therefore runs in a network of its own, takes requests by a socket in a folder, and the
// harness forwards to it. Elsewhere there can be one at a time on a machine, and none beside Rekor v1.
type TSA struct {
	// Address is the host and port, and URL where timestamps are asked for.
	Address, URL string
	// Chain is a PEM file: the certificate that stamps, its issuer and the root.
	Chain string

	server  Command
	process *Process
	// socket is where the server takes requests in a network of its own, and forward what leads there; empty and nil elsewhere.
	socket  string
	forward *forwarder
}

// StartTSA starts an authority with its files in dir. It takes some tenths of a second.
func StartTSA(ctx context.Context, dir string) (*TSA, error) {
	path, err := program(EnvTSA)
	if err != nil {
		return nil, err
	}
	addresses, err := FreePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	a := &TSA{Address: addresses[0], URL: "http://" + addresses[0] + "/api/v1/timestamp"}
	var key string
	if a.Chain, key, err = WriteTSAChain(dir, "tsa"); err != nil {
		return nil, err
	}
	a.server = Command{
		Name: "timestamp authority", Path: path, Log: filepath.Join(dir, "tsa.log"), Env: []string{"HOME=" + dir},
		Args: []string{
			"serve", "--timestamp-signer", "file", "--file-signer-key-path", key, "--certificate-chain-path", a.Chain,
			"--disable-ntp-monitoring", "--log-type", "prod",
		},
	}
	if unshare, err := ownNetwork(ctx); err == nil {
		// The path of a socket must be short.
		folder, err := os.MkdirTemp("", "tsa-")
		if err != nil {
			return nil, fmt.Errorf("starting the timestamp authority: %w", err)
		}
		a.socket = filepath.Join(folder, "socket")
		a.server.Args = slices.Concat(unshare[1:], []string{path}, a.server.Args, []string{"--scheme", "unix", "--socket-path", a.socket})
		a.server.Path = unshare[0]
	} else {
		a.server.Args = slices.Concat(a.server.Args, []string{"--host", "127.0.0.1"}, ports("-", a.Address))
	}
	if err := a.Start(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// ownNetwork gives the command that runs another one in a network of its own, if there is one and the system lets it.
func ownNetwork(ctx context.Context) (command []string, err error) {
	path, err := exec.LookPath("unshare")
	if err != nil {
		return nil, fmt.Errorf("looking for unshare: %w", err)
	}
	command = []string{path, "--user", "--map-current-user", "--net"}
	if err := exec.CommandContext(ctx, path, append(slices.Clone(command[1:]), "true")...).Run(); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("trying unshare: %w", err)
	}
	return command, nil
}

// WriteTSAChain makes the chain of an authority, in the order in which verifiers take it, and the key that stamps: files
// name-chain.pem and name.key.
func WriteTSAChain(dir, name string) (chain, key string, err error) {
	stamps := x509.Certificate{Subject: pkix.Name{CommonName: "stamp"}, KeyUsage: x509.KeyUsageDigitalSignature}
	// SPEC: RFC 3161, section 2.3: timestamping alone, and critical, for which package x509 has no field.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return "", "", fmt.Errorf("making the chain of a timestamp authority: %w", err)
	}
	stamps.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	made, err := issueChain(
		authorityTemplate("tsa root"),
		authorityTemplate("tsa intermediate", x509.ExtKeyUsageTimeStamping),
		&stamps,
	)
	chain, key = filepath.Join(dir, name+"-chain.pem"), filepath.Join(dir, name+".key")
	if err == nil {
		err = made.write(chain, key)
	}
	return chain, key, wrap("making the chain of a timestamp authority", err)
}

// Start starts the authority after a Stop, where and with what it was before.
func (a *TSA) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop())
		}
	}()
	if a.socket != "" {
		// A killed server leaves its socket behind.
		if err := os.Remove(a.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("starting the timestamp authority: %w", err)
		}
	}
	if a.process, err = Launch(ctx, a.server); err != nil {
		return err
	}
	if a.socket != "" {
		if a.forward, err = startForwarder(ctx, a.Address, a.socket); err != nil {
			return err
		}
	}
	return a.process.answers(ctx, func(ctx context.Context) error { return answersOK(ctx, a.URL+"/certchain") })
}

// Stop ends the authority at once; it has nothing to lose. Connections are refused afterwards.
func (a *TSA) Stop() error {
	var errs []error
	if a.forward != nil {
		errs = append(errs, a.forward.close())
		a.forward = nil
	}
	if a.process != nil {
		errs = append(errs, a.process.Kill())
	}
	return errors.Join(errs...)
}

// Close ends the authority for good.
func (a *TSA) Close() error {
	err := a.Stop()
	if a.socket != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(a.socket)))
	}
	return err
}
