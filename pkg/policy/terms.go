package policy

import (
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Format is the format or formats that a project's signatures have.
type Format string

// The formats that a policy may name.
const (
	// FormatAuto is both where Harbor takes a bundle for a signature, else legacy.
	FormatAuto   Format = "auto"
	FormatLegacy Format = "legacy"
	FormatBundle Format = "bundle"
	// FormatBoth asks for one signature in each format.
	FormatBoth Format = "both"
)

// ErrNeedsBundles says that a policy asks for bundles on a Harbor that does not take them for signatures.
var ErrNeedsBundles = errors.New("the format needs Harbor 2.15 or later, because an older one does not take a bundle for a signature: " +
	"choose the format legacy or auto, or upgrade Harbor")

// Formats gives the formats to sign in, of which each needs a signature. bundles says whether Harbor takes a bundle for a
// signature. The error is ErrNeedsBundles.
func (f Format) Formats(bundles bool) ([]artifact.Format, error) {
	both := []artifact.Format{artifact.Legacy, artifact.Bundle}
	switch {
	case f == FormatLegacy, (f == FormatAuto || f == "") && !bundles:
		return both[:1], nil
	case !bundles:
		return nil, fmt.Errorf("format %s: %w", f, ErrNeedsBundles)
	case f == FormatBundle:
		return both[1:], nil
	default:
		return both, nil
	}
}

// Validate says whether f is one of the formats.
func (f Format) Validate() error {
	switch f {
	case FormatAuto, FormatLegacy, FormatBundle, FormatBoth:
		return nil
	default:
		return fmt.Errorf("format %.32q: want one of auto, legacy, bundle, both", string(f))
	}
}

// Terms are how the manifests of a project are signed.
type Terms struct {
	// Format is FormatAuto if it is empty.
	Format Format
	// Key is the name of the key that signs.
	Key string
	// Annotations stand in the payload of each new signature. They must not be changed.
	Annotations map[string]string
	// Transparency is TransparencyOff if it is empty, and Log the name of the transparency log.
	Transparency Transparency
	Log          string
	// Timestamp is TimestampOff if it is empty.
	Timestamp Timestamp
	// ActiveKeyOnly asks for a signature of the key that signs, beside those of retired keys that are valid.
	ActiveKeyOnly bool
}

// Or gives t with what it leaves open taken from the fallback. Annotations are taken as a whole.
func (t Terms) Or(fallback Terms) Terms {
	if t.Format == "" {
		t.Format = fallback.Format
	}
	if t.Key == "" {
		t.Key = fallback.Key
	}
	if t.Annotations == nil {
		t.Annotations = fallback.Annotations
	}
	if t.Transparency == "" {
		t.Transparency = fallback.Transparency
	}
	if t.Log == "" {
		t.Log = fallback.Log
	}
	if t.Timestamp == "" {
		t.Timestamp = fallback.Timestamp
	}
	return t
}
