package signer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// clinic is a site with a queue, whose policies enable the project demo, and a receiver that answers.
type clinic struct {
	*site
	client *queue.Client
	// config is the configuration in YAML, with ROBOT for the signer's account.
	config, account string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c := newSilentClinic(t)
	c.enable(t, "demo", policy.ModeSign)
	c.answer(t, func(project string) []preflight.Check {
		return []preflight.Check{{Name: preflight.Webhook, Subject: project, Status: preflight.OK, Detail: "as the stand-in says"}}
	})
	return c
}

// newSilentClinic is one without policies and without a receiver. Its key is not encrypted, because decryption takes a second.
func newSilentClinic(t *testing.T) *clinic {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := &clinic{site: &site{dir: t.TempDir(), harbor: harbortest.New(t, harbortest.Config{}), client: &http.Client{Transport: transport}}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "k.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	c.write(t, "queue.pw", "queue password")
	c.post(t, "/projects", map[string]any{"project_name": "demo"}, nil)
	server := queuetest.StartServer(t, queue.ServerConfig{
		StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: filepath.Join(c.dir, "queue.pw")}},
	})
	c.client = queuetest.NewClient(t, server)
	c.config = fmt.Sprintf(`
harbor: {url: %q, username: ROBOT, secret_file: robot, timeout: 5s}
keys: [{name: k, file: k.key}]
queue: {urls: ["nats://%s"], username: signer, password_file: queue.pw}
`, c.harbor.URL(), server.Addr())
	c.robot(t, -1, "repository:pull", "repository:push", "repository:list", "artifact:list")
	return c
}

