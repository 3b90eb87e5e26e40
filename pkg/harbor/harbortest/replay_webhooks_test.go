package harbortest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// recordedDelivery is a Default payload as recorded.
type recordedDelivery struct {
	OccurAt  int64  `json:"occur_at"`
	Operator string `json:"operator"`
	Data     struct {
		Resources  []struct{ Digest, Tag string } `json:"resources"`
		Repository struct {
			FullName string `json:"repo_full_name"`
		} `json:"repository"`
	} `json:"event_data"`
}

// webhookCase is one folder of recorded deliveries.
type webhookCase struct {
	dir    string
	files  []string
	raw    [][]byte
	pushes []recordedDelivery // From the Default deliveries, in the order of the pushes.
}

func loadWebhookCase(t *testing.T, dir string) webhookCase {
	t.Helper()
	out := webhookCase{dir: dir}
	files, err := fs.Glob(os.DirFS("testdata"), dir+"/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("no deliveries in %s: %v", dir, err)
	}
	for _, file := range files {
		raw := loadRaw(t, file)
		out.files = append(out.files, file)
		out.raw = append(out.raw, raw)
		head, body, _ := bytes.Cut(raw, []byte("\n\n"))
		if len(body) > 0 && !bytes.Contains(head, []byte("cloudevents")) {
			var d recordedDelivery
			if err := json.Unmarshal(body, &d); err != nil {
				t.Fatalf("decoding a delivery of %s: %v", dir, err)
			}
			out.pushes = append(out.pushes, d)
		}
	}
	slices.SortStableFunc(out.pushes, func(a, b recordedDelivery) int { return int(a.OccurAt - b.OccurAt) })
	return out
}

