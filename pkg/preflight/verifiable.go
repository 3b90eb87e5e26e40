package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// verifiable asks whether anybody could verify what the terms ask for, and gives one check for the log and one for the
// timestamp. A log or an authority that does not answer right now is a warning: policies are made for longer than outages last,
// and images wait for it, or for their entries, as the policy says.
func (s ForSigner) verifiable(
	ctx context.Context, r Request, bundles func(context.Context) (harborBundles, error), locked func(context.Context) (string, error),
) []Check {
	terms := s.terms(r)
	means := s.Means(terms)
	logged := Check{Name: Transparency, Subject: r.Project, Status: OK, Detail: string(terms.Transparency)}
	stamped := Check{Name: Timestamp, Subject: r.Project, Status: OK, Detail: string(terms.Timestamp)}
	if terms.Transparency != policy.TransparencyOff {
		logged.Detail = fmt.Sprintf("%s, in the log %s", terms.Transparency, terms.Log)
		means = askHarbor(ctx, &logged, terms, means, bundles, locked)
	}
	for _, w := range policy.FieldErrors(terms.Verifiable(means)) {
		c := &logged
		if w.Field == "timestamp" {
			c = &stamped
		}
		detail, fix := cutLast(w.Want, ": ")
		*c = Check{Name: c.Name, Subject: c.Subject, Status: Failed, Detail: detail, Fix: fix}
	}
	s.warn(&logged, &stamped, r, terms, means)
	return []Check{logged, stamped}
}

// askHarbor adds what is Harbor's to say to means. What could not be told it notes in c, and takes for the best, so that what is
// wrong in any case is still found.
func askHarbor(
	ctx context.Context, c *Check, terms policy.Terms, means policy.Means,
	bundles func(context.Context) (harborBundles, error), locked func(context.Context) (string, error),
) policy.Means {
	harbor, err := bundles(ctx)
	if err != nil {
		*c = unknown(*c, err)
		harbor.can = true
	}
	means.Bundles = harbor.can
	if means.Formats, err = terms.Format.Formats(harbor.can); err != nil {
		means.Formats = []artifact.Format{artifact.Bundle} // the format's own check says that this Harbor does not take it
	}
	if harbor.can || terms.Transparency != policy.TransparencyDeferred || !slices.Contains(means.Formats, artifact.Legacy) {
		return means
	}
	if means.Locked, err = locked(ctx); err != nil {
		// Whoever pays the debt meets the rule later and says so.
		c.Status, c.Unknown = Skipped, true
		c.Detail += "; whether a rule locks the tags of legacy signatures could not be told"
	}
	return means
}

// warn speaks of what is right, and yet not as whoever asks may think.
func (s ForSigner) warn(logged, stamped *Check, r Request, terms policy.Terms, means policy.Means) {
	down := s.Down(terms)
	switch {
	case logged.Status != OK:
	case terms.Transparency == policy.TransparencyOff && r.Log != "" && means.Log == "":
		logged.Status, logged.Detail = Warning, "off, and no signer has an active log by the name of "+r.Log
		logged.Fix = "name a log that the signer's configuration lists as active, or leave it out"
	case terms.Transparency == policy.TransparencyRequired && down.Log != "":
		logged.Status = Warning
		logged.Detail += ", which does not answer at the moment: " + down.Log + "; no image is signed until it does"
		logged.Fix = "see to the log, or choose deferred"
	case terms.Transparency == policy.TransparencyDeferred && down.Log != "":
		logged.Status = Warning
		logged.Detail += ", which does not answer at the moment: " + down.Log + "; images are signed, and their entries are owed until it does"
		logged.Fix = "see to the log"
	}
	switch {
	case stamped.Status != OK || terms.Timestamp == policy.TimestampOff || down.Timestamps == "":
	case terms.Timestamp == policy.TimestampRequired:
		stamped.Status = Warning
		stamped.Detail += "; the authority does not answer at the moment: " + down.Timestamps + "; no image is signed until it does"
		stamped.Fix = "see to the timestamp authority, or choose optional"
	default:
		stamped.Status = Warning
		stamped.Detail += "; the authority does not answer at the moment: " + down.Timestamps + "; images are signed without a timestamp until it does"
		stamped.Fix = "see to the timestamp authority"
	}
}

// cutLast cuts before and behind the last separator; what is behind is empty if there is none.
func cutLast(text, separator string) (before, after string) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, ""
	}
	return text[:i], text[i+len(separator):]
}
