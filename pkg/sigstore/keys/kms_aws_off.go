//go:build no_awskms

package keys

func awskmsProvider() provider {
	return provider{scheme: "awskms", build: "without the tag no_awskms"}
}
