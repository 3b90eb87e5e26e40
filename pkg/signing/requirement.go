package signing

import (
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Requirement is what a policy asks of the signatures of a manifest: one in each format, by a key that it accepts, with the
// log entry and the timestamp that it asks for.
type Requirement struct {
	// Key is the name of the key that signs; Keys.Accepts says whose signatures count beside.
	Key     string
	Formats []artifact.Format
	// ActiveOnly asks for signatures of that very key. Those of other keys that are accepted are seen, and not enough.
	ActiveOnly bool
	// Annotations are those of new signatures.
	Annotations map[string]string
	// Transparency says whether a log entry is needed, or may come later. An entry of any log that is trusted is one: Log, of
	// LogType, makes new ones.
	Transparency policy.Transparency
	Log          string
	LogType      policy.LogType
	// Timestamp says whether signatures need one.
	Timestamp policy.Timestamp
}

// Only gives the requirement for some of the formats.
func (r Requirement) Only(formats ...artifact.Format) Requirement {
	r.Formats = formats
	return r
}

// logged gives the requirement with an entry that has to be there at once.
func (r Requirement) logged() Requirement {
	r.Transparency = policy.TransparencyRequired
	return r
}

// needsEntry says whether a signature of a format is nothing without a log entry.
func (r Requirement) needsEntry(format artifact.Format) bool {
	return r.Transparency == policy.TransparencyRequired && r.LogType.Carries(format)
}

// defersEntry says whether the log entry of a signature of a format may come later.
func (r Requirement) defersEntry(format artifact.Format) bool {
	return r.Transparency == policy.TransparencyDeferred && r.LogType.Carries(format)
}

// defersBundle says whether the bundle itself waits until it is logged. An unlogged one would hide the legacy signature
// from verifiers as soon as that one is logged.
func (r Requirement) defersBundle() bool {
	return r.defersEntry(artifact.Bundle) && slices.Contains(r.Formats, artifact.Legacy) && slices.Contains(r.Formats, artifact.Bundle)
}

// complete says whether a signature lacks nothing that it must have.
func (r Requirement) complete(e artifact.Evidence) bool {
	return (e.Log != "" || !r.needsEntry(e.Format)) && (!e.TimestampedAt.IsZero() || r.Timestamp != policy.TimestampRequired)
}

// perfect says whether nothing will ever be added to a signature.
func (r Requirement) perfect(e artifact.Evidence) bool {
	return r.complete(e) && (e.Log != "" || !r.defersEntry(e.Format))
}

// owed gives the formats in which an entry may come later, and is not among the evidence.
func (r Requirement) owed(all []artifact.Evidence) []artifact.Format {
	var formats []artifact.Format
	for _, format := range r.Formats {
		if r.defersEntry(format) && !isLogged(all, format) {
			formats = append(formats, format)
		}
	}
	return formats
}

// isLogged says whether there is evidence of a logged signature in a format.
func isLogged(all []artifact.Evidence, format artifact.Format) bool {
	return slices.ContainsFunc(all, func(e artifact.Evidence) bool { return e.Format == format && e.Log != "" })
}