func (c *clinic) enable(t *testing.T, project string, mode policy.Mode) {
	t.Helper()
	value, err := policy.Document{
		Project: project, ProjectID: c.projectID(t, project), Spec: policy.Spec{Mode: mode},
		Backfill: policy.Backfill{Choice: "all"}, ChangedBy: "test", ChangedAt: time.Now(),
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := c.client.GetPolicy(t.Context(), book.Policy, project)
	if err == nil {
		_, err = c.client.PutPolicy(t.Context(), book.Policy, project, value, entry.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c *clinic) projectID(t *testing.T, name string) int64 {
	t.Helper()
	var project struct {
		ID int64 `json:"project_id"`
	}
	c.admin(t, http.MethodGet, "/projects/"+name, nil, &project)
	return project.ID
}

// admin makes a request to Harbor that has to succeed.
func (c *clinic) admin(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.harbor.URL()+"/api/v2.0"+path, strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Is-Resource-Name", "true")
	c.do(t, req, http.StatusOK, answer)
}

// answer answers as a receiver does.
func (c *clinic) answer(t *testing.T, check func(project string) []preflight.Check) {
	t.Helper()
	run(t, "answers", func(ctx context.Context) error {
		return c.client.Answer(ctx, preflight.ReceiverTopic, 1, preflight.ReceiverHandler(func(_ context.Context, project string) []preflight.Check {
			return check(project)
		}))
	})
}

func (c *clinic) load(t *testing.T) *config.Signer {
	t.Helper()
	c.write(t, "signer.yaml", strings.Replace(c.config, "ROBOT", strconv.Quote(c.account), 1))
	cfg, err := config.LoadSigner(filepath.Join(c.dir, "signer.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (c *clinic) doctor(t *testing.T, opts signer.DoctorOptions) signer.Report {
	t.Helper()
	report := signer.Doctor(t.Context(), c.load(t), opts)
	raw, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"queue password", c.secret(t)} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("the report holds the secret %q: %s", secret, raw)
		}
	}
	return report
}

// robot replaces the signer's account by one with these rights in all projects, and system ones where they have an asterisk.
func (c *clinic) robot(t *testing.T, days int, rights ...string) {
	t.Helper()
	var project, system []any
	for _, right := range rights {
		into, name := &project, right
		if after, found := strings.CutPrefix(right, "*"); found {
			into, name = &system, after
		}
		resource, action, _ := strings.Cut(name, ":")
		*into = append(*into, map[string]string{"resource": resource, "action": action})
	}
	permissions := []any{map[string]any{"kind": "project", "namespace": "*", "access": project}}
	if system != nil {
		permissions = append(permissions, map[string]any{"kind": "system", "namespace": "/", "access": system})
	}
	var made struct{ Name, Secret string }
	c.post(t, "/robots", map[string]any{
		"name": "doctored" + strconv.Itoa(len(rights)), "level": "system", "duration": days, "permissions": permissions,
	}, &made)
	c.write(t, "robot", made.Secret)
	c.account = made.Name
}

func everyRight() []string {
	return []string{
		"repository:pull", "repository:push", "repository:list", "artifact:list", "immutable-tag:list", "project:read",
		"*audit-log:list", "*quota:list", "*robot:list",
	}
}

// find gives the checks of a name and a subject; an empty subject is for all.
func find(r signer.Report, name preflight.Name, subject string) []preflight.Check {
	return slices.DeleteFunc(slices.Clone(r.Checks), func(c preflight.Check) bool {
		return c.Name != name || subject != "" && c.Subject != subject
	})
}

// want checks that there is one check of a name and a subject, with this status, and words in its detail.
func want(t *testing.T, r signer.Report, name preflight.Name, subject string, status preflight.Status, detail string) {
	t.Helper()
	found := find(r, name, subject)
	if len(found) != 1 || found[0].Status != status || !strings.Contains(found[0].Detail, detail) {
		t.Errorf("%s of %q: got %+v, want one that is %s with %q", name, subject, found, status, detail)
		return
	}
	if status == preflight.Failed && found[0].Fix == "" {
		t.Errorf("%s of %q: it has failed, and nobody says what to do", name, subject)
	}
}

func TestDoctorFindsAllWell(t *testing.T) {
	c := newClinic(t)
	c.robot(t, -1, everyRight()...)
	c.post(t, "/projects", map[string]any{"project_name": "other"}, nil)
	var steps []string
	report := c.doctor(t, signer.DoctorOptions{Progress: func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }})
	if failed := preflight.Failures(report.Checks); len(failed) > 0 {
		t.Errorf("got failures %+v, want none", failed)
	}
	for _, name := range []preflight.Name{
		preflight.Configuration, preflight.DNS, preflight.Login, preflight.CredentialExpiry, preflight.Notifications, preflight.Version,
		preflight.Key, preflight.TestSignature, preflight.Format, preflight.Queue, preflight.Project, preflight.Quota,
		preflight.Immutability, preflight.ProxyCache,
		preflight.Right("repository:pull"), preflight.Right("repository:push"), preflight.Right("repository:list"), preflight.Right("artifact:list"),
	} {
		found := find(report, name, "")
		if len(found) == 0 {
			t.Errorf("got no check %s", name)
		}
		for _, check := range found {
			if check.Status != preflight.OK {
				t.Errorf("got %+v, want it to be ok", check)
			}
		}
	}
	want(t, report, preflight.Policies, "demo", preflight.OK, "mode sign")
	want(t, report, preflight.Webhook, "demo", preflight.OK, "stand-in")
	if len(find(report, preflight.Project, "other")) != 0 {
		t.Error("a project was looked at that is not enabled")
	}
	if s := report.Summary; s.OK+s.Warnings+s.Failed+s.Skipped != len(report.Checks) || s.OK == 0 || s.Failed != 0 {
		t.Errorf("got summary %+v of %d checks", s, len(report.Checks))
	}
	if !slices.Contains(steps, "project 1 of 1: demo") {
		t.Errorf("got the steps %q, want the project among them", steps)
	}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name    string
		project string
		prepare func(t *testing.T, c *clinic)
		check   preflight.Name
		subject string
		status  preflight.Status
		detail  string
		// still is a check that nothing of this keeps from being well; empty for the test signature.
		still preflight.Name
	}{
		{
			name: "wrong secret", prepare: func(t *testing.T, c *clinic) { t.Helper(); c.write(t, "robot", "not the secret") },
			check: preflight.Login, status: preflight.Failed, detail: "does not accept",
		},
		{
			name: "secret that others may read", prepare: func(t *testing.T, c *clinic) { t.Helper(); c.expose(t, "robot") },
			check: preflight.Configuration, status: preflight.Failed, detail: "chmod 600", still: preflight.Queue,
		},
		{
			name: "Harbor is away", prepare: func(_ *testing.T, c *clinic) {
				c.config = strings.Replace(c.config, c.harbor.URL(), "http://127.0.0.1:1", 1)
			},
			check: preflight.TLS, status: preflight.Failed, detail: "no connection",
		},
		{
			name: "the queue is away", project: "demo", prepare: func(_ *testing.T, c *clinic) {
				c.config = strings.Replace(c.config, "username: signer", "username: stranger", 1)
			},
			check: preflight.Queue, status: preflight.Failed, detail: "refuses user", still: preflight.Login,
		},
		{
			name: "key that is none", prepare: func(t *testing.T, c *clinic) { t.Helper(); c.write(t, "k.key", "garbage") },
			check: preflight.Key, subject: "k", status: preflight.Failed, detail: "key", still: preflight.Login,
		},
		{
			name: "no right to push", prepare: func(t *testing.T, c *clinic) {
				t.Helper()
				c.robot(t, -1, "repository:pull", "repository:list", "artifact:list")
			},
			check: preflight.Right("repository:push"), status: preflight.Failed, detail: "no signature can be attached",
		},
		{
			name: "account that expires", prepare: func(t *testing.T, c *clinic) { t.Helper(); c.robot(t, 7, everyRight()...) },
			check: preflight.CredentialExpiry, status: preflight.Warning, detail: "expires in 6 days",
		},
		{
			name: "account that may not know", prepare: func(*testing.T, *clinic) {},
			check: preflight.CredentialExpiry, status: preflight.Skipped, detail: "robot:list",
		},
		{
			name: "webhooks switched off", prepare: func(t *testing.T, c *clinic) {
				t.Helper()
				c.admin(t, http.MethodPut, "/configurations", map[string]any{"notification_enable": false}, nil)
			},
			check: preflight.Notifications, status: preflight.Failed, detail: "notification_enable",
		},
		{
			name: "unknown project", project: "elsewhere", prepare: func(*testing.T, *clinic) {},
			check: preflight.Project, subject: "elsewhere", status: preflight.Failed, detail: "no such project",
		},
		{
			name: "project that is not enabled", project: "other", prepare: func(t *testing.T, c *clinic) {
				t.Helper()
				c.post(t, "/projects", map[string]any{"project_name": "other"}, nil)
			},
			check: preflight.Policies, subject: "other", status: preflight.Warning, detail: "not enabled",
		},
		{
			name: "no project is enabled", prepare: func(t *testing.T, c *clinic) { t.Helper(); c.enable(t, "demo", policy.ModeOff) },
			check: preflight.Project, status: preflight.Warning, detail: "no project is enabled",
		},
		{
			name: "policy of a newer program", project: "demo", prepare: func(t *testing.T, c *clinic) {
				t.Helper()
				if _, err := c.client.PutPolicy(t.Context(), book.Policy, "demo", []byte(`{"v":99}`), c.revision(t, "demo")); err != nil {
					t.Fatal(err)
				}
			},
			check: preflight.Policies, subject: "demo", status: preflight.Failed, detail: "newer version",
		},
		{
			name: "paused", prepare: func(t *testing.T, c *clinic) {
				t.Helper()
				if err := enroll.SetPause(t.Context(), c.client, enroll.Actor{Name: "alice"}, "", true, "key ceremony"); err != nil {
					t.Fatal(err)
				}
			},
			check: preflight.Pause, status: preflight.Warning, detail: "by alice: key ceremony",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newClinic(t)
			tt.prepare(t, c)
			report := c.doctor(t, signer.DoctorOptions{Project: tt.project})
			want(t, report, tt.check, tt.subject, tt.status, tt.detail)
			still := tt.still
			if still == "" {
				still = preflight.TestSignature
			}
			if found := find(report, still, ""); len(found) == 0 || found[0].Status != preflight.OK {
				t.Errorf("%s: got %+v, want it to be ok all the same", still, found)
			}
		})
	}
}

