package sigstore_test

import (
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

var (
	_ signing.Keys         = (*sigstore.Keyring)(nil)
	_ signing.LegacyFormat = (*sigstore.Legacy)(nil)
	_ signing.BundleFormat = (*sigstore.Bundles)(nil)
)
