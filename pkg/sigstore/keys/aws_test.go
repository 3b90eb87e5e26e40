//go:build !no_awskms

package keys_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const (
	accessKey    = "AKIAIOSFODNN7EXAMPLE"                     //nolint:gosec // of the stand-in
	secretKey    = "wJalrXUtnFEMI/Hunter2/bPxRfiCYEXAMPLEKEY" //nolint:gosec // of the stand-in
	sessionToken = "IQoJb3JpZ2luX2VjHunter3//token=="         //nolint:gosec // of the stand-in
	keyARN       = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// awsServer stands in for AWS KMS. It looks at the credentials that a request names, but does not check its signature.
//
// SPEC: AWS KMS API Reference: GetPublicKey, DescribeKey, Sign (the JSON 1.1 protocol: one address, the operation in a header).
type awsServer struct {
	*standIn
	access string // guarded by mu
}

func newAWS(t *testing.T, key crypto.Signer) *awsServer {
	t.Helper()
	a := &awsServer{standIn: newStandIn(t, key), access: accessKey}
	a.serve(t, http.HandlerFunc(a.handle), true)
	return a
}

func (a *awsServer) handle(w http.ResponseWriter, r *http.Request) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if !a.enter(w, r, operation) {
		return
	}
	a.mu.Lock()
	credential := "AWS4-HMAC-SHA256 Credential=" + a.access + "/"
	a.mu.Unlock()
	var in struct {
		KeyID            string `json:"KeyId"`
		Message          []byte `json:"Message"`
		MessageType      string `json:"MessageType"`
		SigningAlgorithm string `json:"SigningAlgorithm"`
	}
	err := json.Unmarshal(body(r), &in)
	authorization := r.Header.Get("Authorization")
	switch {
	case err != nil:
		awsError("SerializationException", "malformed")(w)
	case !strings.HasPrefix(authorization, credential) || !strings.Contains(authorization, "/eu-central-1/kms/aws4_request"):
		awsError("UnrecognizedClientException", "The security token included in the request is invalid.")(w)
	case in.KeyID != keyARN:
		awsError("NotFoundException", "Key '"+in.KeyID+"' does not exist")(w)
	default:
		a.answer(w, operation, in.Message, in.MessageType, in.SigningAlgorithm)
	}
}

func (a *awsServer) answer(w http.ResponseWriter, operation string, message []byte, kind, algorithm string) {
	all := a.versions()
	key := all[len(all)-1]
	spec, algorithms := awsSpec(key)
	answer := map[string]any{"KeyId": keyARN}
	switch operation {
	case "GetPublicKey":
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			awsError("KMSInternalException", "bad key")(w)
			return
		}
		answer["PublicKey"], answer["KeySpec"], answer["KeyUsage"], answer["SigningAlgorithms"] = der, spec, "SIGN_VERIFY", algorithms
	case "DescribeKey":
		answer = map[string]any{"KeyMetadata": map[string]any{
			"KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab", "Arn": keyARN, "KeySpec": spec, "KeyUsage": "SIGN_VERIFY", "KeyState": "Enabled",
			"Enabled": true, "SigningAlgorithms": algorithms,
		}}
	case "Sign":
		if kind != "DIGEST" || algorithm != algorithms[0] || len(message) != sha256.Size {
			awsError("ValidationException", "Digest is invalid length for algorithm "+algorithm)(w)
			return
		}
		signature, err := a.sign(key, message, crypto.SHA256)
		if err != nil {
			awsError("KMSInternalException", "cannot sign")(w)
			return
		}
		answer["Signature"], answer["SigningAlgorithm"] = signature, algorithm
	default:
		awsError("UnknownOperationException", operation)(w)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// awsSpec is what AWS tells of a key.
func awsSpec(key crypto.Signer) (spec string, algorithms []string) {
	switch k := key.Public().(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			return "ECC_NIST_P384", []string{"ECDSA_SHA_384"}
		}
		return "ECC_NIST_P256", []string{"ECDSA_SHA_256"}
	case *rsa.PublicKey:
		return "RSA_2048", []string{
			"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
			"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
		}
	default:
		return "ECC_NIST_EDWARDS25519", []string{"ED25519_SHA_512", "ED25519_PH_SHA_512"}
	}
}