func TestDoctorWithoutReceiver(t *testing.T) {
	c := newSilentClinic(t)
	report := c.doctor(t, signer.DoctorOptions{Project: "demo"})
	want(t, report, preflight.Receiver, "", preflight.Failed, "asking the receivers")
	want(t, report, preflight.Queue, "", preflight.OK, "connected")
}

func TestDoctorWithoutQueue(t *testing.T) {
	c := newClinic(t)
	c.write(t, "queue.pw", "another")
	report := c.doctor(t, signer.DoctorOptions{Project: "demo"})
	want(t, report, preflight.Right("repository:push"), "demo", preflight.OK, "")
	want(t, report, preflight.Policies, "demo", preflight.Skipped, "could not be read")
	want(t, report, preflight.Receiver, "", preflight.Skipped, "without the queue")
	report = c.doctor(t, signer.DoctorOptions{})
	want(t, report, preflight.Project, "", preflight.Skipped, "--project")
	want(t, report, preflight.Login, "", preflight.OK, "")
}

// TestExpiryIsThatOfTheAccount has others expire, and the account stand among the robots of the system or of a project.
func TestExpiryIsThatOfTheAccount(t *testing.T) {
	c := newClinic(t)
	c.robot(t, 3, "repository:pull")
	c.robot(t, -1, everyRight()...)
	want(t, c.doctor(t, signer.DoctorOptions{}), preflight.CredentialExpiry, c.account, preflight.OK, "never expires")

	var made struct{ Name, Secret string }
	c.post(t, "/robots", map[string]any{
		"name": "own", "level": "project", "duration": 5,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "demo", "access": []any{
			map[string]string{"resource": "robot", "action": "list"}, map[string]string{"resource": "project", "action": "read"},
		}}},
	}, &made)
	c.write(t, "robot", made.Secret)
	c.account = made.Name
	want(t, c.doctor(t, signer.DoctorOptions{}), preflight.CredentialExpiry, "robot$demo+own", preflight.Warning, "expires in 4 days")
}

