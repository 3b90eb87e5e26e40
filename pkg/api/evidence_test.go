package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// known is what the ledger knows of single manifests.
type known struct {
	rows    map[artifact.Ref]ledger.Row
	entries []artifact.Entry
	err     error
}

func (k *known) One(_ context.Context, ref artifact.Ref) (ledger.Row, bool, error) {
	row, found := k.rows[ref]
	return row, found, k.err
}

func (k *known) History(_ context.Context, _ artifact.Ref, limit int) ([]artifact.Entry, bool, error) {
	return k.entries[:min(limit, len(k.entries))], len(k.entries) > limit, k.err
}

// past is an event of a manifest.
func past(seq uint64, ref artifact.Ref, kind artifact.Kind, change func(e *artifact.Event)) artifact.Entry {
	e := artifact.Event{ID: "e", Kind: kind, Ref: ref, Time: noon, Origin: artifact.OriginWebhook, CorrelationID: "c"}
	if change != nil {
		change(&e)
	}
	return artifact.Entry{Seq: seq, Event: e, Subject: "ledger.v1.default." + string(kind), Data: []byte("data")}
}

func rowOf(ref artifact.Ref, state ledger.State) ledger.Row {
	return ledger.Row{
		Project: ref.Project(), Repository: ref.Repository(), Digest: ref.Digest(), Parents: []string{}, Tags: []string{}, State: state, FirstSeenAt: noon,
		Signatures: []artifact.Evidence{}, LogState: ledger.LogStates()[0], LogOwed: []artifact.Format{}, PusherSource: "none",
	}
}

const trustAnswer = `{"trusted_root":{},"keys":[],"identities":[],"logs":[],"authorities":[],"commands":[
	{"title":"plain","key":"images","format":"legacy","programs":["v2.6.5","v3.1.3"],"line":"cosign verify --key images.pub --trusted-root trusted_root.json --insecure-ignore-tlog harbor.example.com/PROJECT/REPOSITORY:TAG"},
	{"title":"logged","key":"images","format":"legacy","log":"rekor","programs":["v2.6.5"],"line":"cosign verify --key images.pub --trusted-root trusted_root.json --offline harbor.example.com/PROJECT/REPOSITORY:TAG"},
	{"title":"other log","key":"images","format":"legacy","log":"other","programs":["v2.6.5"],"line":"cosign verify x"},
	{"title":"stamped","key":"images","format":"legacy","authority":"tsa","programs":["v2.6.5"],"line":"cosign verify x"},
	{"title":"bundle","key":"images","format":"bundle","programs":["v2.6.5"],"line":"cosign verify x"},
	{"title":"other key","key":"others","format":"legacy","programs":["v2.6.5"],"line":"cosign verify x"}]}`

// evidenceDoor knows everything about one manifest in a repository with slashes.
func evidenceDoor(t *testing.T, change func(cfg *api.Config, k *known, i *inspected)) (d door, path string, ref artifact.Ref) {
	t.Helper()
	ref = ledgertest.Ref("demo/team/app", 1)
	parent, child := ledgertest.Ref("demo/team/app", 2), ledgertest.Ref("demo/team/app", 3)
	row := rowOf(ref, ledger.Signed)
	row.Parents, row.ParentsTotal, row.Tags, row.TagsTotal = []string{parent.Digest()}, 1, []string{"v2", "v0"}, 2
	pushed := noon.Add(-time.Hour)
	k := &known{
		rows: map[artifact.Ref]ledger.Row{ref: row, parent: rowOf(parent, ledger.Signed)},
		entries: []artifact.Entry{
			past(9, ref, artifact.Received, func(e *artifact.Event) { e.Tag = "v2" }),
			past(7, ref, artifact.Signed, nil),
			past(5, ref, artifact.Signed, nil),
			{Seq: 4, Subject: "ledger.v1.default.received", Data: []byte("x")},
			past(3, ref, artifact.Confirmed, func(e *artifact.Event) { e.Tag, e.PushedAt = "v1", &pushed }),
			past(2, ref, artifact.Received, func(e *artifact.Event) { e.Tag = "v1" }),
			past(1, ref, artifact.Received, func(e *artifact.Event) { e.Tag, e.PushedAt = "v2", &pushed }),
		},
	}
	i := &inspected{report: reportOf(ref, child.Digest())}
	d = open(t, &report{page: ledger.Page{Items: []ledger.Row{}}}, func(cfg *api.Config) {
		cfg.Images, cfg.Unit, cfg.History = i, k, k
		cfg.Trust = func(context.Context) ([]byte, error) { return []byte(trustAnswer), nil }
		cfg.Prove = func(_ context.Context, seq uint64) (*api.LedgerProof, error) {
			return &api.LedgerProof{Epoch: 1, Index: seq - 1, Size: 10, LeafHash: []byte{2}, Hashes: [][]byte{{1}}, Checkpoint: "note"}, nil
		}
		if change != nil {
			change(cfg, k, i)
		}
	})
	return d, "/api/v1/signatures/" + ref.Repository() + "/" + ref.Digest(), ref
}

