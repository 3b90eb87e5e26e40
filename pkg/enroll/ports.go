package enroll

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// Journal is where policies and pauses are kept, and events go. Each method makes one attempt and is safe for concurrent
// use. Put and Record have returned nil only if what they were given is stored durably; after an error it is stored or not.
type Journal interface {
	// GetPolicy gives an entry as it is now, with a zero Value if there is none; the Revision of a deleted one is kept.
	GetPolicy(ctx context.Context, kind book.Kind, project string) (book.Entry, error)
	// PutPolicy replaces the entry at the revision expect, 0 for none; policy.ErrConflict says that it is another one now.
	PutPolicy(ctx context.Context, kind book.Kind, project string, value []byte, expect uint64) (revision uint64, err error)
	// Record appends an event to the ledger. An event whose id the ledger has already is dropped.
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
}

// Queue is the policies' bucket with its history, the ledger, the ticks, and the way to the signers.
type Queue interface {
	Journal
	// PolicyHistory gives the newest documents of a project that the bucket still holds, oldest first.
	PolicyHistory(ctx context.Context, project string) ([]book.Entry, error)
	// Propose offers a tick; one that was offered before is not accepted again.
	Propose(ctx context.Context, kind, key string, slot int64) (accepted bool, err error)
	// Ask has one of the signers answer; the fault is transient if none does.
	Ask(ctx context.Context, topic string, request []byte) ([]byte, error)
}

// Harbor is asked, and changed, with the receiver's robot account. Each method makes one attempt, returns a fault, and is
// safe for concurrent use. No error holds a secret.
type Harbor interface {
	// Project gives a project by its exact name; the fault is Gone if it is not there or not to be seen.
	Project(ctx context.Context, name string) (artifact.Project, error)
	// AllProjects gives those that the account may see.
	AllProjects(ctx context.Context) ([]artifact.Project, error)
	System(ctx context.Context) (artifact.SystemInfo, error)
	Webhooks(ctx context.Context, project string) ([]artifact.Webhook, error)
	// CreateWebhook fails where the project has a webhook of that name already.
	CreateWebhook(ctx context.Context, project string, w artifact.Webhook) (id int64, err error)
	// UpdateWebhook replaces the webhook with the id of w.
	UpdateWebhook(ctx context.Context, project string, w artifact.Webhook) error
	// DeleteWebhook fails with Gone if there is none with the id, and with another fault while a delivery is under way.
	DeleteWebhook(ctx context.Context, project string, id int64) error
	Deliveries(ctx context.Context, project string, webhookID int64) (artifact.Deliveries, error)
	// Quota fails with Denied if the account may not list quotas.
	Quota(ctx context.Context, projectID int64) (artifact.Quota, error)
	// MissingRights gives those of the rights that the account lacks.
	MissingRights(ctx context.Context, project string, rights []string) (missing []string, err error)
}

// Caller is Harbor with the credentials of whoever asks for a change.
type Caller interface {
	CurrentAccount(ctx context.Context) (artifact.Account, error)
	// RoleIn fails with Gone if the project is not there or not to be seen.
	RoleIn(ctx context.Context, project string) (artifact.Role, artifact.Project, error)
}
