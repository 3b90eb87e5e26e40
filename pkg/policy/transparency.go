package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Transparency is what a project asks of a transparency log.
type Transparency string

// What may be asked of a transparency log.
const (
	TransparencyOff Transparency = "off"
	// TransparencyRequired: without an entry in the log there is no signature.
	TransparencyRequired Transparency = "required"
	// TransparencyDeferred: images are signed now, and the entry is made when the log answers. Until then it is owed.
	TransparencyDeferred Transparency = "deferred"
)

// Validate says whether t is one of the values.
func (t Transparency) Validate() error {
	switch t {
	case TransparencyOff, TransparencyRequired, TransparencyDeferred:
		return nil
	default:
		return fmt.Errorf("transparency %.32q: want one of off, required, deferred", string(t))
	}
}

// Timestamp is what a project asks of a timestamp authority.
type Timestamp string

// What may be asked of a timestamp authority.
const (
	TimestampOff Timestamp = "off"
	// TimestampOptional: a signature has a timestamp if the authority answers at once.
	TimestampOptional Timestamp = "optional"
	// TimestampRequired: without a timestamp there is no signature.
	TimestampRequired Timestamp = "required"
)

// Validate says whether t is one of the values.
func (t Timestamp) Validate() error {
	switch t {
	case TimestampOff, TimestampOptional, TimestampRequired:
		return nil
	default:
		return fmt.Errorf("timestamp %.32q: want one of off, optional, required", string(t))
	}
}

// LogType is the protocol of a transparency log.
type LogType string

// The types of logs.
const (
	RekorV1 LogType = "rekor-v1"
	RekorV2 LogType = "rekor-v2"
)

// Carries says whether a signature of a format has a place for an entry of such a log. A legacy signature has none for an
// entry of Rekor v2, which has no signed entry timestamp.
func (t LogType) Carries(format artifact.Format) bool {
	return t == RekorV1 || t == RekorV2 && format == artifact.Bundle
}

// Means are what an installation has for what a policy asks for.
type Means struct {
	// Log is the type of the log that the policy names; empty if there is none of that name.
	Log LogType
	// Unfit says, for formats that the log could carry, why nobody could verify an entry of the policy's key there.
	Unfit map[artifact.Format]string
	// Timestamps says whether there is a timestamp authority.
	Timestamps bool
	// Keyless says that the policy's key is an identity with certificates that live for minutes.
	Keyless bool
	// Formats are those that the policy's signatures have on this Harbor, and Bundles says whether it takes bundles at all.
	Formats []artifact.Format
	Bundles bool
	// Locked is the immutability rule that locks the tags of legacy signatures; empty if none does.
	Locked string
}

// Verifiable says whether anybody could verify what the terms ask for; each error is a [*FieldError].
func (t Terms) Verifiable(m Means) error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, &FieldError{Field: field, Want: fmt.Sprintf(format, args...)})
	}
	logs := t.Transparency == TransparencyRequired || t.Transparency == TransparencyDeferred
	legacy := slices.Contains(m.Formats, artifact.Legacy)
	bundle := slices.Contains(m.Formats, artifact.Bundle)
	stamped := m.Timestamps && t.Timestamp == TimestampRequired
	switch {
	case logs && m.Log == "":
		wrong("log", "transparency is %s, and no signer has an active log by this name: configure it, or set transparency to off", t.Transparency)
	case logs && m.Log == RekorV2 && legacy && !bundle:
		wrong("transparency", "a legacy signature has no place for an entry of Rekor v2: choose the format bundle or both, a log of Rekor v1, or off")
	case t.Transparency == TransparencyDeferred && legacy && !bundle && m.Locked != "" && !m.Bundles:
		wrong("transparency", "a deferred entry is written into the .sig tag later, which is locked by %.200s: exclude sha256-*.sig from the rule, "+
			"upgrade to Harbor 2.15, or choose required", m.Locked)
	}
	for _, format := range m.Formats {
		if why := m.Unfit[format]; logs && why != "" {
			wrong("log", "%s signatures of this key cannot be logged there: %.300s", format, why)
		}
	}
	if t.Timestamp == TimestampRequired && !m.Timestamps {
		wrong("timestamp", "required, and no signer has an active timestamp authority: configure one, or choose optional or off")
	}
	// A certificate of minutes says nothing later unless something proves when it signed.
	if m.Keyless && !stamped {
		switch {
		case t.Transparency == TransparencyRequired && m.Log == RekorV1:
		case t.Transparency == TransparencyDeferred && m.Log == RekorV1:
			wrong("timestamp", "a keyless signature cannot be verified until its entry is in the log: choose timestamp required, or transparency required")
		default:
			wrong("timestamp", "a keyless signature cannot be verified without a time from Rekor v1 or a timestamp authority: "+
				"choose timestamp required, or transparency required with a log of Rekor v1")
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
