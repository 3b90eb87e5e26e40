package policy_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestTermsAreVerifiable(t *testing.T) {
	var (
		legacy = []artifact.Format{artifact.Legacy}
		bundle = []artifact.Format{artifact.Bundle}
		both   = []artifact.Format{artifact.Legacy, artifact.Bundle}
	)
	const (
		off      = policy.TransparencyOff
		required = policy.TransparencyRequired
		deferred = policy.TransparencyDeferred
		must     = policy.TimestampRequired
		may      = policy.TimestampOptional
	)
	for name, tc := range map[string]struct {
		terms policy.Terms
		means policy.Means
		want  []string // the fields that are wrong
	}{
		"nothing asked for":          {policy.Terms{}, policy.Means{Formats: both}, nil},
		"off, whatever the log is":   {policy.Terms{Transparency: off}, policy.Means{Formats: legacy, Log: policy.RekorV2}, nil},
		"required with v1":           {policy.Terms{Transparency: required}, policy.Means{Formats: both, Log: policy.RekorV1}, nil},
		"deferred with v1":           {policy.Terms{Transparency: deferred}, policy.Means{Formats: legacy, Log: policy.RekorV1}, nil},
		"no such log":                {policy.Terms{Transparency: required}, policy.Means{Formats: both}, []string{"log"}},
		"deferred, no such log":      {policy.Terms{Transparency: deferred}, policy.Means{Formats: both}, []string{"log"}},
		"legacy with v2":             {policy.Terms{Transparency: required}, policy.Means{Formats: legacy, Log: policy.RekorV2}, []string{"transparency"}},
		"deferred legacy with v2":    {policy.Terms{Transparency: deferred}, policy.Means{Formats: legacy, Log: policy.RekorV2}, []string{"transparency"}},
		"both with v2":               {policy.Terms{Transparency: required}, policy.Means{Formats: both, Log: policy.RekorV2}, nil},
		"bundle with v2":             {policy.Terms{Transparency: deferred}, policy.Means{Formats: bundle, Log: policy.RekorV2}, nil},
		"deferred, locked":           {policy.Terms{Transparency: deferred}, policy.Means{Formats: legacy, Log: policy.RekorV1, Locked: "rule 1"}, []string{"transparency"}},
		"deferred, locked, bundles":  {policy.Terms{Transparency: deferred}, policy.Means{Formats: legacy, Log: policy.RekorV1, Locked: "rule 1", Bundles: true}, nil},
		"required, locked":           {policy.Terms{Transparency: required}, policy.Means{Formats: legacy, Log: policy.RekorV1, Locked: "rule 1"}, nil},
		"key that the log refuses":   {policy.Terms{Transparency: deferred}, policy.Means{Formats: both, Log: policy.RekorV1, Unfit: map[artifact.Format]string{artifact.Legacy: "Ed25519"}}, []string{"log"}},
		"in another format":          {policy.Terms{Transparency: deferred}, policy.Means{Formats: bundle, Log: policy.RekorV1, Unfit: map[artifact.Format]string{artifact.Legacy: "Ed25519"}}, nil},
		"timestamp, no authority":    {policy.Terms{Timestamp: must}, policy.Means{Formats: both}, []string{"timestamp"}},
		"timestamp if there is one":  {policy.Terms{Timestamp: may}, policy.Means{Formats: both}, nil},
		"keyless, nothing":           {policy.Terms{}, policy.Means{Formats: both, Keyless: true, Log: policy.RekorV1}, []string{"timestamp"}},
		"keyless, timestamp":         {policy.Terms{Timestamp: must}, policy.Means{Formats: both, Keyless: true, Timestamps: true}, nil},
		"keyless, maybe a timestamp": {policy.Terms{Timestamp: may}, policy.Means{Formats: both, Keyless: true, Timestamps: true}, []string{"timestamp"}},
		"keyless, v1 required":       {policy.Terms{Transparency: required}, policy.Means{Formats: both, Keyless: true, Log: policy.RekorV1}, nil},
		"keyless, v1 deferred":       {policy.Terms{Transparency: deferred}, policy.Means{Formats: both, Keyless: true, Log: policy.RekorV1}, []string{"timestamp"}},
		"keyless, v2 required":       {policy.Terms{Transparency: required}, policy.Means{Formats: bundle, Keyless: true, Log: policy.RekorV2}, []string{"timestamp"}},
		"keyless, v2 and timestamp":  {policy.Terms{Transparency: deferred, Timestamp: must}, policy.Means{Formats: bundle, Keyless: true, Log: policy.RekorV2, Timestamps: true}, nil},
		"all that is wrong at once":  {policy.Terms{Transparency: required, Timestamp: must}, policy.Means{Formats: legacy, Log: policy.RekorV2, Keyless: true}, []string{"timestamp", "timestamp", "transparency"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			if err := tc.terms.Verifiable(tc.means); err != nil {
				joined, ok := err.(interface{ Unwrap() []error })
				if !ok {
					t.Fatalf("Verifiable = %T, want all that is wrong", err)
				}
				for _, e := range joined.Unwrap() {
					var field *policy.FieldError
					if !errors.As(e, &field) {
						t.Fatalf("%v is no FieldError", e)
					}
					got = append(got, field.Field)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("wrong are %q, want %q", got, tc.want)
			}
		})
	}
}

func TestLogTypeCarries(t *testing.T) {
	for _, tc := range []struct {
		log    policy.LogType
		format artifact.Format
		want   bool
	}{
		{policy.RekorV1, artifact.Legacy, true},
		{policy.RekorV1, artifact.Bundle, true},
		{policy.RekorV2, artifact.Legacy, false},
		{policy.RekorV2, artifact.Bundle, true},
		{"", artifact.Bundle, false},
	} {
		if got := tc.log.Carries(tc.format); got != tc.want {
			t.Errorf("%q carries %s: %v, want %v", tc.log, tc.format, got, tc.want)
		}
	}
}

func TestSpecRefusesUnknownTransparency(t *testing.T) {
	spec := policy.Spec{Mode: policy.ModeSign, Transparency: "maybe", Timestamp: "always", Log: "a\nb"}
	want := []string{"log", "timestamp", "transparency"}
	joined, ok := spec.Validate().(interface{ Unwrap() []error })
	if !ok {
		t.Fatal("Validate takes it")
	}
	var got []string
	for _, e := range joined.Unwrap() {
		if field, ok := errors.AsType[*policy.FieldError](e); ok {
			got = append(got, field.Field)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("wrong are %q, want %q", got, want)
	}
}
