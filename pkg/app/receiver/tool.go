package receiver

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/queue"
)

// toolTime bounds a command's wait for the queue: a service waits for ever, somebody at a terminal does not.
const toolTime = 10 * time.Second

// ToolUser is as whom a command connects to the queue. The zero value is the user of the configuration.
type ToolUser struct {
	// Name and PasswordFile are a user of the account that owns the streams, such as operator or backup. Both or neither are set.
	Name, PasswordFile string
	// CertFile and KeyFile are a client certificate, where the server asks for one. Both or neither are set.
	CertFile, KeyFile string
}

// Tool connects a command to the queue of the running receivers, as their configuration says, and creates nothing there: to the
// embedded server through its listener, as the first of its users, or to the servers of queue.urls. The caller calls closing at
// the end.
//
// A receiver of an account that imports (queue.account) may not do everything: where more is needed, as must name a user of the
// account that owns the streams. [Tool] does not find that out.
func Tool(ctx context.Context, cfg *config.Receiver, as ToolUser, logger zerolog.Logger) (client *queue.Client, closing func(), err error) {
	if err := as.check(); err != nil {
		return nil, nil, err
	}
	dialer, err := egress.NewDialer(egress.Config{Resolver: cfg.Egress.Resolver})
	if err != nil {
		return nil, nil, err
	}
	q := queue.Config{
		Harbor: cfg.Harbor.Name, Name: "receiver-tool", Replicas: cfg.Queue.Replicas, AckWait: cfg.Queue.AckWait, Logger: logger,
		DialContext: dialer.DialContext,
	}
	if cfg.Queue.Embedded.Enabled {
		err = toEmbedded(ctx, cfg.Queue.Embedded, dialer, &q)
	} else {
		toServers(cfg.Queue, &q)
	}
	if err != nil {
		return nil, nil, err
	}
	as.apply(&q)
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	if client, err = queue.Connect(ctx, q); err != nil {
		return nil, nil, err
	}
	return client, client.Close, nil
}

func (u ToolUser) check() error {
	switch {
	case (u.Name == "") != (u.PasswordFile == ""):
		return errors.New("--nats-user and --nats-password-file: want both or neither")
	case (u.CertFile == "") != (u.KeyFile == ""):
		return errors.New("--nats-cert-file and --nats-key-file: want both or neither")
	default:
		return nil
	}
}

// apply puts what is named in the place of what the configuration says.
func (u ToolUser) apply(q *queue.Config) {
	if u.Name != "" {
		q.Username, q.PasswordFile, q.CredentialsFile = u.Name, u.PasswordFile, ""
		q.Imported = false
	}
	if u.CertFile != "" {
		q.TLS.CertFile, q.TLS.KeyFile = u.CertFile, u.KeyFile
	}
}

func toServers(cfg config.ReceiverQueue, q *queue.Config) {
	q.URLs, q.Username, q.PasswordFile, q.CredentialsFile = cfg.URLs, cfg.Username, cfg.PasswordFile, cfg.CredentialsFile
	q.TLS = queue.ClientTLS{CAFile: cfg.TLS.CAFile, CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile}
	q.Imported = cfg.Account == config.Imported
}

// toEmbedded finds the listener of the receiver that runs on this machine, and the name by which its certificate is recognised:
// whoever may read the configuration knows the certificate, whatever authority has signed it.
func toEmbedded(ctx context.Context, e config.Embedded, dialer *egress.Dialer, q *queue.Config) error {
	address, err := localAddress(e.Listen)
	if err != nil {
		return err
	}
	dialing, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	connection, err := dialer.DialContext(dialing, "tcp", address)
	if err != nil {
		return fmt.Errorf("no receiver answers on %s (queue.embedded.listen): this command needs a running one, and has to run on its machine: %w", address, err)
	}
	_ = connection.Close() // It was only to see whether somebody listens.
	q.Username, q.PasswordFile = e.Users[0].Name, e.Users[0].PasswordFile
	q.URLs = []string{"nats://" + address}
	if !e.TLS.Enabled() {
		return nil
	}
	name, err := certificateName(e.TLS.CertFile)
	if err != nil {
		return fmt.Errorf("queue.embedded.tls.cert_file: %w", err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	q.URLs = []string{"tls://" + net.JoinHostPort(name, port)}
	q.TLS.CAFile = e.TLS.CertFile
	q.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}
	return nil
}

// localAddress is where a listener of this machine is reached.
func localAddress(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("queue.embedded.listen: %w", err)
	}
	if port == "0" {
		return "", errors.New("queue.embedded.listen has port 0: a command cannot know which one the receiver has got")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), nil
}

// certificateName gives a name that a certificate is good for.
func certificateName(path string) (string, error) {
	content, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return "", fmt.Errorf("%s has no certificate in PEM form", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", path, err)
	case len(certificate.DNSNames) > 0:
		return strings.Replace(certificate.DNSNames[0], "*", "receiver", 1), nil
	case len(certificate.IPAddresses) > 0:
		return certificate.IPAddresses[0].String(), nil
	default:
		return "", fmt.Errorf("the certificate in %s names no host", path)
	}
}
