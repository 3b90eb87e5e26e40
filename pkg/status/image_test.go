package status_test

import (
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/status"
)

const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParseImage(t *testing.T) {
	const ported = "harbor.example.com:8443"
	for _, tt := range []struct {
		name, host, image string
		want              status.Image // zero for an error
		says              string
	}{
		{"tag", host, host + "/demo/app:v1", status.Image{Repository: "demo/app", Tag: "v1"}, ""},
		{"digest", host, host + "/demo/app@" + digest, status.Image{Repository: "demo/app", Digest: digest}, ""},
		{"tag and digest", host, host + "/demo/app:v1@" + digest, status.Image{Repository: "demo/app", Tag: "v1", Digest: digest}, ""},
		{"neither", host, host + "/demo/app", status.Image{Repository: "demo/app", Tag: "latest"}, ""},
		{"nested", host, host + "/demo/a/b/c:V_1.x", status.Image{Repository: "demo/a/b/c", Tag: "V_1.x"}, ""},
		{"host in upper case", host, "Harbor.EXAMPLE.com/demo/app:v1", status.Image{Repository: "demo/app", Tag: "v1"}, ""},
		{"port", ported, ported + "/demo/app:v1", status.Image{Repository: "demo/app", Tag: "v1"}, ""},
		{"no port", ported, host + "/demo/app:v1", status.Image{}, "another host"},
		{"other port", ported, host + ":443/demo/app:v1", status.Image{}, "another host"},
		{"other host", host, "docker.io/library/app:v1", status.Image{}, "another host"},
		{"our host as a prefix", host, host + ".evil.example/demo/app:v1", status.Image{}, "another host"},
		{"our host as a user", host, host + "@evil.example/demo/app:v1", status.Image{}, "another host"},
		{"letters that fold into ours", host, "harbor.example.com\u212a/demo/app", status.Image{}, "another host"},
		{"no host", host, "demo/app:v1", status.Image{}, "another host"},
		{"name alone", host, "app", status.Image{}, "no repository"},
		{"empty", host, "", status.Image{}, "empty"},
		{"scheme", host, "https://" + host + "/demo/app:v1", status.Image{}, "scheme"},
		{"project alone", host, host + "/demo:v1", status.Image{}, "want project/name"},
		{"upper case", host, host + "/Demo/app:v1", status.Image{}, "project name"},
		{"climbing", host, host + "/demo/../app:v1", status.Image{}, "component"},
		{"empty tag", host, host + "/demo/app:", status.Image{}, "tag"},
		{"bad tag", host, host + "/demo/app:.x", status.Image{}, "tag"},
		{"bad tag before a digest", host, host + "/demo/app:.x@" + digest, status.Image{}, "tag"},
		{"short digest", host, host + "/demo/app@sha256:abc", status.Image{}, "digest"},
		{"empty digest", host, host + "/demo/app@", status.Image{}, "digest"},
		{"two digests", host, host + "/demo/app@" + digest + "@" + digest, status.Image{}, "digest"},
		{"query", host, host + "/demo/app:v1?x=1", status.Image{}, "tag"},
		{"control", host, host + "/demo/app:v1\n", status.Image{}, "tag"},
		{"long", host, host + "/demo/" + strings.Repeat("a", 1100), status.Image{}, "bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := status.ParseImage(tt.host, tt.image)
			if got != tt.want || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("ParseImage(%q) = %+v, %v; want %+v, an error with %q", tt.image, got, err, tt.want, tt.says)
			}
		})
	}
}

// FuzzParseImage: what is taken is valid, of the configured host, and the same when it is written and read again.
func FuzzParseImage(f *testing.F) {
	for _, seed := range []string{
		host + "/demo/app:v1", host + "/demo/app@" + digest, host + "/demo/app:v1@" + digest, host + "/demo/app", "a/b", "x:1/y:2@z", "",
		host + "//", host + "/a/b:c:d", host + "/demo/app:v1@sha256:", "[::1]:5000/a/b", strings.ToUpper(host) + "/a/b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := status.ParseImage(host, s)
		if err != nil {
			if i != (status.Image{}) {
				t.Fatalf("ParseImage(%q) gave %+v beside an error", s, i)
			}
			if len(err.Error()) > 1024 {
				t.Fatalf("ParseImage(%q): an error of %d bytes", s, len(err.Error()))
			}
			return
		}
		if artifact.ValidateRepository(i.Repository) != nil || i.Tag != "" && artifact.ValidateTag(i.Tag) != nil ||
			i.Digest != "" && artifact.ValidateDigest(i.Digest) != nil || i.Tag == "" && i.Digest == "" {
			t.Fatalf("ParseImage(%q) = %+v", s, i)
		}
		if !strings.HasPrefix(strings.ToLower(s), host+"/") {
			t.Fatalf("ParseImage(%q) took another host", s)
		}
		if again, err := status.ParseImage(host, i.At(host)); err != nil || again != i {
			t.Fatalf("ParseImage(%q) = %+v, %v; want %+v again", i.At(host), again, err, i)
		}
	})
}

// digestOf is the digest that is made of one digit.
func digestOf(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }
