package preflight_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a Harbor for both accounts; its zero value has a project demo in which everything is right.
type fake struct {
	project   artifact.Project
	system    artifact.SystemInfo
	bundles   bool
	rule      string
	missing   []string
	quota     artifact.Quota
	hooks     []artifact.Webhook
	delivered artifact.Deliveries
	errs      map[string]error // by method
	panics    string           // a method
	asked     *atomic.Int64    // how many are asking at the same time, and most
	most      *atomic.Int64
}

func good() fake {
	return fake{
		project: artifact.Project{ID: 7, Name: "demo"}, system: artifact.SystemInfo{Version: "v2.15.2", Notifications: true},
		bundles: true, quota: artifact.Quota{Hard: -1}, errs: map[string]error{},
	}
}

func (f fake) call(method string) error {
	if f.panics == method {
		panic("boom")
	}
	if f.asked != nil {
		n := f.asked.Add(1)
		for {
			most := f.most.Load()
			if n <= most || f.most.CompareAndSwap(most, n) {
				break
			}
		}
		<-time.After(time.Millisecond)
		f.asked.Add(-1)
	}
	return f.errs[method]
}

func (f fake) Project(context.Context, string) (artifact.Project, error) {
	return f.project, f.call("Project")
}

func (f fake) System(context.Context) (artifact.SystemInfo, error) { return f.system, f.call("System") }

func (f fake) Bundles(context.Context) (bool, string, error) {
	return f.bundles, f.system.Version, f.call("Bundles")
}

func (f fake) LockedBy(_ context.Context, repository, tag string) (string, error) {
	if !strings.HasPrefix(repository, "demo/") || !strings.HasPrefix(tag, "sha256-") || !strings.HasSuffix(tag, ".sig") {
		return "", fmt.Errorf("LockedBy(%s, %s)", repository, tag)
	}
	return f.rule, f.call("LockedBy")
}

func (f fake) MissingRights(_ context.Context, _ string, rights []string) ([]string, error) {
	var missing []string
	for _, r := range rights {
		if slices.Contains(f.missing, r) {
			missing = append(missing, r)
		}
	}
	return missing, f.call("MissingRights")
}

func (f fake) Quota(_ context.Context, id int64) (artifact.Quota, error) {
	if id != 7 {
		return artifact.Quota{}, fmt.Errorf("quota of project %d", id)
	}
	return f.quota, f.call("Quota")
}

func (f fake) Webhooks(context.Context, string) ([]artifact.Webhook, error) {
	return f.hooks, f.call("Webhooks")
}

func (f fake) Deliveries(context.Context, string, int64) (artifact.Deliveries, error) {
	return f.delivered, f.call("Deliveries")
}

type keys []string

func (k keys) KeyID(name string) (string, bool) { return "id-of-" + name, slices.Contains(k, name) }

func denied() error { return fault.Newf(fault.Permanent, fault.Denied, "forbidden") }

func gone() error { return fault.Newf(fault.Gone, fault.NotFound, "no such project") }

// differing lists what is not ok, as name:status, with ? behind what could not be told.
func differing(checks []preflight.Check) []string {
	var found []string
	for _, c := range checks {
		if c.Status == preflight.OK {
			continue
		}
		text := string(c.Name) + ":" + string(c.Status)
		if c.Unknown {
			text += "?"
		}
		found = append(found, text)
	}
	return found
}

func checkTexts(t *testing.T, checks []preflight.Check) {
	t.Helper()
	for _, c := range checks {
		if (c.Status == preflight.Failed || c.Status == preflight.Warning) && (c.Detail == "" || c.Fix == "") {
			t.Errorf("check %+v does not say what is wrong and what to do", c)
		}
	}
}

