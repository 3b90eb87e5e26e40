package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Names of checks that are about an installation as a whole. They are part of the doctor's output: a name is added, never
// renamed.
const (
	Configuration Name = "configuration"
	Queue         Name = "queue"
	Policies      Name = "policies"
	// Pause says whether somebody has stopped signing.
	Pause Name = "pause"
	// Receiver says whether one answers.
	Receiver Name = "receiver"
	// WebhookAddress says whether the address that Harbor is given for webhooks leads to something that answers.
	WebhookAddress Name = "webhook_address"
)

// ReceiverTopic is where receivers answer what they see with their own account.
const ReceiverTopic = "preflight-receiver"

// receiverRequest asks a receiver.
type receiverRequest struct {
	// Project is empty to ask for what is about no project.
	Project string `json:"project,omitempty"`
}

// AskReceiver has one receiver check a project with its account, and gives the results; without a project, it checks the way
// to Harbor and the account alone. The error means that none has: it keeps the fault of the Asker.
func AskReceiver(ctx context.Context, receivers Asker, project string) ([]Check, error) {
	request, err := json.Marshal(receiverRequest{Project: project})
	if err != nil {
		return nil, fmt.Errorf("asking the receivers: %w", err)
	}
	raw, err := receivers.Ask(ctx, ReceiverTopic, request)
	if err != nil {
		return nil, fmt.Errorf("asking the receivers: %w", err)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "asking the receivers: reading the answer: %w", err)
	}
	if len(a.Checks) == 0 || len(a.Checks) > maxChecks {
		return nil, fault.Newf(fault.Transient, fault.BadAnswer, "asking the receivers: %d checks in the answer", len(a.Checks))
	}
	return a.Checks, nil
}

// CheckAddress sees whether the origin by which Harbor reaches the receiver answers over HTTP, as seen from the program that
// asks: whether Harbor sees the same, its own log of deliveries tells.
func CheckAddress(ctx context.Context, client http.RoundTripper, origin string) Check {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	c := Check{Name: WebhookAddress, Subject: origin, Status: OK, Detail: "answers, as seen from the receiver"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, origin, http.NoBody)
	if err == nil {
		var resp *http.Response
		if resp, err = client.RoundTrip(req); err == nil {
			_ = resp.Body.Close() // whatever it says
			return c
		}
	}
	c.Status, c.Detail = Warning, "does not answer, as seen from the receiver: "+err.Error()
	c.Fix = "see that webhook.url is the address by which Harbor reaches the receiver, and that Harbor trusts its certificate"
	return c
}

// ReceiverHandler makes what answers [ReceiverTopic] of a function that checks a project, or, where the name is empty, what
// is about none.
func ReceiverHandler(check func(ctx context.Context, project string) []Check) func(ctx context.Context, request []byte) ([]byte, error) {
	return func(ctx context.Context, request []byte) ([]byte, error) {
		var r receiverRequest
		if err := json.Unmarshal(request, &r); err != nil {
			return nil, fault.Newf(fault.Permanent, fault.Malformed, "reading a request to check: %w", err)
		}
		if r.Project != "" {
			if err := artifact.ValidateProject(r.Project); err != nil {
				return nil, fault.New(fault.Permanent, fault.Malformed, err)
			}
		}
		return json.Marshal(answer{Checks: check(ctx, r.Project)})
	}
}
