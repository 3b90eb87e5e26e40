package queue_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// keyID makes the id of a key.
func keyID(n int) string { return fmt.Sprintf("%064x", n) }

// signature makes one that differs each time, as those of a randomised key do.
func signature(format artifact.Format, key string) artifact.Signature {
	return artifact.Signature{Format: format, KeyID: key, Payload: []byte(`{"critical":{}}`), Bytes: []byte(rand.Text())}
}

func keep(t *testing.T, c *queue.Client, r artifact.Ref, s artifact.Signature) artifact.Signature {
	t.Helper()
	got, err := c.Keep(t.Context(), r, s)
	if err != nil {
		t.Fatalf("Keep(%s) = %v", r, err)
	}
	return got
}

func TestKeepGivesTheFirst(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r := ref(t, "demo/app.v1", 1)
	first := signature(artifact.Legacy, keyID(1))
	if got := keep(t, client, r, first); !reflect.DeepEqual(got, first) {
		t.Errorf("the first: got %+v, want it", got)
	}
	if got := keep(t, queuetest.NewClient(t, server), r, signature(artifact.Legacy, keyID(1))); !reflect.DeepEqual(got, first) {
		t.Errorf("the second: got %+v, want the first, %+v", got, first)
	}
	// Whatever else is asked for is a signature of its own.
	harbor := queuetest.Connect(t, queue.Config{Server: server, Harbor: "other"})
	for name, other := range map[string]struct {
		client *queue.Client
		ref    artifact.Ref
		s      artifact.Signature
	}{
		"format":     {client, r, signature(artifact.Bundle, keyID(1))},
		"key":        {client, r, signature(artifact.Legacy, keyID(2))},
		"digest":     {client, ref(t, "demo/app.v1", 2), signature(artifact.Legacy, keyID(1))},
		"repository": {client, ref(t, "demo/app.v2", 1), signature(artifact.Legacy, keyID(1))},
		"harbor":     {harbor, r, signature(artifact.Legacy, keyID(1))},
	} {
		if got := keep(t, other.client, other.ref, other.s); !reflect.DeepEqual(got, other.s) {
			t.Errorf("another %s: got %+v, want its own, %+v", name, got, other.s)
		}
	}
}

// Several programs with one digest, each with bytes of its own, over and over: all of them end with the same.
func TestKeepAgrees(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	clients := []*queue.Client{queuetest.NewClient(t, server), queuetest.NewClient(t, server), queuetest.NewClient(t, server)}
	agree(t, clients, 150, func(int) {})
}

// What cannot be read is replaced by one of those who meet it at once, and that one counts for all of them.
func TestKeepAgreesOverGarbage(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	clients := []*queue.Client{queuetest.NewClient(t, server), queuetest.NewClient(t, server), queuetest.NewClient(t, server)}
	js := bare(t, server)
	agree(t, clients, 100, func(round int) {
		if _, err := js.Publish(t.Context(), keptSubject(ref(t, "demo/app", round)), []byte("garbage")); err != nil {
			t.Fatal(err)
		}
	})
}

func keptSubject(r artifact.Ref) string {
	return queue.KeptSubject("default", r, artifact.Signature{Format: artifact.Bundle, KeyID: keyID(1)})
}

// agree lets all clients keep a signature for the same digest at once, in each round for another one.
func agree(t *testing.T, clients []*queue.Client, rounds int, before func(round int)) {
	t.Helper()
	winners := map[int]int{}
	for round := range rounds {
		before(round)
		r := ref(t, "demo/app", round)
		own, got := make([]artifact.Signature, len(clients)), make([]artifact.Signature, len(clients))
		start := make(chan struct{})
		var programs sync.WaitGroup
		for i, client := range clients {
			own[i] = signature(artifact.Bundle, keyID(1))
			programs.Go(func() {
				<-start
				var err error
				if got[i], err = client.Keep(t.Context(), r, own[i]); err != nil {
					t.Errorf("round %d: Keep = %v", round, err)
				}
			})
		}
		close(start)
		programs.Wait()
		for i := range got {
			if !reflect.DeepEqual(got[i], got[0]) {
				t.Fatalf("round %d: client %d has %q, client 0 has %q", round, i, got[i].Bytes, got[0].Bytes)
			}
		}
		winner := slices.IndexFunc(own, func(s artifact.Signature) bool { return bytes.Equal(s.Bytes, got[0].Bytes) })
		if winner < 0 {
			t.Fatalf("round %d: got %q, which nobody kept", round, got[0].Bytes)
		}
		winners[winner]++
	}
	t.Logf("rounds won, by client: %v", winners)
}

func TestKeepSurvivesARestart(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, first := ref(t, "demo/app", 1), signature(artifact.Legacy, keyID(1))
	keep(t, client, r, first)
	startAgain(t, server, serverCfg)
	var got artifact.Signature
	insist(t, func(ctx context.Context) (err error) {
		got, err = client.Keep(ctx, r, signature(artifact.Legacy, keyID(1)))
		return err
	})
	if !reflect.DeepEqual(got, first) {
		t.Errorf("got %+v after the restart, want the first, %+v", got, first)
	}
}

