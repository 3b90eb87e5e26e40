package signing_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// watchedKeys counts what the key is asked to sign.
type watchedKeys struct {
	signing.Keys
	signed int
}

func (k *watchedKeys) Sign(ctx context.Context, key string, format artifact.Format, claim artifact.Claim) (artifact.Signature, error) {
	k.signed++
	return k.Keys.Sign(ctx, key, format, claim)
}

// watchedService is a signer whose key is watched.
func watchedService(t *testing.T, w *world) (*signing.Service, *watchedKeys) {
	t.Helper()
	p := newParts(t, w)
	k := &watchedKeys{Keys: p.ring}
	s, _ := partsOf(t, w, w, p.ring, k).service(t, w)
	return s, k
}

// wantEnd checks that the attempts at ref left one outcome in the ledger, and no request.
func wantEnd(t *testing.T, w *world, ref artifact.Ref, kind artifact.Kind, reason policy.Reason) artifact.Event {
	t.Helper()
	if r, waits := w.waiting[ref]; waits {
		t.Errorf("the request %+v still waits", r)
	}
	var ends []artifact.Event
	for _, e := range w.ledger {
		if e.Ref == ref && e.Kind != artifact.Received && e.Kind != artifact.Queued {
			ends = append(ends, e)
		}
	}
	if len(ends) != 1 || ends[0].Kind != kind || ends[0].Reason != string(reason) {
		t.Fatalf("the ledger has %+v, want one event %s with reason %q", ends, kind, reason)
	}
	return ends[0]
}

// wantUntouched checks that nothing was signed and nothing written.
func wantUntouched(t *testing.T, w *world, k *watchedKeys) {
	t.Helper()
	if k.signed > 0 || strings.Contains(w.requests(), "pu") {
		t.Errorf("the key signed %d times, the requests are %s; want neither a signature nor a push", k.signed, w.requests())
	}
}

// TestWhatThePolicyKeepsFromBeingSigned: the outcome, its reason and what people are told about it reach the ledger.
func TestWhatThePolicyKeepsFromBeingSigned(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name   string
		change func(p *policy.Policy, ref artifact.Ref)
		kind   artifact.Kind
		reason policy.Reason
		detail string
	}{
		{"blocked", func(p *policy.Policy, ref artifact.Ref) {
			p.Blocks = []policy.Block{{Digest: ref.Digest(), By: "ann", Reason: "it phones home"}}
		}, artifact.Blocked, policy.Blocked, "ann: it phones home"},
		{"exempt", func(p *policy.Policy, _ artifact.Ref) {
			p.Exemptions = []policy.Exemption{{Repository: "app", Approver: "bob", Reason: "a spike", Expires: time.Now().Add(time.Hour)}}
		}, artifact.Skipped, policy.Exempt, "bob"},
		{"out of scope", func(p *policy.Policy, _ artifact.Ref) {
			p.Repositories.Exclude = []string{"app"}
		}, artifact.Skipped, policy.OutOfScope, ""},
		{"not backfilled", func(p *policy.Policy, _ artifact.Ref) {
			p.From = time.Now()
		}, artifact.Skipped, policy.NotBackfilled, "another backfill"},
		{"observed", func(p *policy.Policy, _ artifact.Ref) {
			p.Mode = policy.ModeObserve
		}, artifact.Skipped, policy.Observed, ""},
		{"off", func(p *policy.Policy, _ artifact.Ref) {
			p.Mode = policy.ModeOff
		}, artifact.Skipped, policy.NotEnabled, ""},
		{"suspended", func(p *policy.Policy, _ artifact.Ref) {
			p.SuspendedFor = 7
		}, artifact.Skipped, policy.Suspended, "another project"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			s, k := watchedService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.change(func(p *policy.Policy) { tt.change(p, ref) })
			r := w.waiting[ref]
			r.PushedAt = &old
			w.waiting[ref] = r
			w.attempt(t, s, ref, 1)
			e := wantEnd(t, w, ref, tt.kind, tt.reason)
			if (e.Detail == "") != (tt.detail == "") || !strings.Contains(e.Detail, tt.detail) || e.PolicyRevision != "api-1" {
				t.Errorf("the event says %q of policy %q, want something with %q of api-1", e.Detail, e.PolicyRevision, tt.detail)
			}
			wantUntouched(t, w, k)
			state := ledger.Skipped
			switch tt.reason {
			case policy.Blocked:
				state = ledger.Blocked
			case policy.Observed:
				state = ledger.Unsigned
			default:
			}
			wantState(t, w, ref, state)
		})
	}
}