// A system right is given elsewhere than one in a project, and an empty log of pushes looks like a missing right.
func TestMissingRightsSayWhereToGiveThem(t *testing.T) {
	f := good()
	f.missing = []string{"audit-log:list", "immutable-tag:list"}
	checks := preflight.ForSigner{Harbor: f, Keys: keys{"prod"}, Defaults: policy.Terms{Key: "prod"}, Account: "robot$signer"}.Check(t.Context(), preflight.Request{Project: "demo"})
	for name, want := range map[preflight.Name][2]string{
		preflight.Right("audit-log:list"): {
			"the account robot$signer lacks it, or Harbor's log of pushes is empty or switched off: ", "give the robot account robot$signer the system right audit-log:list",
		},
		preflight.Right("immutable-tag:list"): {
			"the account robot$signer lacks it: ", "give the robot account robot$signer the right immutable-tag:list on project demo",
		},
	} {
		at := slices.IndexFunc(checks, func(c preflight.Check) bool { return c.Name == name })
		if at < 0 || !strings.HasPrefix(checks[at].Detail, want[0]) || checks[at].Fix != want[1] {
			t.Errorf("%s: %+v, want %q and %q", name, checks[max(at, 0)], want[0], want[1])
		}
	}
}

func TestForSigner(t *testing.T) {
	demo := preflight.Request{Project: "demo"}
	signedOnly := artifact.Project{ID: 7, Name: "demo", SignedOnly: true}
	tests := []struct {
		name    string
		change  func(*fake)
		request preflight.Request
		want    string
	}{
		{"all is well", func(*fake) {}, demo, "pull_policy:skipped"},
		{"pull policy on, and all rights", func(f *fake) { f.project = signedOnly }, demo, ""},
		{"pull policy on, and no push", func(f *fake) { f.project, f.missing = signedOnly, []string{"repository:push"} }, demo, "right:repository:push:failed pull_policy:failed"},
		{"rights that one can do without", func(f *fake) { f.missing = []string{"immutable-tag:list", "audit-log:list"} }, demo, "right:immutable-tag:list:warning right:audit-log:list:warning pull_policy:skipped"},
		{"rights that one cannot do without", func(f *fake) {
			f.missing = []string{"repository:pull", "repository:list", "artifact:list"}
		}, demo, "right:repository:pull:failed right:repository:list:failed right:artifact:list:failed pull_policy:skipped"},
		{"bundles on an old Harbor", func(f *fake) { f.bundles = false }, preflight.Request{Project: "demo", Format: policy.FormatBoth}, "format:failed pull_policy:skipped"},
		{"auto on an old Harbor", func(f *fake) { f.bundles = false }, demo, "pull_policy:skipped"},
		{"locked tags, and bundles", func(f *fake) { f.rule = "rule 1" }, demo, "pull_policy:skipped"},
		{"locked tags on an old Harbor", func(f *fake) { f.rule, f.bundles = "rule 1", false }, demo, "pull_policy:skipped immutability:warning"},
		{"locked tags on an old Harbor, a second key", func(f *fake) { f.rule, f.bundles = "rule 1", false }, preflight.Request{Project: "demo", ResignOnRotation: true}, "pull_policy:skipped immutability:failed"},
		{"locked tags, bundles alone", func(f *fake) { f.rule = "rule 1" }, preflight.Request{Project: "demo", Format: policy.FormatBundle}, "pull_policy:skipped"},
		{"no right to see the rules", func(f *fake) { f.errs["LockedBy"] = denied() }, demo, "pull_policy:skipped immutability:skipped?"},
		{"quota full", func(f *fake) { f.quota = artifact.Quota{Hard: 100, Used: 100} }, demo, "pull_policy:skipped quota:failed"},
		{"quota nearly full", func(f *fake) { f.quota = artifact.Quota{Hard: 100, Used: 96} }, demo, "pull_policy:skipped quota:warning"},
		{"quota at 95 of 100", func(f *fake) { f.quota = artifact.Quota{Hard: 100, Used: 95} }, demo, "pull_policy:skipped"},
		{"quota not to be seen", func(f *fake) { f.errs["Quota"] = denied() }, demo, "pull_policy:skipped quota:skipped?"},
		{"proxy cache", func(f *fake) { f.project.ProxyCache = true }, demo, "proxy_cache:failed pull_policy:skipped"},
		{"unknown key", func(*fake) {}, preflight.Request{Project: "demo", Key: "other"}, "key:failed pull_policy:skipped"},
		{"read-only", func(f *fake) { f.system.ReadOnly = true }, demo, "read_only:warning pull_policy:skipped"},
		{"no such project", func(f *fake) { f.errs["Project"], f.errs["MissingRights"] = gone(), gone() }, demo, "project:failed proxy_cache:skipped? pull_policy:skipped? quota:skipped?"},
		{"rights could not be told", func(f *fake) { f.errs["MissingRights"] = errors.New("502") }, demo, "rights:failed? pull_policy:skipped"},
		{"nothing could be told", func(f *fake) {
			for _, m := range []string{"Project", "System", "Bundles", "LockedBy", "MissingRights", "Quota"} {
				f.errs[m] = fault.Newf(fault.Transient, fault.Unreachable, "no route")
			}
		}, demo, "version:failed? read_only:failed? format:failed? project:failed? proxy_cache:failed? rights:failed? pull_policy:failed? quota:skipped? immutability:skipped?"},
		{"a check panics", func(f *fake) { f.panics, f.quota = "LockedBy", artifact.Quota{Hard: 1, Used: 1} }, demo, "pull_policy:skipped quota:failed immutability:failed?"},
		{"all projects", func(*fake) {}, preflight.Request{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := good()
			tt.change(&f)
			checks := preflight.ForSigner{Harbor: f, Keys: keys{"prod"}, Defaults: policy.Terms{Key: "prod"}, Account: "robot$signer"}.Check(t.Context(), tt.request)
			if got := strings.Join(differing(checks), " "); got != tt.want {
				t.Errorf("checks = %q, want %q", got, tt.want)
			}
			checkTexts(t, checks)
		})
	}
}