func awsError(kind, message string) func(http.ResponseWriter) {
	return awsStatus(http.StatusBadRequest, kind, message)
}

func awsStatus(status int, kind, message string) func(http.ResponseWriter) {
	text, err := json.Marshal(map[string]string{"__type": kind, "message": message})
	if err != nil {
		panic(err)
	}
	return answerWith(status, string(text))
}

// credentialsFile is in the format of ~/.aws/credentials.
func credentialsFile(section, access string) string {
	return "[" + section + "]\naws_access_key_id = " + access + "\naws_secret_access_key = " + secretKey + "\naws_session_token = " + sessionToken + "\n"
}

func (a *awsServer) source(t *testing.T) keys.Source {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	return keys.Source{
		Name: "prod", KMS: "awskms://" + a.server.Listener.Addr().String() + "/" + keyARN,
		Transport: transport(t, file(t, string(ca))),
		AWS:       keys.AWSOptions{Region: "eu-central-1", CredentialsFile: file(t, credentialsFile("default", accessKey))},
	}
}

func TestAWS(t *testing.T) {
	t.Parallel()
	testKMS(t, kmsCase{
		start: func(t *testing.T, key crypto.Signer) (*standIn, keys.Source) {
			t.Helper()
			a := newAWS(t, key)
			return a.standIn, a.source(t)
		},
		keys:    []string{"p256", "rsa"},
		secrets: []string{secretKey, sessionToken, "Hunter2", "Hunter3"},
		faults: map[string]kmsFault{
			"forbidden":         {awsError("AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized"), "kms:GetPublicKey, kms:DescribeKey and kms:Sign", isRefused},
			"bad credentials":   {awsError("UnrecognizedClientException", "The security token is invalid"), "are the credentials right", isRefused},
			"expired":           {awsError("ExpiredTokenException", "expired"), "are the credentials right", isRefused},
			"echo of the token": {awsError("InvalidSignatureException", "The Canonical String should have been\nx-amz-security-token:"+sessionToken+"\n"+secretKey), "x-amz-security-token:[secret] [secret]", isRefused},
			"no such key":       {awsError("NotFoundException", "does not exist"), "enabled key for SIGN_VERIFY", isWrong},
			"disabled":          {awsError("DisabledException", "is disabled"), "enabled key for SIGN_VERIFY", isWrong},
			"to be deleted":     {awsError("KMSInvalidStateException", "is pending deletion"), "enabled key for SIGN_VERIFY", isWrong},
			"throttled":         {awsError("ThrottlingException", "Rate exceeded"), "ThrottlingException: Rate exceeded", isAway},
			"internal":          {awsStatus(500, "KMSInternalException", "internal"), "KMSInternalException: internal", isAway},
			"503":               {answerWith(503, "<html>"+secretKey), "StatusCode: 503", isAway},
			"429":               {answerWith(429, ""), "answered 429", isAway},
			"200 without body":  {answerWith(200, ""), "no signature", isWrong},
			"garbage":           {answerWith(200, `{"Signature":"AAAA"}`), "rotated or replaced", isWrong},
			"no JSON":           {answerWith(200, sessionToken), "", isWrong},
			"redirect":          {func(w http.ResponseWriter) { w.Header().Set("Location", "https://127.0.0.1:1/"); w.WriteHeader(307) }, "answered 307", isWrong},
			"broken off":        {cut, "", isAway},
		},
	})
}

func TestAWSRefusesKeys(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"p384": "`cosign verify --key` expects SHA-256", "ed25519": "RSA and ECDSA keys alone"} {
		a := newAWS(t, rawKeys()[name])
		_, err := keys.Open(t.Context(), a.source(t))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Open() = %v, want an error with %q", name, err, want)
		}
		if n := a.count("Sign"); n != 0 {
			t.Errorf("%s: AWS was asked for %d signatures, want none", name, n)
		}
		// A pinned key is known to be such a one without asking.
		a.breakWith(awsStatus(500, "KMSInternalException", "internal"))
		s := a.source(t)
		s.PublicKeyFile = file(t, string(loadedKeys()[name].PublicPEM()))
		_, err = keys.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, pinned while AWS is away: Open() = %v, want an error with %q", name, err, want)
		}
	}
}

