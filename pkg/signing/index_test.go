package signing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// pushIndex pushes an index of these manifests.
func (w *world) pushIndex(t *testing.T, children ...artifact.Ref) artifact.Ref {
	t.Helper()
	var named []string
	for _, child := range children {
		named = append(named, fmt.Sprintf(`{"digest":%q}`, child.Digest()))
	}
	return w.push(t, "demo/app", ociIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Join(named, ",")))
}

// unasked puts a manifest into the registry without a request.
func (w *world) unasked(t *testing.T, raw string) artifact.Ref {
	t.Helper()
	ref := w.push(t, "demo/app", ociImage, raw)
	delete(w.waiting, ref)
	return ref
}

// drain makes attempts until no request waits, and gives how many those were.
func (w *world) drain(t *testing.T, s *signing.Service) (attempts int) {
	t.Helper()
	for len(w.waiting) > 0 && attempts < 100 {
		for ref := range w.waiting {
			w.attempt(t, s, ref, 1)
			attempts++
		}
	}
	return attempts
}

// TestChildrenOfWhatIsNotSigned: an index that is observed asks for its children, so that the report says for each what would
// happen. A block or an exemption of an index is about the index.
func TestChildrenOfWhatIsNotSigned(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *policy.Policy, index artifact.Ref)
		kind   artifact.Kind
		reason policy.Reason
		asks   bool
	}{
		{"observed", func(p *policy.Policy, _ artifact.Ref) { p.Mode = policy.ModeObserve }, artifact.Skipped, policy.Observed, true},
		{"observed with tags", func(p *policy.Policy, _ artifact.Ref) {
			filtered(p)
			p.Mode = policy.ModeObserve
		}, artifact.Skipped, policy.Observed, true},
		{"blocked", func(p *policy.Policy, index artifact.Ref) {
			p.Blocks = []policy.Block{{Digest: index.Digest(), By: "ann", Reason: "it phones home"}}
		}, artifact.Blocked, policy.Blocked, false},
		{"exempt", func(p *policy.Policy, index artifact.Ref) {
			p.Exemptions = []policy.Exemption{{Digest: index.Digest(), Approver: "bob", Reason: "a spike", Expires: farAway()}}
		}, artifact.Skipped, policy.Exempt, false},
		{"out of scope", func(p *policy.Policy, _ artifact.Ref) {
			filtered(p)
			p.Tags.Exclude = []string{"v1"}
		}, artifact.Skipped, policy.TagExcluded, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			s, k := watchedService(t, w)
			child := w.unasked(t, image)
			index := w.pushIndex(t, child)
			w.tags[index] = []string{"v1"}
			w.change(func(p *policy.Policy) { tt.change(p, index) })
			w.attempt(t, s, index, 1)
			wantEnd(t, w, index, tt.kind, tt.reason)
			if _, asks := w.waiting[child]; asks != tt.asks {
				t.Fatalf("the index asks for its child: %t, want %t", asks, tt.asks)
			}
			if got := len(w.events(artifact.Queued, child)) == 1; got != tt.asks {
				t.Errorf("the ledger says what the child belongs to: %t, want %t", got, tt.asks)
			}
			if tt.asks {
				w.attempt(t, s, child, 1)
				wantEnd(t, w, child, artifact.Skipped, policy.Observed)
			}
			wantUntouched(t, w, k)
		})
	}
}

// TestAnIndexDuringTheWorkOfItsChild: the child is out of scope by itself, and about to be skipped, when an index that is in
// scope asks for it and is refused because its request is in work.
func TestAnIndexDuringTheWorkOfItsChild(t *testing.T) {
	for _, at := range []string{"get manifest", "get artifact", "record skipped", "ack"} {
		for _, tags := range [][]string{nil, {"latest"}} {
			for _, received := range []bool{true, false} {
				t.Run(fmt.Sprintf("at %s, tags %v, received %t", at, tags, received), func(t *testing.T) {
					w := newWorld(t, "demo")
					w.change(filtered)
					s, _ := newService(t, w)
					other, _ := newService(t, w)
					child := w.push(t, "demo/app", ociImage, image)
					w.tags[child] = tags
					if !received { // a sweep asked, in an empty signer
						r := w.waiting[child]
						r.ReceivedSeq, r.Lane = 0, artifact.Bulk
						w.waiting[child] = r
					}
					index := w.pushIndex(t, child)
					w.tags[index] = []string{"v1"}
					w.before = func(name string) {
						if name == at {
							w.before = nil
							w.attempt(t, other, index, 1)
						}
					}
					request := w.waiting[child]
					w.attempt(t, s, child, 1)
					again, waits := w.waiting[child]
					if late := at == "record skipped" || at == "ack"; waits != late {
						t.Errorf("the child is asked for again: %t, want %t", waits, late)
					} else if late && (again.Origin != artifact.OriginRequeue || again.Lane != request.Lane || again.CorrelationID != request.CorrelationID) {
						t.Errorf("it is asked for by %+v, want a repetition of %+v", again, request)
					}
					if got := w.drain(t, s); got > 2 {
						t.Errorf("%d attempts more, want at most 2", got)
					}
					wantSigned(t, w, index, artifact.Made)
					wantSigned(t, w, child, artifact.Made)
				})
			}
		}
	}
}

