//go:build e2e

package harness_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/e2e/harness"
)

// TestNATS starts real servers, publishes while nodes are killed and cut off, and finds everything that was acknowledged.
func TestNATS(t *testing.T) {
	t.Parallel()
	program, err := harness.BuildNATS(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := harness.StartNATS(t.Context(), harness.NATSOptions{Program: program, Dir: t.TempDir(), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.Tails())
		}
		if err := n.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	conn, err := n.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SIGN", Subjects: []string{"sign.v1.>"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	var acked uint64
	publish := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			ack, err := js.Publish(t.Context(), "sign.v1.x", nil, jetstream.WithRetryAttempts(0))
			if err == nil {
				if ack.Sequence <= acked {
					t.Errorf("the sequence is %d after %d was acknowledged", ack.Sequence, acked)
				}
				acked = ack.Sequence
				return
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	leader := func() *harness.Node {
		t.Helper()
		node, err := n.Leader(t.Context(), "SIGN")
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	publish()

	killed := leader()
	if err := n.Kill(killed); err != nil {
		t.Fatal(err)
	}
	if next := leader(); next == killed {
		t.Errorf("%s leads, which was killed", next.Name)
	}
	publish()
	if err := n.Start(t.Context(), killed); err != nil {
		t.Fatal(err)
	}

	for _, flow := range []harness.Flow{harness.Refuse, harness.Swallow} {
		cut := leader()
		n.Isolate(cut, flow)
		if next := leader(); next == cut {
			t.Errorf("%s leads, which is cut off", next.Name)
		}
		// A client of the others goes on.
		conn.Close()
		others := n.Nodes[0]
		if others == cut {
			others = n.Nodes[1]
		}
		if conn, err = n.Connect(others); err != nil {
			t.Fatal(err)
		}
		if js, err = jetstream.New(conn); err != nil {
			t.Fatal(err)
		}
		publish()
		n.Heal()
		if err := n.AwaitHealthy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	for _, node := range n.Nodes {
		if err := n.Kill(node); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range n.Nodes {
		if err := n.Launch(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.AwaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish()
	s, err := js.Stream(t.Context(), "SIGN")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.LastSeq; got != acked {
		t.Errorf("the stream ends at %d, want %d", got, acked)
	}
}

// A door leads one program to the servers and can be closed for it alone.
func TestNATSDoor(t *testing.T) {
	t.Parallel()
	program, err := harness.BuildNATS(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n, err := harness.StartNATS(t.Context(), harness.NATSOptions{Program: program, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	door, err := n.Door(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(door.URLs()[0])
	if err == nil {
		conn.Close()
		t.Error("a client without a password is let in")
	}
	door.Set(harness.Refuse)
	if _, err := nats.Connect(door.URLs()[0], nats.Timeout(time.Second)); err == nil {
		t.Error("a closed door lets somebody in")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := n.Leader(ctx, "NONE"); err == nil {
		t.Error("a stream that is not there has a leader")
	}
}
