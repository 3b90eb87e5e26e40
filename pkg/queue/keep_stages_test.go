package queue_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// Each stage of a signature is kept for itself: the bytes alone, and what was made of them.
func TestKeepHasStages(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client, other := queuetest.NewClient(t, server), queuetest.NewClient(t, server)
	r := ref(t, "demo/app", 1)
	entry := func(index int64) *artifact.LogEntry {
		return &artifact.LogEntry{
			Log: "rekor", LogID: []byte{1, 2}, Kind: "dsse", Version: "0.0.1", Body: []byte("body"), Index: index, IntegratedAt: 1_700_000_000, SET: []byte("set"),
			Proof: &artifact.InclusionProof{Index: index, TreeSize: index + 1, RootHash: []byte("root"), Hashes: [][]byte{[]byte("a")}, Checkpoint: "note"},
		}
	}
	stages := []struct {
		name string
		add  func(s *artifact.Signature, n int64)
	}{
		{"bytes", func(*artifact.Signature, int64) {}},
		{"timestamped", func(s *artifact.Signature, n int64) {
			s.Timestamp, s.TimestampedAt = fmt.Appendf(nil, "stamp %d", n), time.Unix(1_700_000_000+n, 0).UTC()
		}},
		{"logged", func(s *artifact.Signature, n int64) { s.Entry = entry(n) }},
		{"both", func(s *artifact.Signature, n int64) {
			s.Timestamp, s.TimestampedAt, s.Entry = fmt.Appendf(nil, "stamp %d", n), time.Unix(1_700_000_000+n, 0).UTC(), entry(n)
		}},
		{"of an identity", func(s *artifact.Signature, n int64) {
			s.KeyID, s.Certificates, s.PublicKey, s.Entry = artifact.IdentityID("https://issuer", "subject"), [][]byte{[]byte("leaf"), []byte("root")}, []byte("key"), entry(n)
		}},
	}
	first := make([]artifact.Signature, len(stages))
	for i, stage := range stages {
		first[i] = signature(artifact.Bundle, keyID(1))
		stage.add(&first[i], 1)
		if got := keep(t, client, r, first[i]); !reflect.DeepEqual(got, first[i]) {
			t.Errorf("%s: got %+v, want its own: nothing of this stage was kept", stage.name, got)
		}
	}
	for i, stage := range stages {
		second := signature(artifact.Bundle, keyID(1))
		stage.add(&second, 2)
		if got := keep(t, other, r, second); !reflect.DeepEqual(got, first[i]) {
			t.Errorf("%s: got %+v, want the first, %+v", stage.name, got, first[i])
		}
	}
}