func TestForReceiver(t *testing.T) {
	own := artifact.Webhook{ID: 3, Address: "https://seal.example.com/webhooks/harbor/demo"}
	metadata := func(f *fake) { f.project.Metadata = map[string]string{"webhook_allow_private": "false"} }
	tests := []struct {
		name, url string
		change    func(*fake)
		wrong     []string
		want      string
	}{
		{"all is well", "https://seal.example.com", func(*fake) {}, nil, ""},
		{"notifications off", "https://seal.example.com", func(f *fake) { f.system.Notifications = false }, nil, "notifications:failed"},
		{"a right is missing", "https://seal.example.com", func(f *fake) { f.missing = []string{"notification-policy:update", "project:read"} }, nil, "right:project:read:failed right:notification-policy:update:failed"},
		{"private addresses forbidden, ours is one", "http://10.1.2.3:8080", metadata, nil, "private_address:failed"},
		{"private addresses forbidden, ours may be one", "https://seal.example.com", metadata, nil, "private_address:warning"},
		{"private addresses forbidden, ours is none", "https://203.0.113.7", metadata, nil, ""},
		{"the webhook is wrong", "https://seal.example.com", func(*fake) {}, []string{"it is disabled"}, "webhook:failed"},
		{"deliveries fail", "https://seal.example.com", func(f *fake) { f.delivered = artifact.Deliveries{LastFailed: true, LastError: "refused"} }, nil, "deliveries:failed"},
		{"webhooks could not be told", "https://seal.example.com", func(f *fake) { f.errs["Webhooks"] = errors.New("502") }, nil, "webhook:failed?"},
		{"deliveries could not be told", "https://seal.example.com", func(f *fake) { f.errs["Deliveries"] = errors.New("502") }, nil, "deliveries:failed?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := good()
			tt.change(&f)
			checks := preflight.ForReceiver{
				Harbor: f, Account: "robot$receiver", WebhookURL: tt.url,
				Webhook: func(string, []artifact.Webhook) (artifact.Webhook, []string) { return own, tt.wrong },
			}.Check(t.Context(), "demo")
			if got := strings.Join(differing(checks), " "); got != tt.want {
				t.Errorf("checks = %q, want %q", got, tt.want)
			}
			checkTexts(t, checks)
		})
	}
}