// TestABlockOfWhatIsSigned: what was signed before the block is not signed in the report, until somebody takes it back.
func TestABlockOfWhatIsSigned(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	w.change(func(p *policy.Policy) {
		p.Blocks = []policy.Block{{Digest: ref.Digest(), By: "ann", Reason: "it phones home"}}
	})
	w.receive(t, ref, "again")
	w.attempt(t, s, ref, 1)
	wantState(t, w, ref, ledger.Blocked)
	w.change(func(p *policy.Policy) { p.Blocks = nil })
	w.receive(t, ref, "once more")
	w.attempt(t, s, ref, 1)
	wantState(t, w, ref, ledger.Signed)
}

// TestWhatIsSignedAllTheSame: an exemption that has expired, and a push of just now, whatever the backfill was.
func TestWhatIsSignedAllTheSame(t *testing.T) {
	for name, change := range map[string]func(p *policy.Policy){
		"expired exemption": func(p *policy.Policy) {
			p.Exemptions = []policy.Exemption{{Repository: "app", Approver: "bob", Reason: "a spike", Expires: time.Now().Add(-time.Second)}}
		},
		"no backfill": func(p *policy.Policy) { p.From = time.Now().Add(time.Hour) },
		"another's block": func(p *policy.Policy) {
			p.Blocks = []policy.Block{{Digest: artifact.DigestOf(nil), By: "ann", Reason: "it phones home"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "demo")
			w.change(change)
			s, _ := newService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.attempt(t, s, ref, 1)
			wantSigned(t, w, ref, artifact.Made)
		})
	}
}

// TestTheProjectIsTheOneThatWasEnabled: under its name there may be another one, none, or nobody can tell.
func TestTheProjectIsTheOneThatWasEnabled(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world)
		kind   artifact.Kind // empty if the request waits
		reason policy.Reason
	}{
		{"the same", func(*world) {}, artifact.Signed, ""},
		{"another", func(w *world) { w.projectID = 8 }, artifact.Skipped, policy.Suspended},
		{"none", func(w *world) { w.exists = false }, artifact.Vanished, ""},
		{"none that the account may see", func(w *world) { w.fail, w.failWith = failing("project id"), notFound("project") }, "", ""},
		{"no answer", func(w *world) { w.fail = failing("project id") }, "", ""},
		{"refused for good", func(w *world) {
			w.fail, w.failWith = failing("project id"), fault.New(fault.Permanent, fault.Rejected, errInjected)
		}, "", ""},
		{"no right", func(w *world) {
			w.fail, w.failWith = failing("project id"), fault.New(fault.Permanent, fault.Denied, errInjected)
		}, "", ""},
		{"no right, because it is deleted", func(w *world) {
			w.fail, w.failWith = failing("project id"), fault.New(fault.Permanent, fault.Denied, errInjected)
			w.exists = false
		}, artifact.Vanished, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			w.projectID = 7
			w.change(func(p *policy.Policy) { p.ProjectID = 7 })
			s, k := watchedService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			tt.change(w)
			d := w.attempt(t, s, ref, 1)
			if tt.kind == "" {
				if d.ended != "retry" || len(w.dead) > 0 {
					t.Errorf("the delivery ended %q with dead letters %+v, want retry", d.ended, w.dead)
				}
				wantUntouched(t, w, k)
				return
			}
			e := wantEnd(t, w, ref, tt.kind, tt.reason)
			if tt.reason == policy.Suspended && !strings.Contains(e.Detail, "another project") {
				t.Errorf("the event says %q, want that there is another project", e.Detail)
			}
			if tt.kind != artifact.Signed {
				wantUntouched(t, w, k)
			}
		})
	}
}

// filtered is a policy with all that can be said of tags.
func filtered(p *policy.Policy) {
	p.Tags = policy.Globs{Include: []string{"v*"}, Exclude: []string{"*-dev"}}
	p.Untagged = policy.UntaggedExclude
}

