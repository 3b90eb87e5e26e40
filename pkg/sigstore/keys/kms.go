package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxText bounds what is shown of another side's words, in bytes.
const maxText = 400

// provider is one kind of KMS.
type provider struct {
	// scheme is what a reference begins with, without the colon and the slashes.
	scheme string
	// build says which build has it.
	build string
	// open connects to a key; nil if this program was built without the provider. It must not ask the other side anything.
	open func(ctx context.Context, s Source) (remote, error)
}

func providers() []provider {
	return []provider{hashivaultProvider(), awskmsProvider(), gcpkmsProvider(), azurekmsProvider()}
}

// Providers lists the sources beside files that this program was built with: the schemes of KMS references, and "pkcs11".
func Providers() []string {
	var in []string
	for _, p := range providers() {
		if p.open != nil {
			in = append(in, p.scheme)
		}
	}
	if pkcs11Built {
		in = append(in, "pkcs11")
	}
	return in
}

func openKMS(ctx context.Context, s Source) (remote, error) {
	scheme, _, found := strings.Cut(s.KMS, "://")
	all := providers()
	i := slices.IndexFunc(all, func(p provider) bool { return p.scheme == scheme })
	switch {
	case !found || i < 0:
		var schemes []string
		for _, p := range all {
			schemes = append(schemes, p.scheme+"://")
		}
		return nil, fmt.Errorf("KMS reference %q: want one that begins with %s", s.KMS, strings.Join(schemes, ", "))
	case all[i].open == nil:
		return nil, fmt.Errorf("this program was built without %s: take one that was built %s", scheme, all[i].build)
	}
	there, err := all[i].open(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.KMS, err)
	}
	return there, nil
}

// errNoTransport keeps a provider from dialling by itself.
var errNoTransport = errors.New("no transport was given to reach it")
