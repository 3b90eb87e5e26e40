//go:build !gcpkms

package keys

func gcpkmsProvider() provider {
	return provider{scheme: "gcpkms", build: "with the tag gcpkms"}
}
