package api_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/notary"
)

// sealed is a ledger with one checkpoint.
type sealed struct{ keys *notary.Keys }

func (e sealed) Keys() *notary.Keys { return e.keys }

func (sealed) Summary() notary.Summary {
	return notary.Summary{
		Origin: "registry/harborseal/default/epoch/1", Epoch: 1, Size: 7, LastSeq: 9, Checkpoint: "a note", At: time.Unix(1, 0).UTC(),
		Epochs: []notary.Epoch{{Epoch: 1, Seq: 3, First: 1, Reason: notary.FirstStart, Note: "a statement"}},
	}
}

func TestLedger(t *testing.T) {
	text, err := notary.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := notary.ParseKey(text, "registry/harborseal/default")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := notary.NewKeys(key.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) { cfg.Merkle = sealed{keys} })
	rec := d.get(t, "/api/v1/ledger", as("ann"))
	var got api.LedgerAnswer
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Code != http.StatusOK {
		t.Fatalf("answer %d %s, %v", rec.Code, rec.Body, err)
	}
	if got.Size != 7 || got.Checkpoint != "a note" || len(got.VerifierKeys) != 1 || got.VerifierKeys[0] != key.VerifierKey() || len(got.Epochs) != 1 || got.VerifiedAt != nil {
		t.Errorf("answer %+v", got)
	}
	if rec := d.get(t, "/api/v1/ledger", nil); rec.Code != http.StatusUnauthorized {
		t.Errorf("answer %d to nobody, want 401", rec.Code)
	}
}
