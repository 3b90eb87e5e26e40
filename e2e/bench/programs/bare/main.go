// Command bare is the yardstick of the benchmark: a net/http loop that sends the requests which a signature cannot do
// without, with one ECDSA signature and one verification, and nothing else. It parses no manifest, judges no answer but by
// its status, bounds nothing, logs nothing and counts nothing. What any signer costs beyond it is its own doing.
//
// The requests are GET subject, GET .sig (404), POST and PUT of the payload, PUT of the manifest, GET .sig; once in each
// repository the configuration {} is uploaded before, and a token is asked for where the registry wants one.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/harborseal/harborseal/e2e/bench/contender"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := contender.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, start)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

const (
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	config        = "{}"
	payloadFormat = `{"critical":{"identity":{"docker-reference":"%s"},"image":{"docker-manifest-digest":"%s"},` +
		`"type":"cosign container image signature"},"optional":null}`
	manifestFormat = `{"schemaVersion":2,"mediaType":"` + manifestType + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` +
		`"size":2,"digest":"%s"},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":%d,"digest":"%s",` +
		`"annotations":{"dev.cosignproject.cosign/signature":"%s"}}]}`
)

// loop signs in one registry. Its fields are only read but for repositories.
type loop struct {
	url, host, username, secret string
	key                         *ecdsa.PrivateKey
	client                      *http.Client
	config                      string // digest of the configuration

	mu           sync.Mutex
	repositories map[string]*repository // guarded by mu
}

// repository is what is done once for each.
type repository struct {
	once          sync.Once
	authorization string
	err           error
}

func start(_ context.Context, s contender.Setup) (contender.Sign, error) {
	raw, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("the key is no PEM file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key is no PKCS #8 key")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key is no ECDSA key")
	}
	l := &loop{
		url: s.URL, host: s.Host, username: s.Username, key: key, config: digestOf([]byte(config)),
		client:       &http.Client{Transport: &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512}},
		repositories: make(map[string]*repository),
	}
	if s.SecretFile != "" {
		secret, err := os.ReadFile(s.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("reading the secret: %w", err)
		}
		l.secret = strings.TrimSpace(string(secret))
	}
	return l.sign, nil
}

func (l *loop) sign(ctx context.Context, name, digest string) error {
	r := l.repository(name)
	r.once.Do(func() {
		if r.authorization, r.err = l.authorize(ctx, name); r.err == nil {
			r.err = l.upload(ctx, r, name, l.config, []byte(config))
		}
	})
	if r.err != nil {
		return r.err
	}
	manifests := l.url + "/v2/" + name + "/manifests/"
	if _, _, err := l.send(ctx, r, http.MethodGet, manifests+digest, "", nil, http.StatusOK); err != nil {
		return err
	}
	tag := manifests + strings.Replace(digest, ":", "-", 1) + ".sig"
	if _, _, err := l.send(ctx, r, http.MethodGet, tag, "", nil, http.StatusNotFound); err != nil {
		return err
	}
	payload := fmt.Appendf(nil, payloadFormat, l.host+"/"+name, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, l.key, sum[:])
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	layer := digestOf(payload)
	if err := l.upload(ctx, r, name, layer, payload); err != nil {
		return err
	}
	manifest := fmt.Appendf(nil, manifestFormat, l.config, len(payload), layer, base64.StdEncoding.EncodeToString(signature))
	if _, _, err := l.send(ctx, r, http.MethodPut, tag, manifestType, manifest, http.StatusCreated); err != nil {
		return err
	}
	stored, _, err := l.send(ctx, r, http.MethodGet, tag, "", nil, http.StatusOK)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, manifest) || !ecdsa.VerifyASN1(&l.key.PublicKey, sum[:], signature) {
		return errors.New("the signature that was read back is another one")
	}
	return nil
}

func (l *loop) repository(name string) *repository {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.repositories[name]
	if r == nil {
		r = &repository{}
		l.repositories[name] = r
	}
	return r
}

// upload stores a blob by POST and PUT.
func (l *loop) upload(ctx context.Context, r *repository, name, digest string, content []byte) error {
	_, header, err := l.send(ctx, r, http.MethodPost, l.url+"/v2/"+name+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	location := header.Get("Location")
	if strings.HasPrefix(location, "/") {
		location = l.url + location
	}
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	_, _, err = l.send(ctx, r, http.MethodPut, location+separator+"digest="+digest, "application/octet-stream", content, http.StatusCreated)
	return err
}
