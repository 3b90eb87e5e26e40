package harness

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// tokenIssuer makes tokens for one account, and publishes the key that they verify with.
//
// SPEC: OpenID Connect Discovery 1.0, section 4: the configuration under /.well-known/openid-configuration.
type tokenIssuer struct {
	url    string
	key    *ecdsa.PrivateKey
	signer jose.Signer
	server *http.Server
	done   chan struct{}
}

const tokenKeyID = "harness"

func startTokenIssuer(ctx context.Context) (*tokenIssuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("starting the issuer of tokens: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: tokenKeyID}}, nil)
	if err != nil {
		return nil, fmt.Errorf("starting the issuer of tokens: %w", err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the issuer of tokens: %w", err)
	}
	i := &tokenIssuer{url: "http://" + listener.Addr().String(), key: key, signer: signer, done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		publish(w, map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/keys", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{string(jose.ES256)},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		publish(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: tokenKeyID, Algorithm: string(jose.ES256), Use: "sig"}}})
	})
	i.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(i.done)
		_ = i.server.Serve(listener) // It ends with close.
	}()
	return i, nil
}

func publish(w http.ResponseWriter, document any) {
	raw, err := json.Marshal(document)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // Nobody can be told.
}

// token makes one for the account of the signer.
func (i *tokenIssuer) token(life time.Duration) (string, error) {
	now := time.Now()
	raw, err := jwt.Signed(i.signer).Claims(jwt.Claims{
		Issuer: i.url, Subject: "system:serviceaccount:harborseal:signer", Audience: jwt.Audience{fulcioAudience},
		IssuedAt: jwt.NewNumericDate(now.Add(min(life, 0))), Expiry: jwt.NewNumericDate(now.Add(life)), ID: rand.Text(),
	}).Claims(map[string]any{"kubernetes.io": map[string]any{
		"namespace":      "harborseal",
		"serviceaccount": map[string]any{"name": "signer", "uid": "f5720c1d-e152-4356-a897-11b07aff165d"},
	}}).Serialize()
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	return raw, nil
}

func (i *tokenIssuer) close() error {
	err := i.server.Close()
	<-i.done
	return wrap("stopping the issuer of tokens", err)
}