func TestAWSMakesOneAttempt(t *testing.T) {
	t.Parallel()
	a := newAWS(t, rawKeys()["p256"])
	key, err := keys.Open(t.Context(), a.source(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	before := a.count("Sign")
	a.breakWith(awsStatus(500, "KMSInternalException", "internal"))
	if _, err := key.Sign(t.Context(), []byte("payload")); err == nil {
		t.Error("Sign() succeeded, want an error")
	}
	if n := a.count("Sign") - before; n != 1 {
		t.Errorf("%d attempts were made, want 1", n)
	}
}

func TestAWSCredentials(t *testing.T) {
	home := t.TempDir() // no profile files of whoever runs the test
	for name, value := range map[string]string{
		"HOME": home, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-central-1",
		"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": sessionToken,
	} {
		t.Setenv(name, value)
	}
	a := newAWS(t, rawKeys()["p256"])
	t.Run("environment", func(t *testing.T) {
		s := a.source(t)
		s.AWS = keys.AWSOptions{}
		key, err := keys.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer closeKey(t, key)
		a.breakWith(awsError("InvalidSignatureException", sessionToken+" "+secretKey))
		defer a.breakWith(nil)
		_, err = key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "[secret] [secret]")
		wantNoSecret(t, err, sessionToken, secretKey)
	})
	t.Run("a file goes before the environment", func(t *testing.T) {
		s := a.source(t)
		s.AWS.CredentialsFile, s.AWS.Profile = file(t, credentialsFile("signer", "AKIAOTHER")), "signer"
		_, err := keys.Open(t.Context(), s)
		wantOpenError(t, "with other credentials", err, isRefused, []string{secretKey})
		if err != nil && !strings.Contains(err.Error(), "UnrecognizedClientException") {
			t.Errorf("Open() = %v, want AWS's own word for it", err)
		}
	})
	for _, name := range []string{"AWS_TLS_INSECURE_SKIP_VERIFY", "AWS_CA_BUNDLE"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "1")
			_, err := keys.Open(t.Context(), a.source(t))
			if err == nil || !strings.Contains(err.Error(), name+" is set: unset it") {
				t.Errorf("Open() = %v, want it refused", err)
			}
		})
	}
	for name, tt := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"no section":   {credentialsFile("other", accessKey), 0o600, "in a section [default]"},
		"no keys":      {"[default]\nregion = x\n", 0o600, "in a section [default]"},
		"garbage":      {secretKey, 0o600, "in a section [default]"},
		"for everyone": {credentialsFile("default", accessKey), 0o644, "chmod 600"},
	} {
		t.Run(name, func(t *testing.T) {
			s := a.source(t)
			write(t, s.AWS.CredentialsFile, []byte(tt.content), tt.mode)
			_, err := keys.Open(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Open() = %v, want an error with %q", err, tt.want)
			}
			wantNoSecret(t, err, secretKey, sessionToken)
		})
	}
}

func TestAWSRefuses(t *testing.T) {
	t.Parallel()
	a := newAWS(t, rawKeys()["p256"])
	for name, tt := range map[string]struct {
		change func(*keys.Source)
		want   string
	}{
		"no key":           {func(s *keys.Source) { s.KMS = "awskms:///" }, "awskms://[ENDPOINT]/[ID/ALIAS/ARN]"},
		"no transport":     {func(s *keys.Source) { s.Transport = nil }, "no transport"},
		"no credentials":   {func(s *keys.Source) { s.AWS.CredentialsFile = "none" }, "credentials of AWS"},
		"a strange server": {func(s *keys.Source) { s.Transport = transport(t, "") }, "certificate"},
	} {
		s := a.source(t)
		tt.change(&s)
		_, err := keys.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open() = %v, want an error with %q", name, err, tt.want)
		}
	}
}
