//go:build !azurekms

package keys

func azurekmsProvider() provider {
	return provider{scheme: "azurekms", build: "with the tag azurekms"}
}
