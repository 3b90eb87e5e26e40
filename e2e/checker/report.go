package checker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Row is what the checker reads of one row of the report.
type Row struct {
	Project     string     `json:"project"`
	Repository  string     `json:"repository"`
	Digest      string     `json:"digest"`
	MediaType   string     `json:"media_type"`
	Parents     []string   `json:"parents"`
	Tags        []string   `json:"tags"`
	Pusher      string     `json:"pusher"`
	PushedAt    *time.Time `json:"pushed_at"`
	ReceivedAt  *time.Time `json:"received_at"`
	FirstSeenAt time.Time  `json:"first_seen_at"`
	State       string     `json:"state"`
	Reason      string     `json:"reason"`
	Detail      string     `json:"detail"`
	SignedAt    *time.Time `json:"signed_at"`
	// Signatures are those that were verified, KeyID and SignatureDigest those of the first.
	Signatures      []RowSignature `json:"signatures"`
	Format          string         `json:"format"`
	KeyID           string         `json:"key_id"`
	SignatureDigest string         `json:"signature_digest"`
	How             string         `json:"how"`
	Note            string         `json:"note"`
	Attempts        int            `json:"attempts"`
	// LogState is empty, owed or logged; LogOwed are the formats for which an entry is owed.
	LogState     string     `json:"log_state"`
	LogOwed      []Format   `json:"log_owed"`
	LogOwedSince *time.Time `json:"log_owed_since"`
	LogReason    string     `json:"log_reason"`
}

// RowSignature is one signature in a row of the report.
type RowSignature struct {
	Format Format `json:"format"`
	KeyID  string `json:"key_id"`
	Digest string `json:"digest"`
	// Log and LogIndex name the entry that was verified; empty and 0 for none. So is TimestampedAt.
	Log           string    `json:"log"`
	LogIndex      int64     `json:"log_index"`
	TimestampedAt time.Time `json:"timestamped_at"`
}

// Report is where the rows are asked for.
type Report struct {
	// URL is the receiver's origin.
	URL string
	// Token is a bearer token.
	Token string
	// Transport carries the requests; nil for one that uses no proxy.
	Transport http.RoundTripper
}

// Page asks for one page. The query's keys are those of GET /api/v1/signatures.
func (r Report) Page(ctx context.Context, query url.Values) (rows []Row, next string, err error) {
	reader := NewRegistry(Access{Transport: r.Transport})
	status, got, err := reader.do(ctx, r.URL+"/api/v1/signatures?"+query.Encode(), "application/json", "Bearer "+r.Token)
	if err != nil {
		return nil, "", fmt.Errorf("asking for the report: %w", err)
	}
	if status != http.StatusOK {
		return nil, "", fmt.Errorf("asking for the report: the answer is %d: %.300s", status, got.body)
	}
	var page struct {
		Items      []Row  `json:"items"`
		NextCursor string `json:"next_cursor"`
	}
	if err := json.Unmarshal(got.body, &page); err != nil {
		return nil, "", fmt.Errorf("asking for the report: %w", err)
	}
	return page.Items, page.NextCursor, nil
}

// Rows asks for all pages.
func (r Report) Rows(ctx context.Context, query url.Values) ([]Row, error) {
	var all []Row
	query = cloneQuery(query)
	for {
		rows, next, err := r.Page(ctx, query)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if next == "" {
			return all, nil
		}
		query.Set("cursor", next)
	}
}

// Fact is what the registry says about one digest, to be compared with the report.
type Fact struct {
	Repository string
	Digest     string
	Evidence   Evidence
	// Parent is the digest of an index that names it; empty if none does.
	Parent string
}

// Compare checks that the rows say what the registry says: for every fact one row, in state signed, with one signature by
// our key for each format that is wanted, in a manifest that is really there, with the log entries and timestamps that it really
// has, and nothing that is owed to a log; and no signed row beyond the facts.
func (c *Checker) Compare(facts []Fact, rows []Row) ([]Violation, error) {
	id, err := c.keyID()
	if err != nil {
		return nil, err
	}
	var violations []Violation
	seen := make(map[string]bool)
	for _, row := range rows {
		at := slices.IndexFunc(facts, func(f Fact) bool { return f.Repository == row.Repository && f.Digest == row.Digest })
		name := row.Repository + "@" + row.Digest
		switch {
		case seen[name]:
			violations = append(violations, Violation{ReportSurplus, row.Repository, row.Digest, "a second row"})
		case at < 0 && row.State == "signed":
			violations = append(violations, Violation{ReportSurplus, row.Repository, row.Digest, "it is not signed"})
		case at >= 0:
			for _, detail := range c.differences(facts[at], row, id) {
				violations = append(violations, Violation{ReportWrong, row.Repository, row.Digest, detail})
			}
		}
		seen[name] = true
	}
	for _, f := range facts {
		if !seen[f.Repository+"@"+f.Digest] {
			violations = append(violations, Violation{ReportMissing, f.Repository, f.Digest, "there is no row"})
		}
	}
	return violations, nil
}

