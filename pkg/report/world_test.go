package report_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var started = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// view is a ledger with rows that are made as they are asked for.
type view struct {
	rows int
	row  func(i int) ledger.Row
	// err ends the rows behind the last one.
	err   error
	ended error // what the query ended with
	// waits makes the query wait behind its rows, as a slow database does.
	waits bool
}

func (v *view) Each(ctx context.Context, _ ledger.Query, fn func(ledger.Row) error) (ledger.Position, error) {
	for i := range v.rows {
		if v.ended = ctx.Err(); v.ended != nil {
			return ledger.Position{}, v.ended
		}
		if v.ended = fn(v.row(i)); v.ended != nil {
			return ledger.Position{}, v.ended
		}
	}
	if v.waits {
		<-ctx.Done()
		v.ended = ctx.Err()
		return ledger.Position{}, v.ended
	}
	v.ended = v.err
	return ledger.Position{Basis: ledger.Basis{Stream: started}, Seq: 4711}, v.err
}

func (v *view) Coverage(_ context.Context, projects []string) (map[string]ledger.Coverage, error) {
	all := map[string]ledger.Coverage{}
	for _, name := range projects {
		all[name] = ledger.Coverage{Population: 7, Signed: 5, Failed: 2}
	}
	return all, nil
}

func (v *view) Names(context.Context) ([]string, error) { return []string{"demo", "shop"}, nil }

func digest(i int) string {
	sum := sha256.Sum256(fmt.Append(nil, "manifest ", i))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func keyID() string { return strings.TrimPrefix(digest(-1), "sha256:") }

// rowOf gives rows of all states.
func rowOf(i int) ledger.Row {
	at := started.Add(time.Duration(i) * time.Second)
	row := ledger.Row{
		Project: "demo", Repository: "demo/team/app", Digest: digest(i), MediaType: "application/vnd.oci.image.manifest.v1+json",
		Parents: []string{}, Tags: []string{fmt.Sprintf("1.%d", i), "latest"}, TagsTotal: 2, Pusher: "robot$ci", PusherSource: ledger.PusherHarbor,
		PushedAt: &at, FirstSeenAt: at, ReceivedAt: &at, State: ledger.States()[i%len(ledger.States())], Signatures: []artifact.Evidence{},
		LogOwed: []artifact.Format{}, LedgerSeq: uint64(i + 1), //nolint:gosec // not negative
		PolicyRevision: "12",
	}
	switch row.State {
	case ledger.Signed:
		signed := at.Add(2 * time.Second)
		row.SignedAt, row.VerifiedAt, row.How, row.KeyID, row.Format = &signed, &signed, artifact.Made, keyID(), "both"
		row.Signatures = []artifact.Evidence{
			{Format: artifact.Legacy, KeyID: keyID(), Digest: digest(i + 1e6), Log: "rekor", LogIndex: int64(i), TimestampedAt: signed},
			{Format: artifact.Bundle, KeyID: keyID(), Digest: digest(i + 2e6)},
		}
		row.SignatureDigest, row.LogState, row.LogOwed = digest(i+1e6), ledger.LogOwed, []artifact.Format{artifact.Bundle}
	case ledger.Skipped:
		row.Reason = string(policy.Exempt)
		if i%3 == 0 {
			row.Reason = string(policy.IsAccessory)
		}
	case ledger.Failed, ledger.Dead:
		row.Reason, row.Detail = "unreachable", "harbor does not answer; it is tried again"
	default:
	}
	return row
}

// newKey makes a ledger key.
func newKey(tb testing.TB, name string) *notary.Key {
	tb.Helper()
	pem, err := notary.NewKey()
	if err != nil {
		tb.Fatalf("NewKey: %v", err)
	}
	key, err := notary.ParseKey(pem, name)
	if err != nil {
		tb.Fatalf("ParseKey: %v", err)
	}
	return key
}

// configured is an exporter's configuration with a key that has signed a checkpoint.
func configured(tb testing.TB, v *view, key *notary.Key) report.Config {
	tb.Helper()
	signed, err := notary.SignCheckpoint(key, 1, 0, sha256.Sum256(nil))
	if err != nil {
		tb.Fatalf("SignCheckpoint: %v", err)
	}
	return report.Config{
		View: v, Key: key, Checkpoint: func(context.Context) (string, error) { return signed, nil },
		Keys: func(context.Context) ([]report.KeyEntry, error) {
			return []report.KeyEntry{{ID: keyID(), Name: "main", Use: "image", State: "active", AddedAt: &started}}, nil
		},
		Harbor: "main", Registry: "harbor.example.com", Program: "1.2.3", Now: func() time.Time { return started },
	}
}

func exporter(tb testing.TB, cfg report.Config) *report.Exporter {
	tb.Helper()
	e, err := report.New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return e
}
