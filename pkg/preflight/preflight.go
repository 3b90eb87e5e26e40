// Package preflight checks whether a project can be signed, and says what to do where it cannot.
//
// It guarantees that everything that is wrong comes out at once: the checks run beside each other, a bounded number of them
// at a time, each within its own time, and none of them hides another, not even by a panic. A check that could not tell is
// never ok: it has failed where signing depends on the answer, with the fault's own words, else it was skipped, and it says
// that it is unknown.
//
// It assumes that its ports keep to their contexts. It changes nothing, in Harbor or anywhere else, and remembers nothing.
// The receiver and the signer have accounts of their own and each check with their own; a receiver asks the signers over the
// queue, see [Request.Ask].
package preflight

import (
	"slices"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Status is how a check has ended.
type Status string

// The statuses.
const (
	OK Status = "ok"
	// Warning means that signing works, and something else is lost, which the detail names.
	Warning Status = "warning"
	Failed  Status = "failed"
	// Skipped means that the check does not apply, or that nothing depends on what could not be told.
	Skipped Status = "skipped"
)

// Name is what is checked, from a closed set: one of those below, or RightPrefix with a right behind it.
type Name string

// The names of the checks. They are part of the API: a name is added, never renamed.
const (
	DNS              Name = "dns"
	TLS              Name = "tls"
	Login            Name = "login"
	Role             Name = "role" // of whoever asks
	Version          Name = "version"
	ReadOnly         Name = "read_only"
	Project          Name = "project"
	ProxyCache       Name = "proxy_cache"
	Rights           Name = "rights" // all of them: they could not be asked for
	Quota            Name = "quota"
	Format           Name = "format"
	Immutability     Name = "immutability"
	Notifications    Name = "notifications"
	PrivateAddress   Name = "private_address"
	PullPolicy       Name = "pull_policy"
	Webhook          Name = "webhook"
	Deliveries       Name = "deliveries"
	Signer           Name = "signer" // whether one answers
	Key              Name = "key"
	CredentialExpiry Name = "credential_expiry" //nolint:gosec // the name of a check
	TestSignature    Name = "test_signature"
	Transparency     Name = "transparency" // whether anybody could verify what is asked of a log
	Timestamp        Name = "timestamp"    // whether anybody could verify when something was signed, where that is asked for
	Canary           Name = "canary"       // whether whoever asks may make a canary of a project

	// RightPrefix stands before a right, such as repository:push.
	RightPrefix = "right:"
)

// Right names the check of one right.
func Right(right string) Name { return Name(RightPrefix + right) }

// Check is the result of one check.
type Check struct {
	Name Name `json:"name"`
	// Subject is what was looked at: a project, a host, an account.
	Subject string `json:"subject,omitempty"`
	Status  Status `json:"status"`
	// Detail is for people. It holds nothing secret.
	Detail string `json:"detail,omitempty"`
	// Fix is what to do, where the status is failed or warning.
	Fix string `json:"fix,omitempty"`
	// Unknown says that it could not be told: Harbor, or whoever was asked, did not answer, or not to this account.
	Unknown bool `json:"unknown,omitempty"`
}

// Failures gives the checks that have failed, in their order.
func Failures(checks []Check) []Check { return with(checks, Failed) }

// Warnings gives the checks that warn, in their order.
func Warnings(checks []Check) []Check { return with(checks, Warning) }

func with(checks []Check, status Status) []Check {
	var found []Check
	for _, c := range checks {
		if c.Status == status {
			found = append(found, c)
		}
	}
	return found
}

// Merge joins the results of several programs. Of checks with one name and subject those that were skipped give way to the
// others, and of equal ones one stays.
func Merge(lists ...[]Check) []Check {
	all := slices.Concat(lists...)
	var merged []Check
	for _, c := range all {
		known := slices.Contains(merged, c)
		told := c.Status == Skipped && slices.ContainsFunc(all, func(other Check) bool {
			return other.Name == c.Name && other.Subject == c.Subject && other.Status != Skipped
		})
		if !known && !told {
			merged = append(merged, c)
		}
	}
	return merged
}

// unknown is a check that could not tell because of err, which must not be nil.
func unknown(c Check, err error) Check {
	c.Status, c.Unknown, c.Detail = Failed, true, "could not be told: "+err.Error()
	if c.Fix == "" {
		c.Fix = "see to what keeps it from being told, and ask again"
		if fault.Is(err, fault.Transient) {
			c.Fix = "ask again in a moment"
		}
	}
	return c
}