func TestNotAllAtOnce(t *testing.T) {
	f := good()
	f.asked, f.most = &atomic.Int64{}, &atomic.Int64{}
	preflight.ForSigner{Harbor: f, Keys: keys{"prod"}, Defaults: policy.Terms{Key: "prod"}}.Check(t.Context(), preflight.Request{Project: "demo"})
	if most := f.most.Load(); most < 2 || most > 8 {
		t.Errorf("%d questions at the same time, want 2 to 8", most)
	}
}

// stuck never answers before its context ends.
type stuck struct{ fake }

func (stuck) LockedBy(ctx context.Context, _, _ string) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func TestAStuckCheckHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := good()
		f.quota = artifact.Quota{Hard: 1, Used: 1}
		start := time.Now()
		checks := preflight.ForSigner{Harbor: stuck{f}, Keys: keys{"prod"}, Defaults: policy.Terms{Key: "prod"}}.Check(t.Context(), preflight.Request{Project: "demo"})
		if got := strings.Join(differing(checks), " "); got != "pull_policy:skipped quota:failed immutability:skipped?" {
			t.Errorf("checks = %q", got)
		}
		if took := time.Since(start); took >= 5*time.Second {
			t.Errorf("it took %s, want less than the 5s that an answer may take", took)
		}
	})
}

func TestMerge(t *testing.T) {
	quota := func(s preflight.Status, detail string) preflight.Check {
		return preflight.Check{Name: preflight.Quota, Subject: "demo", Status: s, Detail: detail}
	}
	project := preflight.Check{Name: preflight.Project, Subject: "demo", Status: preflight.OK}
	got := preflight.Merge([]preflight.Check{project, quota(preflight.Skipped, "not to be seen")}, []preflight.Check{project, quota(preflight.Failed, "full")})
	if want := []preflight.Check{project, quota(preflight.Failed, "full")}; !slices.Equal(got, want) {
		t.Errorf("Merge = %+v, want %+v", got, want)
	}
	two := preflight.Merge([]preflight.Check{quota(preflight.Failed, "a")}, []preflight.Check{quota(preflight.Failed, "b")})
	if len(two) != 2 {
		t.Errorf("Merge = %+v, want both words on one thing", two)
	}
}

// loop answers as a signer over the queue does.
type loop func(ctx context.Context, request []byte) ([]byte, error)

func (l loop) Ask(ctx context.Context, topic string, request []byte) ([]byte, error) {
	if topic != preflight.Topic {
		return nil, fmt.Errorf("topic %q", topic)
	}
	return l(ctx, request)
}

func TestAskAndHandler(t *testing.T) {
	want := preflight.Check{Name: preflight.Right("repository:push"), Subject: "demo", Status: preflight.Failed, Detail: "lacks it", Fix: "give it", Unknown: true}
	var asked preflight.Request
	handler := preflight.Handler(func(_ context.Context, r preflight.Request) []preflight.Check {
		asked = r
		return []preflight.Check{want}
	})
	r := preflight.RequestFor("demo", policy.Spec{Format: policy.FormatBoth, Key: "prod", ResignOnRotation: true})
	got, err := r.Ask(t.Context(), loop(handler))
	if err != nil || !slices.Equal(got, []preflight.Check{want}) || asked != r {
		t.Errorf("Ask = %+v, %v for %+v; want %+v for %+v", got, err, asked, want, r)
	}
	for name, l := range map[string]loop{
		"no JSON":   func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil },
		"no checks": func(context.Context, []byte) ([]byte, error) { return []byte(`{}`), nil },
		"nobody": func(context.Context, []byte) ([]byte, error) {
			return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "nobody answers")
		},
	} {
		if _, err := r.Ask(t.Context(), l); !fault.Is(err, fault.Transient) {
			t.Errorf("%s: Ask = %v, want a transient fault", name, err)
		}
	}
	for _, wrong := range []string{"x", `{}`, `{"project":"../x"}`} {
		if _, err := handler(t.Context(), []byte(wrong)); !fault.Is(err, fault.Permanent) {
			t.Errorf("handler(%s) = %v, want a permanent fault", wrong, err)
		}
	}
}
