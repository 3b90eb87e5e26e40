//go:build !no_awskms

package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"
	"github.com/sigstore/sigstore/pkg/signature/kms/aws"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

// credentialsTTL is how long credentials from a file are used before it is read again.
const credentialsTTL = 5 * time.Minute

func awskmsProvider() provider {
	return provider{scheme: "awskms", build: "without the tag no_awskms", open: openAWS}
}

// awsKey is a key of AWS KMS, as sigstore's provider reaches it.
type awsKey struct {
	signer      *aws.SignerVerifier
	credentials *credentials
}

func openAWS(ctx context.Context, s Source) (remote, error) {
	if err := aws.ValidReference(s.KMS); err != nil {
		return nil, err
	}
	if s.Transport == nil {
		return nil, errNoTransport
	}
	// With the first, sigstore's provider would put a client without checks in the place of ours; the second, the SDK refuses
	// beside a client of ours, with a text that tells nobody what to do.
	for _, name := range []string{"AWS_TLS_INSECURE_SKIP_VERIFY", "AWS_CA_BUNDLE"} {
		if os.Getenv(name) != "" {
			return nil, fmt.Errorf("%s is set: unset it for this program, and name the authorities in its configuration", name)
		}
	}
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(&http.Client{
			Transport: s.Transport, Timeout: s.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		// One attempt: retrying is the queue's.
		config.WithRetryer(func() awssdk.Retryer { return awssdk.NopRetryer{} }),
	}
	if s.AWS.Region != "" {
		opts = append(opts, config.WithRegion(s.AWS.Region))
	}
	if s.AWS.Profile != "" && s.AWS.CredentialsFile == "" {
		opts = append(opts, config.WithSharedConfigProfile(s.AWS.Profile))
	}
	from, err := credentialsOf(ctx, s.AWS, opts)
	if err != nil {
		return nil, err
	}
	k := &awsKey{credentials: &credentials{from: from}}
	// The cache asks for credentials anew shortly before they expire; those that it hands out were all seen by k.credentials.
	opts = append(opts, config.WithCredentialsProvider(awssdk.NewCredentialsCache(k.credentials)))
	if k.signer, err = aws.LoadSignerVerifier(ctx, s.KMS, opts...); err != nil {
		return nil, k.explain(err)
	}
	return k, nil
}

// credentialsOf gives the configured credentials, or those that the SDK finds by itself.
func credentialsOf(ctx context.Context, o AWSOptions, opts []func(*config.LoadOptions) error) (awssdk.CredentialsProvider, error) {
	if o.CredentialsFile != "" {
		if _, err := readCredentials(ctx, o); err != nil {
			return nil, err
		}
		return awssdk.CredentialsProviderFunc(func(ctx context.Context) (awssdk.Credentials, error) { return readCredentials(ctx, o) }), nil
	}
	found, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("configuration of AWS: %s", redact.New().Text(err.Error(), maxText))
	}
	return found.Credentials, nil
}

func readCredentials(ctx context.Context, o AWSOptions) (awssdk.Credentials, error) {
	if _, err := secretfile.Read(o.CredentialsFile); err != nil {
		return awssdk.Credentials{}, fmt.Errorf("credentials of AWS: %w", err)
	}
	profile := o.Profile
	if profile == "" {
		profile = config.DefaultSharedConfigProfile
	}
	read, err := config.LoadSharedConfigProfile(ctx, profile, func(l *config.LoadSharedConfigOptions) {
		l.CredentialsFiles, l.ConfigFiles = []string{o.CredentialsFile}, []string{}
	})
	if err != nil || !read.Credentials.HasKeys() {
		// The SDK's error may show a line of the file.
		return awssdk.Credentials{}, fmt.Errorf("credentials of AWS: %s: want aws_access_key_id and aws_secret_access_key in a section [%s]",
			o.CredentialsFile, profile)
	}
	read.Credentials.CanExpire, read.Credentials.Expires = true, time.Now().Add(credentialsTTL)
	return read.Credentials, nil
}

// credentials hands credentials on and remembers the last ones, to keep them out of errors.
type credentials struct {
	from awssdk.CredentialsProvider

	mu      sync.Mutex
	secrets *redact.Redactor // guarded by mu; nil before the first
}

// Retrieve implements [awssdk.CredentialsProvider].
func (c *credentials) Retrieve(ctx context.Context) (awssdk.Credentials, error) {
	got, err := c.from.Retrieve(ctx)
	if err != nil {
		return awssdk.Credentials{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = redact.New(got.SecretAccessKey, got.SessionToken)
	return got, nil
}

func (c *credentials) redactor() *redact.Redactor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secrets == nil {
		return redact.New()
	}
	return c.secrets
}

func (k *awsKey) publicKey(ctx context.Context) (crypto.PublicKey, error) {
	public, err := k.signer.PublicKey(options.WithContext(ctx))
	return public, k.explain(err)
}

// fits refuses what signs otherwise than cosign verifies.
//
// SPEC: AWS KMS Developer Guide, Key spec reference: ECC_NIST_P384 signs with ECDSA_SHA_384 alone; RSA keys list
// RSASSA_PKCS1_V1_5_SHA_256 first, which is what sigstore's provider then takes.
func (k *awsKey) fits(public crypto.PublicKey) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return nil
		}
		return errors.New("AWS KMS signs with SHA-384 where the curve is P-384, and `cosign verify --key` expects SHA-256: take a key of the spec " +
			"ECC_NIST_P256 or RSA")
	default:
		return errors.New("sigstore's provider for AWS signs with RSA and ECDSA keys alone: take one of the spec ECC_NIST_P256 or RSA")
	}
}

func (k *awsKey) sign(ctx context.Context, _ crypto.PublicKey, payload []byte) ([]byte, error) {
	signed, err := k.signer.SignMessage(bytes.NewReader(payload), options.WithContext(ctx))
	return signed, k.explain(err)
}

// close has nothing to close: the transport is the caller's.
func (k *awsKey) close() error { return nil }

// explain says what to do about an error of the provider, without credentials: AWS echoes the whole request, session token and
// all, where it refuses a request's signature.
func (k *awsKey) explain(err error) error {
	if err == nil {
		return nil
	}
	secrets := k.credentials.redactor()
	status := 0 // none
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return byStatus(status, byNetwork(err, errors.New(secrets.Text(err.Error(), maxText))))
	}
	said := answer.ErrorCode() + ": " + answer.ErrorMessage()
	if status != 0 {
		said = fmt.Sprintf("%d %s", status, said)
	}
	said = secrets.Text(said, maxText)
	switch answer.ErrorCode() {
	case "AccessDeniedException":
		return refused(fmt.Errorf("AWS KMS answered %s (the credentials need kms:GetPublicKey, kms:DescribeKey and kms:Sign on this key)", said))
	case "UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException", "IncompleteSignatureException":
		return refused(fmt.Errorf("AWS KMS answered %s (are the credentials right and not expired, and is the clock?)", said))
	case "ThrottlingException", "LimitExceededException", "DependencyTimeoutException", "KeyUnavailableException", "KMSInternalException":
		return away(fmt.Errorf("AWS KMS answered %s", said))
	case "NotFoundException", "DisabledException", "KMSInvalidStateException", "InvalidKeyUsageException":
		return fmt.Errorf("AWS KMS answered %s (is this an enabled key for SIGN_VERIFY in this region?)", said)
	default:
		return byStatus(status, fmt.Errorf("AWS KMS answered %s", said))
	}
}