// TestTags: they are asked for where they matter, and an index that is in scope takes its children with it.
func TestTags(t *testing.T) {
	asked, searched := []string{"get artifact"}, []string{"get artifact", "last queued"}
	for _, tt := range []struct {
		name   string
		tags   []string
		change func(r *artifact.Request) // of the request; nil for none
		queued bool                      // an index names it
		policy func(p *policy.Policy)
		reason policy.Reason // empty if it is signed
		asked  []string
	}{
		{"included", []string{"latest", "v1"}, nil, false, filtered, "", asked},
		{"not included", []string{"latest"}, nil, false, filtered, policy.TagOutOfScope, searched},
		{"excluded", []string{"v1", "v1-dev"}, nil, false, filtered, policy.TagExcluded, searched},
		{"untagged", nil, nil, false, filtered, policy.NoTag, searched},
		{"untagged ones are included", nil, nil, false, func(p *policy.Policy) { filtered(p); p.Untagged = "" }, "", asked},
		{"untagged child", nil, nil, true, filtered, "", searched},
		{"child with an excluded tag", []string{"v1-dev"}, nil, true, filtered, "", searched},
		{"asked for by its index", nil, func(r *artifact.Request) { r.Parent = artifact.DigestOf(nil) }, false, filtered, "", nil},
		{"signed before", []string{"latest"}, func(r *artifact.Request) { r.SignedBefore = true }, false, filtered, "", nil},
		{"no filter", nil, nil, false, func(*policy.Policy) {}, "", nil},
		{"whatever its tags are", nil, nil, false, func(p *policy.Policy) {
			filtered(p)
			p.Repositories.Exclude = []string{"**"}
		}, policy.OutOfScope, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			w.bundles = true // so that the key is asked twice
			w.change(tt.policy)
			s, k := watchedService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.tags[ref] = tt.tags
			r := w.waiting[ref]
			if tt.change != nil {
				tt.change(&r)
			}
			w.waiting[ref] = r
			if tt.queued {
				w.queue(t, ref, "index")
			}
			var got []string
			w.before = func(name string) {
				if name == "record skipped" || name == "ack" {
					w.before = nil // what follows is the look behind the end
				} else if slices.Contains(searched, name) {
					got = append(got, name)
				}
			}
			w.attempt(t, s, ref, 1)
			if tt.reason == "" {
				wantSigned(t, w, ref, artifact.Made)
			} else {
				wantEnd(t, w, ref, artifact.Skipped, tt.reason)
				wantUntouched(t, w, k)
			}
			if !slices.Equal(got, tt.asked) {
				t.Errorf("asked for %q, want %q", got, tt.asked)
			}
		})
	}
}

// queue records, as an index in work does, that it names ref.
func (w *world) queue(t *testing.T, ref artifact.Ref, index string) {
	t.Helper()
	digest := artifact.DigestOf([]byte(index))
	if _, err := w.Record(t.Context(), artifact.Event{
		ID: "queued" + digest + ref.Digest(), Kind: artifact.Queued, Ref: ref, Parent: digest, Time: time.Now(), Origin: artifact.OriginSigner, CorrelationID: index,
	}); err != nil {
		t.Fatal(err)
	}
	w.operations = nil
}

// TestTagsThatCannotBeAsked: a manifest that Harbor does not list is gone, anything else leaves it open.
func TestTagsThatCannotBeAsked(t *testing.T) {
	for _, tt := range []struct {
		name, at string
		err      error
		want     string
	}{
		{"gone", "get artifact", notFound("artifact"), "done"},
		{"no answer", "get artifact", nil, "retry"},
		{"no ledger", "last queued", nil, "retry"},
	} {
		w := newWorld(t, "demo")
		w.change(filtered)
		s, k := watchedService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		w.fail, w.failWith = failing(tt.at), tt.err
		if d := w.attempt(t, s, ref, 1); d.ended != tt.want {
			t.Errorf("%s: the delivery ended %q, want %q", tt.name, d.ended, tt.want)
		}
		if gone := len(w.events(artifact.Vanished, ref)) == 1; gone != (tt.want == "done") {
			t.Errorf("%s: recorded as gone: %t", tt.name, gone)
		}
		wantUntouched(t, w, k)
	}
}