// sceneWebhookPushes makes the recorded pushes and compares the deliveries byte for byte but for times, uuids, digests
// and addresses.
func sceneWebhookPushes(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	hook := newReceiver(t, ok200)
	s.policy("demo", "default", hook.url()+"/default", "Default")
	s.policy("demo", "ce", hook.url()+"/ce", "CloudEvents")
	s.logins["robot$demo+pusher"] = s.robotOf("project", "pusher", "project", "demo", "repository:push")
	s.logins["robot$demo+projpush"] = s.robotOf("project", "projpush", "project", "demo", "repository:push")
	s.logins["robot$syspusher"] = s.robot("syspusher", "project", "*", "repository:push")
	s.logins["robot$one-repository-push"] = s.robot("one-repository-push", "project", "*", "repository:push")
	s.logins["refused"] = s.robot("refused", "project", "*", "repository:list")
	for _, name := range []string{
		"2-push/a-single-tag", "2-push/b-second-tag-same-digest", "2-push/c-index", "2-push/c2-crane-index-append",
		"2-push/d-nested", "2-push/e-digest-only", "2-push/e2-digest-again", "2-push/e3-tag-later", "2-push/f-helm",
		"2-push/g0-raw-first", "2-push/g-repush-put", "2-push/h-tag-moved", "2-push/h2-two-tags",
		"2-push/i-robot-project", "2-push/i2-robot-system", "2-push/j-failed-push",
		"3-sign/v2-legacy-0-image", "3-sign/v2-legacy-1-sign", "3-sign/v2-oci11-0-image", "3-sign/v2-oci11-1-sign",
		"3-sign/v2-oci11-2-sign-again", "3-sign/v2-bundle-0-image", "3-sign/v2-bundle-1-sign",
		"3-sign/v2-bundle-2-sign-again", "3-sign/v3-default-0-image", "3-sign/v3-default-1-sign",
		"3-sign/v3-default-2-sign-again", "3-sign/v3-legacy-1-sign", "3-sign/att-v2-bundle", "3-sign/att-v2-legacy",
		"3-sign/att-v3",
	} {
		recorded := loadWebhookCase(t, "webhooks/"+name)
		before := len(hook.all())
		for i, push := range recorded.pushes {
			s.pushLike(name, recorded.pushes[:i], push)
		}
		if strings.HasSuffix(name, "failed-push") {
			s.want(http.StatusUnauthorized, s.logins["refused"], http.MethodPut, "/v2/demo/app/manifests/no", "{}",
				"Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
		got := settled(t, s.client, hook)[before:]
		s.compareDeliveries(t, recorded, got, hook.address())
	}
}

// pushLike makes the push that a recorded delivery tells of: an image, unless the case says something else.
func (s *stage) pushLike(name string, before []recordedDelivery, push recordedDelivery) {
	s.t.Helper()
	resource := push.Data.Resources[0]
	repo := push.Data.Repository.FullName
	tag := s.here(resource.Tag)
	mediaType := "application/vnd.oci.image.manifest.v1+json"
	key := repo + "@" + resource.Digest
	body, known := s.bodies[key]
	if !known {
		body = s.manifestFor(name, repo, before, push)
		s.remember(resource.Digest, body)
		s.bodies[key] = body
	}
	if strings.HasPrefix(resource.Tag, "sha256:") {
		tag = digestOf(body)
	}
	if bytes.Contains(body, []byte("image.index")) {
		mediaType = "application/vnd.oci.image.index.v1+json"
	}
	s.put(s.logins[push.Operator], repo, tag, mediaType, body)
}

func (s *stage) manifestFor(name, repo string, before []recordedDelivery, push recordedDelivery) []byte {
	s.t.Helper()
	recorded := push.Data.Resources[0]
	byDigest := strings.HasPrefix(recorded.Tag, "sha256:")
	manifest := map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"annotations": map[string]string{"recorded": recorded.Digest[7:15]}, "layers": []any{},
	}
	switch {
	case strings.Contains(name, "/c") && !byDigest && strings.Contains(repo, "multi"):
		var children []any
		for _, earlier := range before {
			if child := s.bodies[repo+"@"+earlier.Data.Resources[0].Digest]; child != nil {
				children = append(children, map[string]any{
					"mediaType": manifest["mediaType"], "digest": digestOf(child), "size": len(child),
				})
			}
		}
		return s.padded(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children,
		}, 1000)
	case strings.HasSuffix(name, "f-helm"):
		manifest["config"] = s.blob(repo, "application/vnd.cncf.helm.config.v1+json", []byte(`{"name":"mychart"}`))
	case strings.HasSuffix(recorded.Tag, ".sig"), strings.HasSuffix(recorded.Tag, ".att"):
		manifest["config"] = s.blob(repo, "application/vnd.oci.image.config.v1+json", []byte("{}"))
		manifest["layers"] = []any{s.blob(repo, "application/vnd.dev.cosign.simplesigning.v1+json", []byte("payload"))}
	case byDigest && strings.HasPrefix(name, "3-sign/"):
		manifest["config"] = s.blob(repo, "application/vnd.oci.empty.v1+json", []byte("{}"))
		manifest["artifactType"] = "application/vnd.dev.sigstore.bundle.v0.3+json"
		subject := digestOf([]byte("to come")) // A subject may come later.
		for _, earlier := range before {
			if earlier.Data.Repository.FullName == repo {
				subject = s.digests[earlier.Data.Resources[0].Digest]
			}
		}
		manifest["subject"] = map[string]any{"mediaType": manifest["mediaType"], "digest": subject, "size": 1}
	default:
		manifest["config"] = s.blob(repo, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	}
	return s.padded(manifest, 900)
}

// compareDeliveries compares as sets: the order of arrival is not the order of the pushes.
func (s *stage) compareDeliveries(t *testing.T, recorded webhookCase, got [][]byte, hookAddress string) {
	t.Helper()
	var g, w []string
	for _, raw := range got {
		g = append(g, deliveryText(raw, s.h.Host(), hookAddress))
	}
	for _, raw := range recorded.raw {
		at := regexp.MustCompile(`(?m)^Host: (.*)$`).FindSubmatch(raw)
		w = append(w, deliveryText(raw, recordedHost, string(at[1])))
	}
	slices.Sort(g)
	slices.Sort(w)
	if gs, ws := strings.Join(g, "\n\n"), strings.Join(w, "\n\n"); gs != ws {
		t.Errorf("%s: %d deliveries, want %d; they differ at %s", recorded.dir, len(g), len(w), firstDifference(gs, ws))
	}
	for _, file := range recorded.files {
		s.done.add(file)
	}
}

// deliveryText masks what may differ between two deliveries of the same event.
func deliveryText(raw []byte, harborHost, hookAddress string) string {
	text := strings.ReplaceAll(string(raw), "\r\n", "\n")
	text = strings.ReplaceAll(text, hookAddress, "RECEIVER")
	text = regexp.MustCompile(`"(occur_at|date_created)":\d{10}\b`).ReplaceAllString(text, `"$1":UNIX`)
	text = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).ReplaceAllString(text, "UUID")
	return newNormalizer(harborHost).text(text)
}

