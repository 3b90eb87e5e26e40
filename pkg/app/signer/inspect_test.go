package signer_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// TestASignerSaysWhatHolds pushes an index and asks over the queue, as a receiver does, until all of it is signed.
func TestASignerSaysWhatHolds(t *testing.T) {
	s := newSite(t)
	s.write(t, "receiver.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {public_host: %q}
policies: [{projects: [demo], backfill: all}]
http: {listen: "127.0.0.1:0", allow_plain_http: true}
webhook: {secret_files: [hook]}
api: {tokens_file: tokens}
keys: [{name: k, public_key_file: k.pub}]
queue: {embedded: {store_dir: nats, listen: "127.0.0.1:0", max_store: 64MiB, users: [{name: signer, password_file: queue.pw}]}}
ledger: {sqlite: {path: ledger.db}}
`, s.harbor.Host()))
	receiverConfig, err := config.LoadReceiver(filepath.Join(s.dir, "receiver.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := receiver.New(t.Context(), receiverConfig, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	stopReceiver := run(t, "receiver", r.Run)
	waitFor(t, "the receiver to be ready", func() bool { return s.ready(t, r.OpsAddr().String()) })
	s.write(t, "signer.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {url: %q, username: "robot$harborseal", secret_file: robot}
keys: [{name: k, file: k.key, password_file: key.pw}]
queue: {urls: ["nats://%s"], username: signer, password_file: queue.pw}
`, s.harbor.URL(), r.QueueAddr()))
	signerConfig, err := config.LoadSigner(filepath.Join(s.dir, "signer.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := signer.New(t.Context(), signerConfig, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	stopSigner := run(t, "signer", a.Run)
	waitFor(t, "the signer to be ready", func() bool { return s.ready(t, a.OpsAddr().String()) })
	s.post(t, "/projects/demo/webhook/policies", map[string]any{
		"name": "harborseal", "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []any{map[string]any{"type": "http", "address": r.PublicURL() + "/webhooks/harbor/demo", "auth_header": "hook secret"}},
	}, nil)

	asking := queuetest.Connect(t, queue.Config{URLs: []string{"nats://" + r.QueueAddr()}, Username: "signer", PasswordFile: filepath.Join(s.dir, "queue.pw")})
	client, err := inspect.NewClient(asking)
	if err != nil {
		t.Fatal(err)
	}
	question := inspect.Question{Repository: "demo/app", Reference: "v1"}
	if _, err := client.Verify(t.Context(), question); !fault.Is(err, fault.Gone) {
		t.Errorf("before the push: %v, want that it is gone", err)
	}
	index, err := random.Index(128, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(s.harbor.Host()+"/demo/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index, remote.WithContext(t.Context()), remote.WithTransport(s.client.Transport),
		remote.WithAuth(&authn.Basic{Username: "admin", Password: harbortest.DefaultAdminPassword})); err != nil {
		t.Fatal(err)
	}
	var result inspect.Result
	waitFor(t, "the index and its children to be verified", func() bool {
		result, err = client.Verify(t.Context(), question)
		return err == nil && result.Verified
	})
	if digest, err := index.Digest(); err != nil || len(result.Manifests) != 3 || result.Manifests[0].Digest != digest.String() {
		t.Errorf("manifests %+v, %v; want the index %s and its two children", result.Manifests, err, digest)
	}
	ref, err := artifact.NewRef("demo/app", result.Manifests[1].Digest)
	if err != nil {
		t.Fatal(err)
	}
	evidence, err := client.Evidence(t.Context(), ref)
	if err != nil || len(evidence.Signatures) == 0 || evidence.Signatures[0].Documents == nil || evidence.Signatures[0].Key == nil || evidence.Signatures[0].Key.Name != "k" {
		t.Errorf("evidence %+v, %v; want signatures of k with their documents", evidence, err)
	}
	events, _, err := asking.History(t.Context(), ref, 10)
	if err != nil || len(events) == 0 || events[0].Event.Ref != ref {
		t.Errorf("History = %+v, %v", events, err)
	}
	asking.Close()
	stopSigner()
	stopReceiver()
}