func TestKeptSignaturesExpire(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r, first := ref(t, "demo/app", 1), signature(artifact.Legacy, keyID(1))
	keep(t, client, r, first)
	updateStream(t, js, "KV_SIGNATURES", func(cfg *jetstream.StreamConfig) {
		cfg.MaxAge, cfg.Duplicates = 100*time.Millisecond, 100*time.Millisecond
	})
	eventually(t, "the signature has expired", func() bool {
		handle, err := js.Stream(t.Context(), "KV_SIGNATURES")
		return err == nil && handle.CachedInfo().State.Msgs == 0
	})
	if second := signature(artifact.Legacy, keyID(1)); !reflect.DeepEqual(keep(t, client, r, second), second) {
		t.Error("got an expired signature")
	}
	// A program that sets up makes the time longer again, and would not make a longer one shorter.
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := streamConfig(t, js, "KV_SIGNATURES").MaxAge; got != 2*time.Hour {
		t.Errorf("age %s after Setup, want 2h", got)
	}
	updateStream(t, js, "KV_SIGNATURES", func(cfg *jetstream.StreamConfig) { cfg.MaxAge = 5 * time.Hour })
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := streamConfig(t, js, "KV_SIGNATURES").MaxAge; got != 5*time.Hour {
		t.Errorf("age %s after Setup, want the 5h that it had", got)
	}
}

func TestKeepReplacesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	var logged bytes.Buffer
	client := queuetest.Connect(t, queue.Config{Server: server, Logger: newLogger(&logged)})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	js := bare(t, server)
	r := ref(t, "demo/app", 1)
	envelope := func(version int, of artifact.Ref, s artifact.Signature) string {
		data, err := json.Marshal(map[string]any{"v": version, "ref": of, "signature": s})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	good := signature(artifact.Bundle, keyID(1))
	empty := good
	empty.Bytes = nil
	for name, content := range map[string]string{
		"nothing":           "",
		"text":              "garbage",
		"no version":        `{"signature":{}}`,
		"of another type":   `{"v":1,"ref":5}`,
		"a newer version":   envelope(2, r, good),
		"another reference": envelope(1, ref(t, "demo/app", 2), good),
		"another format":    envelope(1, r, signature(artifact.Legacy, keyID(1))),
		"another key":       envelope(1, r, signature(artifact.Bundle, keyID(2))),
		"no signature":      envelope(1, r, empty),
		"too large":         envelope(1, r, artifact.Signature{Format: artifact.Bundle, KeyID: keyID(1), Payload: make([]byte, 64<<10), Bytes: []byte("x")}),
	} {
		t.Run(name, func(t *testing.T) {
			logged.Reset()
			if _, err := js.Publish(t.Context(), keptSubject(r), []byte(content)); err != nil {
				t.Fatal(err)
			}
			own := signature(artifact.Bundle, keyID(1))
			for range 2 {
				if got := keep(t, client, r, own); !reflect.DeepEqual(got, own) {
					t.Fatalf("got %+v, want its own, %+v", got, own)
				}
			}
			if n := strings.Count(logged.String(), "kept signature cannot be read, replacing it"); n != 1 {
				t.Errorf("it was logged %d times, want once:\n%s", n, logged.String())
			}
		})
	}
	// What this program kept is none of these.
	if _, err := js.Publish(t.Context(), keptSubject(r), []byte(envelope(1, r, good))); err != nil {
		t.Fatal(err)
	}
	if got := keep(t, client, r, signature(artifact.Bundle, keyID(1))); !reflect.DeepEqual(got, good) {
		t.Errorf("got %+v, want what is kept, %+v", got, good)
	}
}

func TestKeepRefuses(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	r := ref(t, "demo/app", 1)
	for name, tt := range map[string]struct {
		ref    artifact.Ref
		change func(*artifact.Signature)
		want   fault.Reason
	}{
		"no reference":           {artifact.Ref{}, func(*artifact.Signature) {}, fault.Malformed},
		"no format":              {r, func(s *artifact.Signature) { s.Format = "" }, fault.Malformed},
		"a format of two tokens": {r, func(s *artifact.Signature) { s.Format = "a.b" }, fault.Malformed},
		"a short key id":         {r, func(s *artifact.Signature) { s.KeyID = "ab" }, fault.Malformed},
		"a key id of tokens":     {r, func(s *artifact.Signature) { s.KeyID = "*." + s.KeyID[2:] }, fault.Malformed},
		"no payload":             {r, func(s *artifact.Signature) { s.Payload = nil }, fault.Malformed},
		"no signature":           {r, func(s *artifact.Signature) { s.Bytes = nil }, fault.Malformed},
		"too large":              {r, func(s *artifact.Signature) { s.Payload = make([]byte, 64<<10) }, fault.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := signature(artifact.Legacy, keyID(1))
			tt.change(&s)
			_, err := client.Keep(t.Context(), tt.ref, s)
			wantFault(t, err, fault.Permanent, tt.want)
		})
	}
}