// failureStage has a receiver for each recorded way to fail.
func failureStage(t *testing.T, done *replayed, hooks map[string]func(int, *http.Request) string) (*stage, map[string]*receiver) {
	t.Helper()
	s := newStageWith(t, done, harbortest.Config{
		DeliveryDelayScale: 0.001, RetryScale: 0.0001, WebhookTimeout: 200 * time.Millisecond, Seed: 1,
	})
	s.project("fail22885", nil)
	receivers := make(map[string]*receiver)
	for _, name := range []string{"500", "refused", "slow10", "302", "404", "204", "recover"} {
		address := "http://127.0.0.1:1"
		if answer := hooks[name]; answer != nil {
			receivers[name] = newReceiver(t, answer)
			address = receivers[name].url()
		}
		s.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects/fail22885/webhook/policies",
			map[string]any{
				"name": "p" + name, "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
				"targets": []any{map[string]string{"type": "http", "address": address + "/" + name}},
			})
	}
	s.filler("library/ids", 2) // No policy there: it only moves ids.
	config := s.blob("fail22885/a", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	body := s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{},
	}, 500)
	s.put(admin(), "fail22885/a", "v1", "application/vnd.oci.image.manifest.v1+json", body)
	return s, receivers
}

func failingReceivers() map[string]func(int, *http.Request) string {
	status := func(line string) func(int, *http.Request) string {
		return func(int, *http.Request) string { return "HTTP/1.1 " + line + "\r\nContent-Length: 0\r\n\r\n" }
	}
	return map[string]func(int, *http.Request) string{
		"500": status("500 Internal Server Error"), "404": status("404 Not Found"),
		"204":    func(int, *http.Request) string { return "HTTP/1.1 204 No Content\r\n\r\n" },
		"302":    status("302 Found\r\nLocation: /redirected"),
		"slow10": func(int, *http.Request) string { return "" },
		"recover": func(n int, r *http.Request) string {
			if n == 1 {
				return "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
			}
			return ok200(n, r)
		},
	}
}

// sceneWebhookFailures compares what receivers that refuse, redirect or stay silent get: three attempts in all.
func sceneWebhookFailures(t *testing.T, done *replayed) {
	t.Helper()
	s, receivers := failureStage(t, done, failingReceivers())
	for name, hook := range receivers {
		recorded := loadWebhookCase(t, "webhooks/4-fail/"+name)
		s.compareDeliveries(t, recorded, settled(t, s.client, hook), hook.address())
	}
}

// sceneExecutions compares what the API tells of those deliveries.
func sceneExecutions(t *testing.T, done *replayed) {
	t.Helper()
	s, receivers := failureStage(t, done, failingReceivers())
	settled(t, s.client, receivers["500"])
	const policies = "/api/v2.0/projects/fail22885/webhook/policies"
	var listed []struct {
		ID   int
		Name string
	}
	s.want(http.StatusOK, admin(), http.MethodGet, policies, nil).decode(t, &listed)
	ids := make(map[string]int)
	for _, p := range listed {
		ids[strings.TrimPrefix(p.Name, "p")] = p.ID
	}
	for _, name := range []string{"500", "recover", "refused"} {
		path := fmt.Sprintf("%s/%d/executions", policies, ids[name])
		s.replayTo(t, "api/4-delivery/executions-"+name+".json", path)
		if name == "recover" {
			continue // Its tasks were not recorded.
		}
		var executions []struct{ ID int }
		s.want(http.StatusOK, admin(), http.MethodGet, path, nil).decode(t, &executions)
		s.replayTo(t, "api/4-delivery/tasks-"+name+".json", fmt.Sprintf("%s/%d/tasks", path, executions[0].ID))
	}
	s.replay(t, "api/4-delivery/lasttrigger-fail.json")
}

// sceneJobserviceDown replays what the API tells of an event that was lost.
func sceneJobserviceDown(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.project("outage", nil)
	s.policy("outage", "hook", "http://127.0.0.1:1/", "Default")
	s.h.SetFaults(harbortest.Faults{LoseNextWebhooks: 1})
	config := s.blob("outage/a", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	body := s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{},
	}, 500)
	s.put(admin(), "outage/a", "v1", "application/vnd.oci.image.manifest.v1+json", body)
	s.replayTo(t, "api/4-delivery/jobservice-down-executions-after.json",
		"/api/v2.0/projects/outage/webhook/policies/1/executions")
	if got := s.h.Stats().Webhooks; got.Lost != 1 || got.Pending != 0 {
		t.Errorf("webhooks: got %+v, want one lost and none pending", got)
	}
}
