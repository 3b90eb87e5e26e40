//go:build !no_hashivault

package keys_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// token is what opens the stand-in of Vault.
const token = "hvs.CAESIHunter2/secret+token" //nolint:gosec // of the stand-in

// vaultServer stands in for the transit engine of Vault.
//
// SPEC: Vault HTTP API, Transit secrets engine: Read Key, Sign Data.
type vaultServer struct {
	*standIn
	token string // guarded by mu
}

func newVault(t *testing.T, key crypto.Signer) *vaultServer {
	t.Helper()
	v := &vaultServer{standIn: newStandIn(t, key), token: token}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/team/transit/keys/image-key", v.readKey)
	mux.HandleFunc("PUT /v1/team/transit/sign/image-key", v.signData)
	mux.HandleFunc("PUT /v1/team/transit/sign/image-key/{hash}", v.signData)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answerWith(http.StatusNotFound, `{"errors":[]}`)(w) })
	v.serve(t, mux, false)
	return v
}

func (v *vaultServer) allows(w http.ResponseWriter, r *http.Request) bool {
	v.mu.Lock()
	want := v.token
	v.mu.Unlock()
	if r.Header.Get("X-Vault-Token") != want {
		answerWith(http.StatusForbidden, `{"errors":["permission denied"]}`)(w)
		return false
	}
	return true
}

func (v *vaultServer) setToken(token string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.token = token
}

func (v *vaultServer) readKey(w http.ResponseWriter, r *http.Request) {
	if !v.enter(w, r, "key") || !v.allows(w, r) {
		return
	}
	all := v.versions()
	described := map[string]any{}
	for i, key := range all {
		name, public := transitKey(key)
		described[strconv.Itoa(i+1)] = map[string]any{"name": name, "public_key": public, "creation_time": "2026-01-31T12:00:00Z"}
	}
	reply(w, map[string]any{"type": "some", "latest_version": len(all), "min_available_version": 0, "keys": described})
}

// transitKey describes a key as Vault does: PEM for all but Ed25519.
func transitKey(key crypto.Signer) (name, public string) {
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return "ed25519", base64.StdEncoding.EncodeToString(k)
	case *ecdsa.PublicKey:
		name = k.Curve.Params().Name
	case *rsa.PublicKey:
		name = fmt.Sprintf("rsa-%d", k.N.BitLen())
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return name, ""
	}
	return name, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (v *vaultServer) signData(w http.ResponseWriter, r *http.Request) {
	if !v.enter(w, r, "sign") || !v.allows(w, r) {
		return
	}
	var in struct {
		Input      string      `json:"input"`
		Prehashed  bool        `json:"prehashed"`
		KeyVersion json.Number `json:"key_version"`
		Algorithm  string      `json:"signature_algorithm"`
	}
	if err := json.Unmarshal(body(r), &in); err != nil {
		answerWith(http.StatusBadRequest, `{"errors":["malformed"]}`)(w)
		return
	}
	input, err := base64.StdEncoding.DecodeString(in.Input)
	all := v.versions()
	version, badVersion := strconv.Atoi(strings.Trim(in.KeyVersion.String(), `"`))
	if version == 0 {
		version = len(all)
	}
	key := all[min(version, len(all))-1]
	prehashed := in.Prehashed && r.PathValue("hash") == "sha2-256" && len(input) == 32
	if err != nil || badVersion != nil || prehashed == isEd25519(key) || in.Algorithm != "pkcs1v15" {
		answerWith(http.StatusBadRequest, `{"errors":["invalid input"]}`)(w)
		return
	}
	signature, err := v.sign(key, input, crypto.SHA256)
	if err != nil {
		answerWith(http.StatusInternalServerError, `{"errors":["1 error occurred"]}`)(w)
		return
	}
	reply(w, map[string]any{"key_version": version, "signature": fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(signature))})
}

