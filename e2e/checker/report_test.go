package checker_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	g := newGarden(t)
	digest := g.image(t)
	g.sign(t, digest, g.layer(t, digest, claim{}))
	bundle, _ := g.bundle(t, digest, statement{})
	judge := g.wanting(checker.Formats()...)
	evidence, violations, err := judge.Signed(t.Context(), repository, digest)
	if err != nil || len(violations) > 0 {
		t.Fatalf("checking: %v, %v", violations, err)
	}
	id, err := checker.KeyID(&g.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	good := checker.Row{
		Repository: repository, Digest: digest, State: "signed", KeyID: id, SignedAt: &now, MediaType: evidence.MediaType,
		SignatureDigest: evidence.Tagged, Parents: []string{"sha256:parent"}, Format: "both",
		Signatures: []checker.RowSignature{
			{Format: checker.Legacy, KeyID: id, Digest: evidence.Tagged}, {Format: checker.Bundle, KeyID: id, Digest: bundle},
		},
	}
	change := func(f func(r *checker.Row)) []checker.Row {
		r := good
		r.Signatures = slices.Clone(good.Signatures)
		f(&r)
		return []checker.Row{r}
	}
	other := checker.Row{Repository: repository, Digest: "sha256:other"}
	otherSigned := checker.Row{Repository: repository, Digest: "sha256:other", State: "signed"}
	tests := []struct {
		name string
		rows []checker.Row
		want []checker.Rule
	}{
		{"as it is", []checker.Row{good}, nil},
		{"a row that claims nothing", []checker.Row{good, other}, nil},
		{"no row", nil, []checker.Rule{checker.ReportMissing}},
		{"two rows", []checker.Row{good, good}, []checker.Rule{checker.ReportSurplus}},
		{"a signed row too many", []checker.Row{good, otherSigned}, []checker.Rule{checker.ReportSurplus}},
		{"another state", change(func(r *checker.Row) { r.State = "pending" }), []checker.Rule{checker.ReportWrong}},
		{"bundle first", change(func(r *checker.Row) {
			slices.Reverse(r.Signatures)
			r.SignatureDigest = bundle
		}), nil},
		{"another key", change(func(r *checker.Row) { r.KeyID = "00" }), []checker.Rule{checker.ReportWrong}},
		{"another key of the bundle", change(func(r *checker.Row) { r.Signatures[1].KeyID = "00" }), []checker.Rule{checker.ReportWrong}},
		{"another bundle", change(func(r *checker.Row) { r.Signatures[1].Digest = evidence.Tagged }), []checker.Rule{checker.ReportWrong}},
		{"no signature", change(func(r *checker.Row) { r.Signatures = nil }), []checker.Rule{checker.ReportWrong}},
		{"one signature", change(func(r *checker.Row) { r.Signatures = r.Signatures[:1] }), []checker.Rule{checker.ReportWrong}},
		{"three signatures", change(func(r *checker.Row) { r.Signatures = append(r.Signatures, r.Signatures[0]) }), []checker.Rule{checker.ReportWrong}},
		{"twice the same", change(func(r *checker.Row) { r.Signatures[1] = r.Signatures[0] }), []checker.Rule{checker.ReportWrong}},
		{"another format", change(func(r *checker.Row) { r.Format = "legacy" }), []checker.Rule{checker.ReportWrong}},
		{"no time", change(func(r *checker.Row) { r.SignedAt = nil }), []checker.Rule{checker.ReportWrong}},
		{"another type", change(func(r *checker.Row) { r.MediaType = "text/plain" }), []checker.Rule{checker.ReportWrong}},
		{"another signature", change(func(r *checker.Row) { r.SignatureDigest = digest }), []checker.Rule{checker.ReportWrong}},
		{"a debt", change(func(r *checker.Row) { r.LogState, r.LogOwed = "owed", []checker.Format{checker.Bundle} }), []checker.Rule{checker.ReportWrong}},
		{"a log that is not there", change(func(r *checker.Row) { r.LogState, r.Signatures[0].Log = "logged", "rekor" }), []checker.Rule{checker.ReportWrong}},
		{"a timestamp that is not there", change(func(r *checker.Row) { r.Signatures[1].TimestampedAt = now }), []checker.Rule{checker.ReportWrong}},
		{"no parent", change(func(r *checker.Row) { r.Parents = nil }), []checker.Rule{checker.ReportWrong}},
	}
	facts := []checker.Fact{{Repository: repository, Digest: digest, Evidence: evidence, Parent: "sha256:parent"}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			violations, err := judge.Compare(facts, tt.rows)
			if err != nil {
				t.Fatalf("comparing: %v", err)
			}
			if got := rules(violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, violations)
			}
		})
	}
}

func TestRowsTurnsPages(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			http.Error(w, got, http.StatusUnauthorized)
			return
		}
		next := map[string]string{"": "a", "a": "b", "b": ""}[r.URL.Query().Get("cursor")]
		answer := map[string]any{"items": []checker.Row{{Digest: r.URL.Query().Get("project") + next}}, "next_cursor": next}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	rows, err := checker.Report{URL: server.URL, Token: "secret"}.Rows(t.Context(), url.Values{"project": {"demo-"}})
	if err != nil {
		t.Fatalf("asking: %v", err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, row.Digest)
	}
	if want := []string{"demo-a", "demo-b", "demo-"}; !slices.Equal(got, want) {
		t.Errorf("rows are %q, want %q", got, want)
	}
	if _, err := (checker.Report{URL: server.URL, Token: "wrong"}).Rows(t.Context(), nil); err == nil {
		t.Error("a refused question is no error")
	}
}