// TestAnOldIndexAsksOnce: a child that ends without a signature, whoever asked for it and however many signers there are, is
// not asked for again because of an index that was known.
func TestAnOldIndexAsksOnce(t *testing.T) {
	for name, change := range map[string]func(r *artifact.Request){
		"the index asked": func(r *artifact.Request) { r.ReceivedSeq, r.Parent = 0, artifact.DigestOf([]byte("index")) },
		"a sweep asked":   func(r *artifact.Request) { r.ReceivedSeq = 0 },
		"its push":        func(*artifact.Request) {},
	} {
		for _, queued := range []int{0, 1, 2} {
			t.Run(fmt.Sprintf("%s, %d indexes", name, queued), func(t *testing.T) {
				w := newWorld(t, "demo")
				w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
				ref := w.push(t, "demo/app", ociImage, image)
				for n := range queued {
					w.queue(t, ref, fmt.Sprint(n))
				}
				r := w.waiting[ref]
				change(&r)
				w.waiting[ref] = r
				most := 1
				if name == "its push" && queued > 0 {
					most = 2 // it came before the indexes, for all that it knows
				}
				got := 0
				for len(w.waiting) > 0 && got < 10 {
					s, _ := newService(t, w) // each time another signer, which knows nothing of the ledger
					w.attempt(t, s, ref, 1)
					got++
				}
				if got != most {
					t.Errorf("%d attempts, want %d", got, most)
				}
			})
		}
	}
}

// TestEveryStepOfAnObservationMayFail: the index is recorded, and its child is asked for, whatever happens.
func TestEveryStepOfAnObservationMayFail(t *testing.T) {
	for _, how := range []mode{fails, failsButPersists, persistsLate} {
		for step := 1; ; step++ {
			w := newWorld(t, "demo")
			w.projectID = 7
			w.change(func(p *policy.Policy) {
				filtered(p)
				p.Mode, p.ProjectID = policy.ModeObserve, 7
			})
			child := w.unasked(t, image)
			index := w.pushIndex(t, child)
			w.tags[index] = []string{"v1"}
			name, reached := w.dieAt(t, newParts(t, w), index, step, how)
			if !reached {
				if step <= 9 {
					t.Fatalf("only %d operations were seen", step-1)
				}
				break
			}
			t.Run(name, func(t *testing.T) {
				s, k := watchedService(t, w) // restarted
				if _, waits := w.waiting[index]; waits {
					if d := w.attempt(t, s, index, 2); d.ended != "done" {
						t.Fatalf("the second delivery ended %q, want done", d.ended)
					}
				}
				w.settle()
				wantEnd(t, w, index, artifact.Skipped, policy.Observed)
				if _, waits := w.waiting[child]; !waits {
					t.Error("the child is not asked for")
				}
				wantUntouched(t, w, k)
			})
		}
	}
}

// TestAnIndexThatCameBeforeThePush is known to whoever works on that push, and so is one that came before anything that the
// signer has recorded meanwhile.
func TestAnIndexThatCameBeforeThePush(t *testing.T) {
	for _, busy := range []bool{false, true} {
		w := newWorld(t, "demo")
		w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
		s, _ := newService(t, w)
		ref := w.unasked(t, image)
		if busy {
			w.receive(t, ref, "again")
			w.queue(t, ref, "index")
			other := w.push(t, "demo/app", ociImage, `{"schemaVersion":2,"n":1}`)
			w.attempt(t, s, other, 1)
		} else {
			w.queue(t, ref, "index")
			w.receive(t, ref, "again")
		}
		if got := w.drain(t, s); got != 1 {
			t.Errorf("busy %t: %d attempts, want 1", busy, got)
		}
	}
}

// TestEveryStepOfAChildMayFail: its index comes in while it is about to be skipped. It is signed in the end, but for a signer
// that dies between the acknowledgement and the look behind it: then a sweep has to find it.
func TestEveryStepOfAChildMayFail(t *testing.T) {
	for _, how := range []mode{fails, failsButPersists, persistsLate} {
		for step := 1; ; step++ {
			w := newWorld(t, "demo")
			w.change(filtered)
			other, _ := newService(t, w)
			child := w.push(t, "demo/app", ociImage, image)
			index := w.pushIndex(t, child)
			w.tags[index] = []string{"v1"}
			var operations []string // of the child's attempt
			reached, acknowledged := false, false
			s, _ := newService(t, w)
			fail := func(_ int, name string) mode {
				if reached {
					return fails
				}
				if operations = append(operations, name); len(operations) < step {
					acknowledged = acknowledged || name == "ack"
					return works
				}
				reached = true
				return how
			}
			w.before = func(name string) {
				if name == "record skipped" && !reached {
					w.before, w.fail = nil, nil
					w.attempt(t, other, index, 1)
					w.fail = fail
				}
			}
			w.fail = fail
			w.attempt(t, s, child, 1)
			w.before, w.fail = nil, nil
			if !reached {
				if step <= 7 {
					t.Fatalf("only %d operations were seen", step-1)
				}
				break
			}
			at := operations[step-1]
			t.Run(fmt.Sprintf("step %d (%s), %d", step, at, how), func(t *testing.T) {
				s, v := newService(t, w) // restarted
				w.drain(t, s)
				w.settle()
				w.drain(t, s)
				if !w.verify(t, v, child).Signed() && !acknowledged && (at != "ack" || how == fails) {
					t.Error("the child is not signed, and nobody asks for it")
				}
			})
		}
	}
}