// TestDoctorAsksAReceiver has a real one, which keeps the webhook of a project that its configuration enables.
func TestDoctorAsksAReceiver(t *testing.T) {
	c := newSilentClinic(t)
	c.robot(t, -1, "project:read", "notification-policy:list", "notification-policy:read", "notification-policy:create",
		"notification-policy:update", "notification-policy:delete")
	c.write(t, "receiver-robot", c.secret(t))
	c.write(t, "master", strings.Repeat("m", 40))
	c.write(t, "receiver.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {url: %q, username: %q, secret_file: receiver-robot}
policies: [{projects: [demo], backfill: all}]
webhook: {url: "http://127.0.0.1:1", master_secret_files: [master]}
http: {listen: "127.0.0.1:0", allow_plain_http: true}
queue: {embedded: {store_dir: nats, listen: "127.0.0.1:0", max_store: 64MiB, users: [{name: signer, password_file: queue.pw}]}}
ledger: {sqlite: {path: ledger.db}}
`, c.harbor.URL(), c.account))
	cfg, err := config.LoadReceiver(filepath.Join(c.dir, "receiver.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := receiver.New(t.Context(), cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	run(t, "receiver", r.Run)
	waitFor(t, "the queue", func() bool { return r.QueueAddr() != "" })
	c.robot(t, -1, everyRight()...)
	c.config = fmt.Sprintf(`
harbor: {url: %q, username: ROBOT, secret_file: robot, timeout: 5s}
keys: [{name: k, file: k.key}]
queue: {urls: ["nats://%s"], username: signer, password_file: queue.pw}
`, c.harbor.URL(), r.QueueAddr())
	var report signer.Report
	waitFor(t, "the webhook", func() bool {
		report = c.doctor(t, signer.DoctorOptions{})
		found := find(report, preflight.Webhook, "demo")
		return len(found) == 1 && found[0].Status == preflight.OK
	})
	if failed := preflight.Failures(report.Checks); len(failed) > 0 {
		t.Errorf("got failures %+v, want none", failed)
	}
	want(t, report, preflight.Receiver, "", preflight.OK, "it answers")
	want(t, report, preflight.WebhookAddress, "", preflight.Warning, "does not answer")
	want(t, report, preflight.DNS, "127.0.0.1 from the receiver", preflight.OK, "")
	want(t, report, preflight.Right("notification-policy:update"), "demo", preflight.OK, "")
	want(t, report, preflight.Right("repository:push"), "demo", preflight.OK, "")
	raw, err := json.Marshal(report)
	if err != nil || strings.Contains(string(raw), "hs1.") {
		t.Errorf("got %s and %v, want no secret of a webhook", raw, err)
	}
}

// TestDoctorEndsInTime has a Harbor that takes connections and says nothing.
func TestDoctorEndsInTime(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // nothing is lost
	c.config = strings.Replace(strings.Replace(c.config, c.harbor.URL(), "http://"+silent.Addr().String(), 1), "timeout: 5s", "timeout: 1s", 1)
	begun := time.Now()
	report := c.doctor(t, signer.DoctorOptions{Project: "demo"})
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("took %s, want less than a minute", took)
	}
	want(t, report, preflight.Login, "", preflight.Failed, "could not be told")
	want(t, report, preflight.Project, "demo", preflight.Failed, "could not be told")
	want(t, report, preflight.Queue, "", preflight.OK, "connected")
}

func TestPushTest(t *testing.T) {
	c := newClinic(t)
	c.robot(t, -1, append(everyRight(), "artifact:delete", "repository:delete", "repository:read")...)
	report := c.doctor(t, signer.DoctorOptions{Project: "demo", PushTest: true})
	want(t, report, preflight.TestSignature, "demo/harborseal-doctor", preflight.OK, "removed again")
	var left []struct{ Name string }
	c.admin(t, http.MethodGet, "/projects/demo/repositories", nil, &left)
	if len(left) != 0 {
		t.Errorf("got the repositories %+v, want none", left)
	}
	_, last, _, err := c.client.LedgerState(t.Context())
	if err != nil || last != 0 {
		t.Errorf("got %d events and %v, want an empty ledger", last, err)
	}
}

func TestPushTestThatStays(t *testing.T) {
	c := newClinic(t)
	report := c.doctor(t, signer.DoctorOptions{Project: "demo", PushTest: true})
	want(t, report, preflight.TestSignature, "demo/harborseal-doctor", preflight.Warning, "the image stays in Harbor")
	var left []struct {
		Accessories []struct{ Type string }
	}
	c.admin(t, http.MethodGet, "/projects/demo/repositories/harborseal-doctor/artifacts?with_accessory=true", nil, &left)
	if len(left) != 1 || len(left[0].Accessories) == 0 {
		t.Errorf("got %+v, want one image with its signatures", left)
	}
}

func TestPushTestObeys(t *testing.T) {
	pause := func(project string) func(t *testing.T, c *clinic) {
		return func(t *testing.T, c *clinic) {
			t.Helper()
			if err := enroll.SetPause(t.Context(), c.client, enroll.Actor{Name: "alice"}, project, true, "why"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, c *clinic)
		status  preflight.Status
		detail  string
	}{
		{"pause of all", pause(""), preflight.Skipped, "paused"},
		{"pause of the project", pause("demo"), preflight.Skipped, "paused"},
		{"observe", func(t *testing.T, c *clinic) { t.Helper(); c.enable(t, "demo", policy.ModeObserve) }, preflight.Skipped, "does not sign"},
		{"no right", func(t *testing.T, c *clinic) { t.Helper(); c.robot(t, -1, "repository:pull") }, preflight.Failed, "lacks repository:push"},
		{"no queue", func(t *testing.T, c *clinic) { t.Helper(); c.write(t, "queue.pw", "another") }, preflight.Failed, "without the policies"},
		{"no key", func(t *testing.T, c *clinic) { t.Helper(); c.write(t, "k.key", "garbage") }, preflight.Failed, "would not start"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newClinic(t)
			tt.prepare(t, c)
			report := c.doctor(t, signer.DoctorOptions{Project: "demo", PushTest: true})
			want(t, report, preflight.TestSignature, "demo/harborseal-doctor", tt.status, tt.detail)
			var left []struct{ Name string }
			c.admin(t, http.MethodGet, "/projects/demo/repositories", nil, &left)
			if len(left) != 0 {
				t.Errorf("got the repositories %+v, want none", left)
			}
		})
	}
}

// secret is that of the signer's robot account.
func (c *clinic) secret(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, "robot"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func (c *clinic) expose(t *testing.T, file string) {
	t.Helper()
	if err := os.Chmod(filepath.Join(c.dir, file), 0o644); err != nil { //nolint:gosec // what others may read is the test
		t.Fatal(err)
	}
}

func (c *clinic) revision(t *testing.T, project string) uint64 {
	t.Helper()
	entry, err := c.client.GetPolicy(t.Context(), book.Policy, project)
	if err != nil {
		t.Fatal(err)
	}
	return entry.Revision
}
