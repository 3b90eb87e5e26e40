package notary_test

import (
	"bytes"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// history is a ledger with an epoch and three checkpoints: events 1 to 10, the epoch at 11, checkpoints behind 11, 22 and 33.
func history(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.record(10)
	n := w.start(w.config())
	w.tick(n)
	for range 2 {
		w.record(10)
		w.tick(n)
	}
	w.saved(w.last() - 1)
	n.stop()
	wantFindings(t, w.verify(notary.VerifyConfig{Store: w.store}))
	return w
}

func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	drop := func(all []message, seq uint64) []message {
		return slices.DeleteFunc(all, func(m message) bool { return m.seq == seq })
	}
	tests := []struct {
		name   string
		tamper func(all []message) []message
		exact  []string // with the leaves of the database
		rough  []string // with the checkpoints alone
	}{
		{"nothing", func(all []message) []message { return all }, nil, nil},
		{"an event is changed", func(all []message) []message {
			all[4].data = bytes.Replace(all[4].data, []byte("paused"), []byte("resumed"), 1)
			return all
		}, []string{"changed 5-5"}, []string{"checkpoint_mismatch 1-11"}},
		{"the subject of an event is changed", func(all []message) []message {
			all[14].subject = all[15].subject
			return all
		}, []string{"changed 15-15"}, []string{"checkpoint_mismatch 12-22"}},
		{"an event is removed", func(all []message) []message {
			return drop(all, 15)
		}, []string{"removed 15-15"}, []string{"removed 12-22"}},
		{"an event is removed and those behind it move up", func(all []message) []message {
			all = drop(all, 15)
			for i := range all {
				all[i].seq = uint64(i + 1)
			}
			return all
		}, []string{"removed 15-15"}, nil},
		{"two events change places", func(all []message) []message {
			all[13].subject, all[14].subject = all[14].subject, all[13].subject
			all[13].data, all[14].data = all[14].data, all[13].data
			return all
		}, []string{"reordered 14-15"}, []string{"checkpoint_mismatch 12-22"}},
		{"an event is inserted", func(all []message) []message {
			all = slices.Insert(all, 14, message{subject: "ledger.v1.default.paused.x.y", data: []byte("{}")})
			for i := range all {
				all[i].seq = uint64(i + 1)
			}
			return all
		}, []string{"inserted 15-15"}, nil},
		{"a checkpoint is of another key", func(all []message) []message {
			all[11].data = bytes.Replace(all[11].data, []byte("default/epoch"), []byte("other/epoch"), 1)
			return all
		}, []string{"bad_signature 12-12", "changed 12-12"}, []string{"bad_signature 12-12", "checkpoint_mismatch 1-22"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := history(t)
			forged := w.rewrite(tt.tamper(w.messages()))
			wantFindings(t, forged.verify(notary.VerifyConfig{Store: w.store}), tt.exact...)
			rough := forged.verify(notary.VerifyConfig{})
			if tt.rough != nil || tt.exact == nil {
				wantFindings(t, rough, tt.rough...)
			} else if rough.OK() {
				t.Errorf("the checkpoints alone find nothing: %+v", rough)
			}
		})
	}
}