func reply(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(map[string]any{"request_id": "1", "lease_id": "", "data": data}); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (v *vaultServer) source(t *testing.T) keys.Source {
	t.Helper()
	return keys.Source{
		Name: "prod", KMS: "hashivault://image-key", Transport: transport(t, ""),
		Vault: keys.VaultOptions{Address: v.server.URL, TokenFile: file(t, token+"\n"), Mount: "team/transit"},
	}
}

func TestVault(t *testing.T) {
	t.Parallel()
	testKMS(t, kmsCase{
		start: func(t *testing.T, key crypto.Signer) (*standIn, keys.Source) {
			t.Helper()
			v := newVault(t, key)
			return v.standIn, v.source(t)
		},
		keys:    []string{"p256", "p384", "ed25519", "rsa"},
		secrets: []string{token, "Hunter2"},
		faults: map[string]kmsFault{
			"sealed":            {answerWith(503, `{"errors":["Vault is sealed"]}`), "503 from Vault (Vault is sealed)", isAway},
			"rate limited":      {answerWith(429, `{"errors":["request path quota exceeded"]}`), "429 from Vault", isAway},
			"internal":          {answerWith(500, `{"errors":["internal error"]}`), "500 from Vault (internal error)", isAway},
			"forbidden":         {answerWith(403, `{"errors":["permission denied"]}`), "update team/transit/sign/image-key", isRefused},
			"no such key":       {answerWith(404, `{"errors":[]}`), "is there a key image-key in the transit engine at team/transit?", isWrong},
			"404 without body":  {answerWith(404, ``), "404 from Vault (Not Found)", isWrong},
			"200 without body":  {answerWith(200, ``), "nothing to read", isWrong},
			"a proxy's page":    {answerWith(502, "<html>bad\ngateway</html>"), "502 from Vault (<html>bad gateway</html>)", isAway},
			"redirect":          {func(w http.ResponseWriter) { w.Header().Set("Location", "http://127.0.0.1:1/"); w.WriteHeader(307) }, "name the address of the active node", isWrong},
			"garbage":           {answerWith(200, `{"data":{"signature":1}}`), "non-string", isWrong},
			"no signature":      {answerWith(200, `{"data":{}}`), "corrupted", isWrong},
			"null":              {answerWith(200, `null`), "corrupted", isWrong},
			"huge":              {answerWith(200, strings.Repeat("x", 2<<20)), "more than 1048576 bytes", isWrong},
			"echo of the token": {answerWith(400, `{"errors":["bad token `+token+`"]}`), "bad token [secret]", isWrong},
			"echo on a page":    {answerWith(400, `no JSON: `+token), "no JSON: [secret]", isWrong},
			"broken off":        {cut, "reading the answer of Vault", isAway},
		},
	})
}

// TestVaultNamesAnUnknownKey is about reading a key: the client takes a 404 for an empty answer there.
func TestVaultNamesAnUnknownKey(t *testing.T) {
	t.Parallel()
	v := newVault(t, rawKeys()["p256"])
	s := v.source(t)
	s.KMS = "hashivault://other"
	for _, pinned := range []string{"", file(t, string(loadedKeys()["p256"].PublicPEM()))} {
		s.PublicKeyFile = pinned
		_, err := keys.Open(t.Context(), s)
		wantOpenError(t, "pinned by "+pinned, err, isWrong, []string{token})
		if want := "404 from Vault (Not Found): is there a key other in the transit engine at team/transit?"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pinned by %q: Open() = %v, want %q", pinned, err, want)
		}
	}
}

func TestVaultMakesOneAttempt(t *testing.T) {
	t.Parallel()
	v := newVault(t, rawKeys()["p256"])
	key, err := keys.Open(t.Context(), v.source(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	before := v.count("sign")
	v.breakWith(answerWith(503, `{"errors":["Vault is sealed"]}`))
	if _, err := key.Sign(t.Context(), []byte("payload")); err == nil {
		t.Error("Sign() succeeded, want an error")
	}
	if n := v.count("sign") - before; n != 1 {
		t.Errorf("%d attempts were made, want 1", n)
	}
	if err := key.Probe(t.Context()); fault.Of(err).Reason != fault.KeyUnavailable {
		t.Errorf("Probe() = %v, want key_unavailable", err)
	}
}

func TestVaultReadsTheTokenAgain(t *testing.T) {
	t.Parallel()
	v := newVault(t, rawKeys()["p256"])
	s := v.source(t)
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	v.setToken("hvs.second")
	_, err = key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "is the token in "+s.Vault.TokenFile+" expired")
	write(t, s.Vault.TokenFile, []byte("hvs.second\n"), 0)
	if _, err := key.Sign(t.Context(), []byte("payload")); err != nil {
		t.Errorf("with the new token in its file: %v", err)
	}
	write(t, s.Vault.TokenFile, nil, 0)
	_, err = key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "is empty")
	write(t, s.Vault.TokenFile, []byte("hvs.second\n"), 0o640)
	_, err = key.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "chmod 600")
}