func TestKeepInAFullStore(t *testing.T) {
	t.Parallel()
	server := queuetest.StartServer(t, queue.ServerConfig{StoreDir: t.TempDir(), MaxStore: 64 << 10})
	client := queuetest.NewClient(t, server)
	r, first := ref(t, "demo/app", 1), signature(artifact.Legacy, keyID(1))
	keep(t, client, r, first)
	js := bare(t, server)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "BALLAST", Subjects: []string{"ballast"}}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := js.Publish(t.Context(), "ballast", make([]byte, 8<<10)); err != nil {
			break
		}
	}
	_, err := client.Keep(t.Context(), ref(t, "demo/app", 2), signature(artifact.Legacy, keyID(1)))
	wantFault(t, err, fault.Transient, fault.QueueFull)
	if err := js.DeleteStream(t.Context(), "BALLAST"); err != nil {
		t.Fatal(err)
	}
	if got := keep(t, client, r, signature(artifact.Legacy, keyID(1))); !reflect.DeepEqual(got, first) {
		t.Errorf("got %+v once there is room, want what was kept, %+v", got, first)
	}
}

func TestKeepWithoutAServer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r, s := ref(t, "demo/app", 1), signature(artifact.Legacy, keyID(1))
	ended, end := context.WithCancel(t.Context())
	end()
	_, err := client.Keep(ended, r, s)
	wantFault(t, err, fault.Transient, fault.Canceled)
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = client.Keep(t.Context(), r, s)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
}

// What is kept is a bucket for everything that speaks NATS, such as the tools of an operator, and a deletion by them is
// no more than a signature that is not there.
func TestKeptSignaturesAreABucket(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r, first := ref(t, "demo/app", 1), signature(artifact.Bundle, keyID(1))
	keep(t, client, r, first)
	bucket, err := bare(t, server).KeyValue(t.Context(), "SIGNATURES")
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimPrefix(keptSubject(r), "$KV.SIGNATURES.")
	entry, err := bucket.Get(t.Context(), key)
	if err != nil || !strings.Contains(string(entry.Value()), `"v":1`) {
		t.Fatalf("got %v, %v; want the envelope of version 1", entry, err)
	}
	if _, err := bucket.Create(t.Context(), key, []byte("x")); !errors.Is(err, jetstream.ErrKeyExists) {
		t.Errorf("Create beside it = %v, want %v", err, jetstream.ErrKeyExists)
	}
	for name, remove := range map[string]func() error{
		"deleted": func() error { return bucket.Delete(t.Context(), key) },
		"purged":  func() error { return bucket.Purge(t.Context(), key) },
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if second := signature(artifact.Bundle, keyID(1)); !reflect.DeepEqual(keep(t, client, r, second), second) {
			t.Errorf("%s: got the signature that is gone", name)
		}
	}
}

// FuzzDecodeKept feeds what somebody may have put into the bucket: an error, or a signature for what was asked for.
func FuzzDecodeKept(f *testing.F) {
	r, err := artifact.NewRef("demo/app", "sha256:"+keyID(1))
	if err != nil {
		f.Fatal(err)
	}
	s := artifact.Signature{Format: artifact.Bundle, KeyID: keyID(1), Payload: []byte("p"), Bytes: []byte("s")}
	good, err := json.Marshal(map[string]any{"v": 1, "ref": r, "signature": s})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"v":1`), []byte(`"v":2`), 1))
	f.Add(bytes.Replace(good, []byte("demo"), []byte("other"), 1))
	f.Add([]byte(`{"v":1,"signature":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := queue.DecodeKept(data, r, s)
		if err == nil && (got.Format != s.Format || got.KeyID != s.KeyID || len(got.Payload) == 0 || len(got.Bytes) == 0) {
			t.Errorf("accepted %+v in the place of %+v", got, s)
		}
		if err == nil && len(data) > 64<<10 {
			t.Errorf("accepted %d bytes", len(data))
		}
	})
}

func BenchmarkKeep(b *testing.B) {
	for name, atOnce := range map[string]int{"one": 1, "32 at once": 32} {
		b.Run(name, func(b *testing.B) {
			client := queuetest.NewClient(b, queuetest.NewServer(b))
			var made atomic.Int64
			b.ResetTimer()
			var programs sync.WaitGroup
			for range atOnce {
				programs.Go(func() {
					for n := made.Add(1); n <= int64(b.N); n = made.Add(1) {
						r, err := artifact.NewRef("demo/app", fmt.Sprintf("sha256:%064x", n))
						if err != nil {
							b.Error(err)
							return
						}
						s := signature(artifact.Legacy, keyID(1))
						s.Payload = make([]byte, 600)
						if _, err := client.Keep(b.Context(), r, s); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			programs.Wait()
		})
	}
}
