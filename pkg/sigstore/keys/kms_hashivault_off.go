//go:build no_hashivault

package keys

func hashivaultProvider() provider {
	return provider{scheme: "hashivault", build: "without the tag no_hashivault"}
}
