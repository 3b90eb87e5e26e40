package artifact

import "time"

// Listed is a manifest as Harbor's listing of a project shows it.
type Listed struct {
	Ref  Ref
	Tags []string
	// Signatures are the digests of the accessories that Harbor takes for signatures. Harbor verifies none of them.
	Signatures []string
	// Children are the digests that an index names.
	Children []string
	// PushedAt is when Harbor got the manifest, in milliseconds; a further tag does not move it.
	PushedAt time.Time
}

// Pushed is a push as Harbor's feed of all pushes, or a listing, tells of it.
type Pushed struct {
	Ref Ref
	// Tag is empty for a push by digest.
	Tag string
	// By is the account; empty where a listing is the source.
	By string
	At time.Time
}

// Project is a project in Harbor.
type Project struct {
	// ID is another one for a project that is deleted and made anew under the same name.
	ID   int64
	Name string
	// ProxyCache says that the project mirrors another registry: nothing can be pushed into it.
	ProxyCache bool
	// SignedOnly says that Harbor refuses to hand out manifests without a cosign signature.
	SignedOnly bool
	// Metadata is what Harbor keeps about the project beside, by its own names.
	Metadata map[string]string
}

// Known is what the ledger knows of one digest.
type Known struct {
	Ref Ref `json:"ref"`
	// State and Reason are those of the report; an empty state means that the ledger never heard of it.
	State  string `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Signatures are those that were verified last, whatever became of them since, and Accessories all that Harbor listed as
	// signatures when they were.
	Signatures  []Evidence `json:"signatures,omitempty"`
	Accessories []string   `json:"accessories,omitempty"`
	// KeySet names the keys that were accepted then.
	KeySet string `json:"key_set,omitempty"`
}
