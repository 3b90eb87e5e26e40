package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/policy"
)

func TestFieldErrors(t *testing.T) {
	t.Parallel()
	format, key := &policy.FieldError{Field: "format", Want: "one of a, b"}, &policy.FieldError{Field: "key", Want: "a name"}
	other := errors.New("no field is wrong")
	for _, tt := range []struct {
		name string
		err  error
		want []*policy.FieldError
	}{
		{"none", nil, nil},
		{"another error", other, nil},
		{"one", format, []*policy.FieldError{format}},
		{"one that is wrapped", fmt.Errorf("policy 3: %w", key), []*policy.FieldError{key}},
		{"several, in their order", errors.Join(key, other, format), []*policy.FieldError{key, format}},
		{
			"several at several levels", fmt.Errorf("both: %w, %w", errors.Join(format), fmt.Errorf("inner: %w", errors.Join(other, key))),
			[]*policy.FieldError{format, key},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := policy.FieldErrors(tt.err); !slices.Equal(got, tt.want) {
				t.Errorf("FieldErrors(%v) = %v, want %v", tt.err, got, tt.want)
			}
		})
	}
}
