package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Topic is where signers answer a [Request].
const Topic = "preflight"

// maxChecks bounds what is taken from another program's answer.
const maxChecks = 200

// Request asks whether the signers could sign a project by these terms.
type Request struct {
	Project string `json:"project"`
	// Format, Key, Transparency, Log and Timestamp are those of the signer's configuration where they are empty.
	Format       policy.Format       `json:"format,omitempty"`
	Key          string              `json:"key,omitempty"`
	Transparency policy.Transparency `json:"transparency,omitempty"`
	Log          string              `json:"log,omitempty"`
	Timestamp    policy.Timestamp    `json:"timestamp,omitempty"`
	// Tags says that the policy looks at tags.
	Tags bool `json:"tags,omitempty"`
	// ResignOnRotation asks for further signatures of what is signed already.
	ResignOnRotation bool `json:"resign_on_rotation,omitempty"`
}

// RequestFor asks by what a policy says.
func RequestFor(project string, s policy.Spec) Request {
	return Request{
		Project: project, Format: s.Format, Key: s.Key, Transparency: s.Transparency, Log: s.Log, Timestamp: s.Timestamp,
		Tags: s.NeedsTags(), ResignOnRotation: s.ResignOnRotation,
	}
}

// answer is the other program's.
type answer struct {
	Checks []Check `json:"checks"`
}

// Asker carries a question to one of the programs that answer a topic, and their answer or error back.
type Asker interface {
	Ask(ctx context.Context, topic string, request []byte) ([]byte, error)
}

// Ask has one signer check and gives its results. The error means that none has: it keeps the fault of the Asker.
func (r Request) Ask(ctx context.Context, signers Asker) ([]Check, error) {
	request, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("asking the signers: %w", err)
	}
	raw, err := signers.Ask(ctx, Topic, request)
	if err != nil {
		return nil, fmt.Errorf("asking the signers: %w", err)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "asking the signers: reading the answer: %w", err)
	}
	if len(a.Checks) == 0 || len(a.Checks) > maxChecks {
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "asking the signers: %d checks in the answer", len(a.Checks))
	}
	return append(a.Checks, r.unanswered(a.Checks)...), nil
}

// unanswered gives what a signer of an older version does not know how to check: it would take the policy, and sign without what
// it asks for.
func (r Request) unanswered(answered []Check) []Check {
	var missing []Check
	for _, need := range []struct {
		name  Name
		asked bool
	}{
		{Transparency, r.Transparency != "" || r.Log != ""},
		{Timestamp, r.Timestamp != ""},
	} {
		if need.asked && !slices.ContainsFunc(answered, func(c Check) bool { return c.Name == need.name }) {
			missing = append(missing, Check{
				Name: need.name, Subject: r.Project, Status: Failed, Unknown: true,
				Detail: "could not be told: the signer that has answered does not know of it",
				Fix:    "see that all signers have the version of the receiver, and ask again",
			})
		}
	}
	return missing
}

// Handler makes what answers [Topic] of a function that checks.
func Handler(check func(ctx context.Context, r Request) []Check) func(ctx context.Context, request []byte) ([]byte, error) {
	return func(ctx context.Context, request []byte) ([]byte, error) {
		var r Request
		if err := json.Unmarshal(request, &r); err != nil {
			return nil, fault.Newf(fault.Permanent, fault.Malformed, "reading a request to check a project: %w", err)
		}
		if err := artifact.ValidateProject(r.Project); err != nil {
			return nil, fault.New(fault.Permanent, fault.Malformed, err)
		}
		return json.Marshal(answer{Checks: check(ctx, r)})
	}
}