func evidenceAt(t *testing.T, d door, path string) api.EvidenceAnswer {
	t.Helper()
	rec := d.get(t, path, as("ann"))
	if rec.Code != http.StatusOK {
		t.Fatalf("GET %s = %d %s", path, rec.Code, rec.Body)
	}
	var e api.EvidenceAnswer
	if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func parts(e api.EvidenceAnswer) string {
	all := []string{}
	for _, m := range e.Missing {
		all = append(all, m.Part+" "+string(m.Reason))
	}
	return strings.Join(all, ", ")
}

func TestEvidence(t *testing.T) {
	var seen shown
	d, path, ref := evidenceDoor(t, func(cfg *api.Config, _ *known, _ *inspected) { cfg.Reads = &seen })
	e := evidenceAt(t, d, path)
	if d.get(t, path, as("out")); len(seen) != 1 || seen[0] != "ann demo "+path {
		t.Errorf("recorded are %q, want who was shown it and what", seen)
	}
	if e.Image != "harbor.example.com/"+ref.String() || parts(e) != "" || e.Row == nil || e.Row.Digest != ref.Digest() || e.Registry == nil || len(e.Registry.Signatures) != 1 {
		t.Errorf("%s: row %v, registry %v, missing %q", e.Image, e.Row, e.Registry, parts(e))
	}
	if len(e.Events) != 7 || e.Events[0].Seq != 9 || e.Events[3].Event != nil || e.MoreEvents {
		t.Errorf("events %+v", e.Events)
	}
	if p := e.Proof; p == nil || p.Seq != 7 || p.Index != 6 || string(p.Data) != "data" || p.Subject != "ledger.v1.default.signed" {
		t.Errorf("proof %+v, want that of the newest signed event", p)
	}
	var tags []string
	for _, tag := range e.Tags {
		short := tag.Name
		if tag.FirstAt != nil {
			short += " " + tag.FirstAt.Format(time.TimeOnly) + " " + tag.LastAt.Format(time.TimeOnly)
		}
		tags = append(tags, short)
	}
	hour, before := noon.Format(time.TimeOnly), noon.Add(-time.Hour).Format(time.TimeOnly)
	if want := []string{"v2 " + before + " " + hour, "v0", "v1 " + before + " " + hour}; !slices.Equal(tags, want) {
		t.Errorf("tags %q, want %q", tags, want)
	}
	if len(e.Parents) != 1 || e.Parents[0].State != ledger.Signed || len(e.Children) != 1 || e.Children[0].State != "" {
		t.Errorf("parents %+v, children %+v", e.Parents, e.Children)
	}
	var lines []string
	for _, c := range e.Commands {
		lines = append(lines, c.Line)
	}
	if want := []string{
		"cosign verify --key images.pub --trusted-root trusted_root.json --insecure-ignore-tlog harbor.example.com/" + ref.String(),
		"cosign verify --key images.pub --trusted-root trusted_root.json --offline harbor.example.com/" + ref.String(),
	}; !slices.Equal(lines, want) {
		t.Errorf("commands\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// What cannot be had is null with a reason, and the rest is there.
func TestEvidenceThatIsMissing(t *testing.T) {
	away := fault.Newf(fault.Transient, fault.QueueUnavailable, "secret path")
	tests := []struct {
		name   string
		change func(cfg *api.Config, k *known, i *inspected)
		want   string
	}{
		{"no signer answers", func(cfg *api.Config, _ *known, i *inspected) {
			i.err = away
			cfg.Trust = func(context.Context) ([]byte, error) { return nil, away }
		}, "children not_found, commands queue_unavailable, registry queue_unavailable"},
		{
			"the manifest is gone from the registry", func(_ *api.Config, _ *known, i *inspected) { i.err = fault.Newf(fault.Gone, fault.NotFound, "gone") },
			"children not_found, commands not_found, registry not_found",
		},
		{"the database is away", func(_ *api.Config, k *known, _ *inspected) {
			k.err = fault.Newf(fault.Transient, fault.StorageUnavailable, "secret path")
		}, "children storage_unavailable, events storage_unavailable, parents not_found, proof not_found, row storage_unavailable"},
		{"the ledger never heard of it", func(_ *api.Config, k *known, _ *inspected) { k.rows, k.entries = nil, nil }, "parents not_found, proof not_found, row not_found"},
		{"no Merkle log", func(cfg *api.Config, _ *known, _ *inspected) { cfg.Prove = nil }, "proof unavailable"},
		{"no checkpoint yet", func(cfg *api.Config, _ *known, _ *inspected) {
			cfg.Prove = func(context.Context, uint64) (*api.LedgerProof, error) { return nil, nil } //nolint:nilnil // "not yet" is an answer
		}, "proof not_found"},
		{"a proof that fails", func(cfg *api.Config, _ *known, _ *inspected) {
			cfg.Prove = func(context.Context, uint64) (*api.LedgerProof, error) { return nil, away }
		}, "proof queue_unavailable"},
		{"nothing is wired", func(cfg *api.Config, _ *known, _ *inspected) {
			cfg.Images, cfg.Unit, cfg.History, cfg.Prove, cfg.Trust = nil, nil, nil, nil, nil
		}, "children not_found, commands queue_unavailable, events unavailable, parents not_found, proof unavailable, registry queue_unavailable, row unavailable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, path, _ := evidenceDoor(t, tt.change)
			e := evidenceAt(t, d, path)
			if got := parts(e); got != tt.want {
				t.Errorf("missing %q, want %q", got, tt.want)
			}
			for _, m := range e.Missing {
				if m.Detail == "" || strings.Contains(m.Detail, "secret") {
					t.Errorf("%s is missing because of %q", m.Part, m.Detail)
				}
			}
		})
	}
}

func TestEvidenceStatuses(t *testing.T) {
	unheard := func(_ *api.Config, k *known, i *inspected) {
		k.rows, k.entries, i.err = nil, nil, fault.Newf(fault.Gone, fault.NotFound, "gone")
	}
	digest := ledgertest.Ref("demo/team/app", 1).Digest()
	for name, tt := range map[string]struct {
		path   string
		header http.Header
		change func(cfg *api.Config, k *known, i *inspected)
		status int
	}{
		"nobody knows it":           {"demo/team/app/" + digest, as("ann"), unheard, 404},
		"a robot that may pull":     {"demo/app/" + digest, as("robot$ci"), nil, 200},
		"a robot that may not":      {"app/app/" + digest, as("robot$ci"), nil, 404},
		"a member of nothing":       {"demo/app/" + digest, as("out"), nil, 404},
		"nobody":                    {"demo/app/" + digest, nil, nil, 401},
		"a digest that is none":     {"demo/app/sha256:12", as("ann"), nil, 400},
		"a repository that is none": {"demo/App/" + digest, as("ann"), nil, 400},
		"no repository":             {"demo/" + digest, as("ann"), nil, 400},
		"an empty part":             {"demo//app/" + digest, as("ann"), nil, 400},
		"a parameter":               {"demo/app/" + digest + "?x=1", as("ann"), nil, 400},
		"nothing":                   {"", as("ann"), nil, 400},
	} {
		d, _, _ := evidenceDoor(t, tt.change)
		if rec := d.get(t, "/api/v1/signatures/"+tt.path, tt.header); rec.Code != tt.status {
			t.Errorf("%s: %d %s, want %d", name, rec.Code, rec.Body, tt.status)
		}
	}
	// The report is where it was.
	d, _, _ := evidenceDoor(t, nil)
	if rec := d.get(t, "/api/v1/signatures?limit=1", as("ann")); rec.Code != http.StatusOK {
		t.Errorf("the report: %d %s", rec.Code, rec.Body)
	}
}

// An index with many children is shown in part.
func TestEvidenceOfAHugeIndex(t *testing.T) {
	d, path, _ := evidenceDoor(t, func(_ *api.Config, _ *known, i *inspected) {
		var children []string
		for n := range 300 {
			children = append(children, ledgertest.Ref("demo/team/app", 1000+n).Digest())
		}
		i.report = reportOf(ledgertest.Ref("demo/team/app", 1), children...)
		i.report.Signatures = []inspect.Signature{}
	})
	if e := evidenceAt(t, d, path); len(e.Children) != 100 || parts(e) != "children too_large" || len(e.Commands) != 0 || e.Commands == nil {
		t.Errorf("%d children, %d commands, missing %q", len(e.Children), len(e.Commands), parts(e))
	}
}

// Collecting evidence keeps few who work at it: a caller who asks for much at once is told to wait, and others are not.
func TestEvidenceAtOnce(t *testing.T) {
	hold, arrived := make(chan struct{}), make(chan struct{}, 10)
	d, path, _ := evidenceDoor(t, func(_ *api.Config, _ *known, i *inspected) { i.hold, i.arrived = hold, arrived })
	codes := make(chan int, 5)
	ask := func(who string) { codes <- d.get(t, path, as(who)).Code }
	for range 5 {
		go ask("ann")
	}
	select {
	case code := <-codes:
		if code != http.StatusTooManyRequests {
			t.Errorf("the fifth of a caller gets %d, want 429", code)
		}
	case <-time.After(10 * time.Second):
		t.Error("all of five wait")
	}
	go ask("root")
	for n := range 5 {
		select {
		case <-arrived:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d are being collected, want four of one caller and one of another", n)
		}
	}
	close(hold)
	for range 5 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one that had a place gets %d", code)
		}
	}
}