func (c *Checker) differences(f Fact, row Row, keyID string) []string {
	var all []string
	differ := func(field string, got, want any) {
		all = append(all, fmt.Sprintf("%s is %q, want %q", field, got, want))
	}
	if row.State != "signed" {
		differ("state", row.State+" ("+row.Reason+")", "signed")
		return all
	}
	if row.SignedAt == nil {
		differ("signed_at", "null", "a time")
	}
	if row.MediaType != f.Evidence.MediaType {
		differ("media_type", row.MediaType, f.Evidence.MediaType)
	}
	if f.Parent != "" && !slices.Contains(row.Parents, f.Parent) {
		differ("parents", fmt.Sprint(row.Parents), f.Parent)
	}
	want := string(c.formats[0])
	if len(c.formats) > 1 {
		want = "both"
	}
	if row.Format != want {
		differ("format", row.Format, want)
	}
	if len(row.Signatures) != len(c.formats) {
		differ("signatures", fmt.Sprint(row.Signatures), fmt.Sprint("one for each of ", c.formats))
		return all
	}
	for _, format := range c.formats {
		if !slices.ContainsFunc(row.Signatures, func(s RowSignature) bool {
			return s.Format == format && s.KeyID == keyID && f.Evidence.carries(format, s.Digest)
		}) {
			differ("signatures", fmt.Sprint(row.Signatures), fmt.Sprintf("one in the format %s by the key %s, in a manifest that is there", format, keyID))
		}
	}
	for _, s := range row.Signatures {
		if detail := f.Evidence.disagrees(s); detail != "" {
			all = append(all, detail)
		}
	}
	want = ""
	if slices.ContainsFunc(row.Signatures, func(s RowSignature) bool { return s.Log != "" }) {
		want = "logged"
	}
	if row.LogState != want || len(row.LogOwed) > 0 || row.LogOwedSince != nil {
		differ("log_state", fmt.Sprint(row.LogState, " ", row.LogOwed), want)
	}
	if first := row.Signatures[0]; row.KeyID != first.KeyID || row.SignatureDigest != first.Digest {
		differ("key_id and signature_digest", row.KeyID+" "+row.SignatureDigest, first.KeyID+" "+first.Digest)
	}
	return all
}

// carries says whether the manifest with a digest carries a valid signature by our key.
func (e Evidence) carries(format Format, manifest string) bool {
	return slices.ContainsFunc(e.Signatures, func(s Signature) bool {
		return s.Verdict == Valid && s.Format == format && s.Manifest == manifest
	})
}

// disagrees compares what a row says of a signature's log entry and timestamp with what the manifest carries.
func (e Evidence) disagrees(row RowSignature) string {
	at := slices.IndexFunc(e.Signatures, func(s Signature) bool {
		return s.Verdict == Valid && s.Format == row.Format && s.Manifest == row.Digest
	})
	if at < 0 {
		return "" // that is told already
	}
	there := e.Signatures[at]
	logged := func(o Entry) bool { return o.Log == row.Log && o.Index == row.LogIndex }
	stamped := func(o time.Time) bool { return o.Equal(row.TimestampedAt) }
	switch {
	case row.Log == "" && (row.LogIndex != 0 || len(there.Entries) > 0), row.Log != "" && !slices.ContainsFunc(there.Entries, logged):
		return fmt.Sprintf("log and log_index of the format %s are %q and %d, want one of %v", row.Format, row.Log, row.LogIndex, there.Entries)
	case row.TimestampedAt.IsZero() != (len(there.Stamped) == 0), !row.TimestampedAt.IsZero() && !slices.ContainsFunc(there.Stamped, stamped):
		return fmt.Sprintf("timestamped_at of the format %s is %s, want one of %v", row.Format, row.TimestampedAt, there.Stamped)
	}
	return ""
}

func cloneQuery(q url.Values) url.Values {
	clone := make(url.Values, len(q))
	for key, values := range q {
		clone[key] = slices.Clone(values)
	}
	return clone
}
