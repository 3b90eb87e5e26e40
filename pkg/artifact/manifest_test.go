package artifact_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
)

func child(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func TestDescribe(t *testing.T) {
	const oci, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	tests := []struct {
		name, raw string
		want      artifact.Description
		wantErr   string
	}{
		{
			"image", `{"schemaVersion":2,"mediaType":"` + oci + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"}]}`,
			artifact.Description{MediaType: oci},
			"",
		},
		{"media type of the registry", `{"schemaVersion":2}`, artifact.Description{MediaType: "from/registry"}, ""},
		{
			"helm chart", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}`,
			artifact.Description{MediaType: "from/registry"},
			"",
		},
		{
			"index", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q},{"digest":%q},{"digest":%q}]}`, index, child("a"), child("b"), child("a")),
			artifact.Description{MediaType: index, Children: []string{child("a"), child("b")}},
			"",
		},
		{"empty index", `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`, artifact.Description{MediaType: index, Children: []string{}}, ""},
		{
			"buildkit attestation", `{"schemaVersion":2,"mediaType":"` + oci + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.in-toto+json"}]}`,
			artifact.Description{MediaType: oci},
			"",
		},
		{
			"referrer", `{"schemaVersion":2,"mediaType":"` + oci + `","subject":{"digest":"` + child("c") + `"}}`,
			artifact.Description{MediaType: oci, Accessory: true, Subject: child("c")},
			"",
		},
		{
			"legacy signature", `{"schemaVersion":2,"mediaType":"` + oci + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json"}]}`,
			artifact.Description{MediaType: oci, Accessory: true},
			"",
		},
		{
			"legacy attestation", `{"schemaVersion":2,"mediaType":"` + oci + `","layers":[{"mediaType":"application/vnd.dsse.envelope.v1+json"}]}`,
			artifact.Description{MediaType: oci, Accessory: true},
			"",
		},
		{
			"bundle without subject", `{"schemaVersion":2,"mediaType":"` + oci + `","artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`,
			artifact.Description{MediaType: oci, Accessory: true},
			"",
		},
		{
			"cosign config", `{"schemaVersion":2,"mediaType":"` + oci + `","config":{"mediaType":"application/vnd.dev.cosign.artifact.sig.v1+json"}}`,
			artifact.Description{MediaType: oci, Accessory: true},
			"",
		},
		{"child with a bad digest", `{"schemaVersion":2,"manifests":[{"digest":"sha256:abc"}]}`, artifact.Description{}, "manifests[0]"},
		{"not JSON", `<html>`, artifact.Description{}, "reading the manifest"},
		{"cut off", `{"schemaVersion":2,"manif`, artifact.Description{}, "reading the manifest"},
		{"too large", strings.Repeat(" ", artifact.MaxManifest+1), artifact.Description{}, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := artifact.Describe([]byte(tt.raw), "from/registry")
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("Describe error = %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatalf("Describe: %v", err)
			}
			if got.MediaType != tt.want.MediaType || got.Accessory != tt.want.Accessory || got.Subject != tt.want.Subject ||
				!slices.Equal(got.Children, tt.want.Children) || (got.Children == nil) != (tt.want.Children == nil) {
				t.Errorf("Describe = %+v, want %+v", got, tt.want)
			}
		})
	}
	if _, err := artifact.Describe([]byte(`{"schemaVersion":1}`), ""); !errors.Is(err, artifact.ErrUnsupported) {
		t.Errorf("schema 1: %v, want ErrUnsupported", err)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + child("a") + `"}],"subject":{"digest":"x"}}`))
	f.Add([]byte(`{"schemaVersion":2,"config":null,"layers":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := artifact.Describe(raw, "x")
		if err != nil {
			return
		}
		for _, c := range d.Children {
			if err := artifact.ValidateDigest(c); err != nil {
				t.Errorf("Describe(%q) gives the child %q", raw, c)
			}
		}
	})
}
