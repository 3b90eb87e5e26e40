package artifact

import "time"

// Cursor is a place in the listing of a project, from which it goes on. The zero value is its beginning. What follows is
// found by push time and not by a page's number, so that nothing is skipped while others push and delete.
type Cursor struct {
	// Repository is where a listing stands that goes repository by repository; empty otherwise.
	Repository string `json:"repository,omitempty"`
	// PushedAt is the push time of the last manifest, and Edge are the manifests of that time that were listed.
	PushedAt time.Time `json:"pushed_at,omitzero"`
	Edge     []Ref     `json:"edge,omitempty"`
}

// Page is a part of a listing.
type Page struct {
	Manifests []Listed
	// Next is where the listing goes on behind this page.
	Next Cursor
	// Total is Harbor's count of all that the listing had from the beginning, where the page is the first; 0 otherwise.
	Total int
}

// SystemInfo is what Harbor says about itself.
type SystemInfo struct {
	Version string
	// AuthMode is such as db_auth or oidc_auth.
	AuthMode string
	// Notifications says whether Harbor sends webhooks at all (notification_enable).
	Notifications bool
	ReadOnly      bool
	// Now is Harbor's clock.
	Now time.Time
}

// Webhook is a webhook policy of a project.
type Webhook struct {
	ID          int64
	Name        string
	Description string
	Enabled     bool
	// Events are such as PUSH_ARTIFACT.
	Events  []string
	Address string
	// AuthHeader is the value of the Authorization header that Harbor sends. It is a secret that every admin of the project
	// can read.
	AuthHeader string
	// Format is Default or CloudEvents.
	Format         string
	SkipCertVerify bool
}

// Deliveries is what Harbor's log says about a webhook policy's newest deliveries.
type Deliveries struct {
	Finished, Failed int
	// LastFailed says that the newest finished one failed, in the words of LastError.
	LastFailed bool
	LastError  string
	LastAt     time.Time
}

// Quota is a project's share of the storage, in bytes. Hard is -1 for no limit.
type Quota struct{ Hard, Used int64 }

// Account is who Harbor takes a caller for.
type Account struct {
	Name        string
	SystemAdmin bool
	// Robot accounts have rights, and no role.
	Robot bool
}

// Role is what an account may do in a project, by Harbor's numbers.
type Role int

// The roles of Harbor.
const (
	RoleNone         Role = 0
	RoleProjectAdmin Role = 1
	RoleDeveloper    Role = 2
	RoleGuest        Role = 3
	RoleMaintainer   Role = 4
	RoleLimitedGuest Role = 5
)
