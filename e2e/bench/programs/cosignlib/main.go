// Command cosignlib signs with cosign's own library as a careful program would use it: the key is loaded once, connections,
// tokens and greetings are reused, and what was written is verified by reading it back.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/harborseal/harborseal/e2e/bench/contender"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := contender.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, start)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cosignlib:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

// writer is for concurrent use.
type writer struct {
	host     string
	insecure []name.Option
	key      signature.SignerVerifier
	auth     authn.Authenticator
	puller   *remote.Puller
	pusher   *remote.Pusher
}

func start(_ context.Context, s contender.Setup) (contender.Sign, error) {
	key, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	password, err := readLine(s.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key's password: %w", err)
	}
	w := &writer{host: s.Host, auth: authn.Anonymous}
	if w.key, err = cosign.LoadPrivateKey(key, []byte(password), nil); err != nil {
		return nil, fmt.Errorf("loading the key: %w", err)
	}
	if strings.HasPrefix(s.URL, "http://") {
		w.insecure = []name.Option{name.Insecure}
	}
	if s.Username != "" {
		secret, err := readLine(s.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("reading the secret: %w", err)
		}
		w.auth = &authn.Basic{Username: s.Username, Password: secret}
	}
	shared := []remote.Option{
		remote.WithAuth(w.auth), remote.WithUserAgent("cosign/library"),
		remote.WithTransport(&http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512}),
	}
	if w.puller, err = remote.NewPuller(shared...); err != nil {
		return nil, fmt.Errorf("making a reader: %w", err)
	}
	if w.pusher, err = remote.NewPusher(shared...); err != nil {
		return nil, fmt.Errorf("making a writer: %w", err)
	}
	return w.sign, nil
}

func readLine(path string) (string, error) {
	raw, err := os.ReadFile(path) //nolint:gosec // the driver names the file
	return strings.TrimSpace(string(raw)), err
}

func (w *writer) sign(ctx context.Context, repository, digest string) error {
	ref, err := name.NewDigest(w.host+"/"+repository+"@"+digest, w.insecure...)
	if err != nil {
		return fmt.Errorf("naming the image: %w", err)
	}
	opts := []ociremote.Option{
		ociremote.WithNameOptions(w.insecure...),
		ociremote.WithRemoteOptions(remote.WithContext(ctx), remote.Reuse(w.puller), remote.Reuse(w.pusher)),
	}
	entity, err := ociremote.SignedEntity(ref, opts...)
	if err != nil {
		return fmt.Errorf("reading the image: %w", err)
	}
	body, err := payload.Cosign{Image: ref}.MarshalJSON()
	if err != nil {
		return fmt.Errorf("writing the payload: %w", err)
	}
	raw, err := w.key.SignMessage(strings.NewReader(string(body)), options.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	layer, err := static.NewSignature(body, base64.StdEncoding.EncodeToString(raw))
	if err != nil {
		return fmt.Errorf("writing the layer: %w", err)
	}
	if entity, err = mutate.AttachSignatureToEntity(entity, layer); err != nil {
		return fmt.Errorf("attaching the signature: %w", err)
	}
	if err := ociremote.WriteSignatures(ref.Context(), entity, opts...); err != nil {
		return fmt.Errorf("pushing the signature: %w", err)
	}
	found, _, err := cosign.VerifyImageSignatures(ctx, ref, &cosign.CheckOpts{
		RegistryClientOpts: opts, SigVerifier: w.key, PKOpts: []signature.PublicKeyOption{options.WithContext(ctx)},
		ClaimVerifier: cosign.SimpleClaimVerifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true,
	})
	if err != nil {
		return fmt.Errorf("reading the signature back: %w", err)
	}
	if len(found) != 1 {
		return errors.New("another number of signatures than one was read back")
	}
	return nil
}