// TestVaultKeyVersion rotates the key in Vault.
func TestVaultKeyVersion(t *testing.T) {
	t.Parallel()
	first, second := rawKeys()["p256"], rawKeys()["second"]
	v := newVault(t, first)
	newest, err := keys.Open(t.Context(), v.source(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, newest)
	s := v.source(t)
	s.Vault.KeyVersion = 1
	if _, err := keys.Open(t.Context(), s); err == nil || !strings.Contains(err.Error(), "needs a public key file") {
		t.Errorf("a version without a public key: Open() = %v, want it refused", err)
	}
	s.PublicKeyFile = file(t, string(newest.PublicPEM()))
	pinned, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, pinned)

	v.use(second, first)
	wantSigns(t, pinned, first.Public())
	_, err = newest.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "rotated or replaced")
	s.Vault.KeyVersion = 2
	v.breakWith(answerWith(503, `{"errors":["Vault is sealed"]}`))
	late, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, late)
	v.breakWith(nil)
	_, err = late.Sign(t.Context(), []byte("payload"))
	wantUnavailable(t, err, "rotated or replaced")
	if _, err := keys.Open(t.Context(), s); err == nil || !strings.Contains(err.Error(), "rotated or replaced") {
		t.Errorf("version 2 with the public key of version 1: Open() = %v, want it refused", err)
	}
}

func TestVaultSendsNothingElse(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "hvs.environment")
	t.Setenv("VAULT_NAMESPACE", "environment")
	t.Setenv("VAULT_HEADERS", `{"X-Environment":"yes"}`)
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_PROXY_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_SKIP_VERIFY", "1")
	t.Setenv("TRANSIT_SECRET_ENGINE_PATH", "elsewhere")
	v := newVault(t, rawKeys()["p256"])
	s := v.source(t)
	s.Vault.Namespace = "platform"
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.headers {
		if h.Get("X-Vault-Token") != token || h.Get("X-Vault-Namespace") != "platform" || h.Get("X-Environment") != "" {
			t.Errorf("got the headers %v, want the configured ones alone", h)
		}
	}
}

func TestVaultRefuses(t *testing.T) {
	t.Parallel()
	v := newVault(t, rawKeys()["p256"])
	for name, tt := range map[string]struct {
		change func(*keys.Source)
		want   string
	}{
		"no address":        {func(s *keys.Source) { s.Vault.Address = "" }, "want an origin"},
		"credentials":       {func(s *keys.Source) { s.Vault.Address = "https://Hunter2:Hunter2@vault" }, "want an origin"},
		"a path":            {func(s *keys.Source) { s.Vault.Address = "https://vault/v1" }, "want an origin"},
		"not encrypted":     {func(s *keys.Source) { s.Vault.Address = "http://vault:8200" }, "want https"},
		"another scheme":    {func(s *keys.Source) { s.Vault.Address = "unix:///run/vault" }, "want an origin"},
		"no token":          {func(s *keys.Source) { s.Vault.TokenFile = "none" }, "token: "},
		"no transport":      {func(s *keys.Source) { s.Transport = nil }, "no transport"},
		"a mount upwards":   {func(s *keys.Source) { s.Vault.Mount = "../sys" }, "mount of the transit engine"},
		"an odd mount":      {func(s *keys.Source) { s.Vault.Mount = "a b/{x}" }, "mount of the transit engine"},
		"a rooted mount":    {func(s *keys.Source) { s.Vault.Mount = "/transit" }, "mount of the transit engine"},
		"a nested key":      {func(s *keys.Source) { s.KMS = "hashivault://a/b" }, "hashivault://<key>"},
		"an odd key":        {func(s *keys.Source) { s.KMS = "hashivault://{x}" }, "hashivault://<key>"},
		"a negative number": {func(s *keys.Source) { s.Vault.KeyVersion = -1 }, "key version -1"},
	} {
		s := v.source(t)
		tt.change(&s)
		_, err := keys.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open() = %v, want an error with %q", name, err, tt.want)
			continue
		}
		wantNoSecret(t, err, token, "Hunter2")
	}
	if asked := v.count("key") + v.count("sign"); asked != 0 {
		t.Errorf("Vault was asked %d times, want never", asked)
	}
}