// A message that is deleted in the stream itself leaves a gap.
func TestADeletedMessageIsFound(t *testing.T) {
	t.Parallel()
	w := history(t)
	all, made := w.messages(), w.stream().CachedInfo().Config
	made.DenyDelete = false // the server refuses it else, and does not let anybody change that
	bare := &world{t: t, key: w.key, store: w.store}
	bare.server = startServer(t, t.TempDir())
	js := bare.jetStream()
	stream, err := js.CreateStream(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if _, err := js.Publish(t.Context(), m.subject, m.data); err != nil {
			t.Fatal(err)
		}
	}
	bare.client = queuetest.Connect(t, queue.Config{URLs: []string{bare.server.ClientURL()}})
	wantFindings(t, bare.verify(notary.VerifyConfig{Store: w.store}))
	if err := stream.SecureDeleteMsg(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	w = bare
	wantFindings(t, w.verify(notary.VerifyConfig{Store: w.store}), "removed 7-7")
	wantFindings(t, w.verify(notary.VerifyConfig{}), "removed 1-11")
}

// A ledger that went back is found by whoever knows a later checkpoint, and the notary begins another epoch.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := history(t)
	old := w.rewrite(w.messages()[:25])
	wantFindings(t, old.verify(notary.VerifyConfig{Store: w.store}), "rolled_back 26-33")
	wantFindings(t, old.verify(notary.VerifyConfig{}))

	n := old.start(old.config())
	old.tick(n)
	s := n.Summary()
	if len(s.Findings) != 1 || s.Findings[0].Kind != notary.RolledBack || s.Epoch != 2 {
		t.Errorf("summary %+v, want a finding and epoch 2", s)
	}
	tampered, found, err := old.client.NewestOf(t.Context(), "tampered")
	if err != nil || !found || tampered.Event.Reason != string(notary.RolledBack) {
		t.Errorf("tampered event %+v, %t, %v", tampered.Event, found, err)
	}
	if len(s.Epochs) == 0 || s.Epochs[len(s.Epochs)-1].Reason != notary.AfterRollback || s.Epochs[len(s.Epochs)-1].First != 23 {
		t.Errorf("epochs %+v, want the second from 23 on", s.Epochs)
	}
	if s.Checkpoint == "" || s.Size < 3 {
		t.Errorf("no checkpoint of the new epoch: %+v", s)
	}
	n.stop()
	old.record(3)
	n = old.start(old.config()) // it has learnt
	old.tick(n)
	if got := n.Summary(); len(got.Findings) != 0 || got.Epoch != 2 {
		t.Errorf("after a restart: %+v, want epoch 2 and nothing new", got)
	}
	n.stop()
}

// Whoever may write events cannot use up the place of a finding with forged notes.
func TestForgedNotesHideNothing(t *testing.T) {
	t.Parallel()
	w := history(t)
	all := w.messages()
	for range 1100 { // more than are remembered
		forged := all[11]
		forged.data = bytes.Replace(forged.data, []byte("default/epoch"), []byte("other/epoch"), 1)
		forged.seq = uint64(len(all) + 1)
		all = append(all, forged)
	}
	all[14].data = bytes.Replace(all[14].data, []byte("paused"), []byte("resumed"), 1)
	forged := w.rewrite(all)
	forged.store = w.store
	n, err := notary.New(forged.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	flood := w.start(notary.Config{Ledger: forged.client, Key: w.key, Now: w.clock.Now})
	forged.caughtUp(flood)
	if err := flood.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]notary.Summary{"after a verification": n.Summary(), "having met them before": flood.Summary()} {
		exact := slices.ContainsFunc(s.Findings, func(f notary.Finding) bool { return f.Kind != notary.BadSignature && f.From <= 15 && f.To >= 15 })
		if !exact || len(s.Findings) > 200 {
			t.Errorf("%s: %d findings, the change of event 15 among them: %t; want it, and few others", name, len(s.Findings), exact)
		}
	}
}

// What the notary records has ids that nobody else can foresee: they could be used up before. All who hold the key agree on them.
func TestIDsCannotBeForeseen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.record(3)
	n := w.start(w.config())
	w.tick(n)
	slot := strconv.FormatInt(w.clock.Now().UnixNano()/int64(time.Minute), 10)
	for kind, foreseen := range map[artifact.Kind]string{
		artifact.EpochOpened:  artifact.EventID(artifact.EpochOpened, artifact.Ref{}, "1"),
		artifact.Checkpointed: artifact.EventID(artifact.Checkpointed, artifact.Ref{}, "1", time.Minute.String(), slot),
	} {
		newest, found, err := w.client.NewestOf(t.Context(), kind)
		if err != nil || !found {
			t.Fatalf("no event %s: %v", kind, err)
		}
		if newest.Event.ID == foreseen {
			t.Errorf("the id of the event %s is what anybody can compute", kind)
		}
	}
}
