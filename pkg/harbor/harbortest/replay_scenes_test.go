package harbortest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// scenes are the groups of recordings that share an emulator.
func scenes() map[string]func(*testing.T, *replayed) {
	out := map[string]func(*testing.T, *replayed){
		"policies":                      scenePolicies,
		"projects":                      sceneProjects,
		"requests":                      sceneRequests,
		"signed only":                   sceneSignedOnly,
		"accept":                        sceneAccept,
		"robot matrix":                  sceneRobotMatrix,
		"audit":                         sceneAudit,
		"immutable tags and quota":      sceneImmutableAndQuota,
		"late":                          sceneLate,
		"executions":                    sceneExecutions,
		"jobservice down":               sceneJobserviceDown,
		"webhooks of pushes":            sceneWebhookPushes,
		"webhooks of failing receivers": sceneWebhookFailures,
	}
	for _, format := range []string{"v2-legacy", "v2-oci11", "v2-bundle", "v3-default", "v3-legacy"} {
		out["signatures "+format] = func(t *testing.T, done *replayed) {
			t.Helper()
			sceneSignatures(t, done, format)
		}
	}
	for _, file := range listings() {
		out["listing "+file] = func(t *testing.T, done *replayed) {
			t.Helper()
			sceneListing(t, done, file)
		}
	}
	return out
}

// listings are recordings whose answer says all that must be pushed before.
func listings() []string {
	return []string{
		"api/3-sign/att-v2-bundle-artifact.json", "api/3-sign/att-v2-bundle-artifacts.json",
		"api/3-sign/att-v2-legacy-artifact.json", "api/3-sign/att-v2-legacy-artifacts.json",
		"api/3-sign/att-v3-artifact.json", "api/3-sign/att-v3-artifacts.json", "api/3-sign/recursive-index.json",
		"api/3-sign/sbom-artifact.json", "api/3-sign/twokeys-after-second.json", "api/3-sign/twokeys-artifacts.json",
		"api/5-api/artifacts-app-default.json", "api/5-api/artifacts-app-full.json", "api/5-api/artifacts-helm.json",
		"api/5-api/artifacts-multi-page1.json", "api/5-api/artifacts-multi.json", "api/5-api/artifacts-nested.json",
		"api/5-api/artifacts-of-missing-repo.json", "api/5-api/artifacts-raw.json", "api/5-api/project-artifacts.json",
		"api/5-api/repositories-all.json", "api/5-api/repositories-global.json", "api/5-api/repositories-page1.json",
		"api/5-api/repository-nested-double-encoded.json", "api/5-api/repository-nested-single-encoded.json",
		"api/6-policy/13-garbage-accessory.json",
		"api/9-listing/artifacts-base-all.json", "api/9-listing/artifacts-default.json",
		"api/9-listing/artifacts-push-time-range.json", "api/9-listing/artifacts-sorted-push-time.json",
		"api/9-listing/project-artifacts-all.json", "api/9-listing/project-artifacts-default.json",
		"api/9-listing/project-artifacts-push-time-range.json", "api/9-listing/repositories-sorted-update-time.json",
		"api/9-listing/repositories-update-time-range.json", "api/9-listing/robot-project-artifacts.json",
		"api/9-listing/robot-repositories.json", "api/9-listing/signer-project-artifacts.json",
	}
}

// sceneListing pushes what a listing shows and replays it.
func sceneListing(t *testing.T, done *replayed, file string) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	s.logins["robot"] = s.robot("auditreader", "project", "*", "repository:list", "artifact:list")
	s.logins["robot signer"] = s.robot("signer", "project", "*", "repository:pull", "repository:push",
		"repository:list", "artifact:list")
	r := load(t, file)
	if strings.Contains(r.path(), "/artifacts") {
		s.seedListing(r)
	} else {
		s.seedRepositories(r)
	}
	s.replayTo(t, file, s.aroundNow(t, s.here(r.path())))
}

// aroundNow moves a recorded time range to one that contains now.
func (s *stage) aroundNow(t *testing.T, path string) string {
	t.Helper()
	plain, err := url.Parse(path)
	if err != nil {
		t.Fatalf("parsing %s: %v", path, err)
	}
	query := plain.Query()
	at := regexp.MustCompile(`\[(.*)~(.*)\]`)
	if !at.MatchString(query.Get("q")) {
		return path
	}
	now := time.Now().UTC()
	query.Set("q", at.ReplaceAllString(query.Get("q"), fmt.Sprintf("[%s~%s]",
		now.Add(-time.Hour).Format(time.DateTime), now.Add(time.Hour).Format(time.DateTime))))
	return plain.EscapedPath() + "?" + query.Encode()
}

type recordedRepository struct {
	ID        int    `json:"id"`
	Name      string `json:"name"`
	Artifacts int    `json:"artifact_count"`
	Pulls     int    `json:"pull_count"`
}

// seedRepositories makes recorded repositories with as many artifacts and pulls, created in the order of their ids and
// changed in the order in which they are listed, and before them as many others as the total needs.
func (s *stage) seedRepositories(r *recording) {
	s.t.Helper()
	var repos []recordedRepository
	if json.Unmarshal(r.Response.Body, &repos) != nil {
		repos = make([]recordedRepository, 1)
		if err := json.Unmarshal(r.Response.Body, &repos[0]); err != nil {
			s.t.Fatalf("decoding a repository: %v", err)
		}
	}
	if total, ok := r.header("X-Total-Count"); ok {
		var n int
		if _, err := fmt.Sscan(total, &n); err != nil {
			s.t.Fatalf("X-Total-Count: %v", err)
		}
		for i := range n - len(repos) {
			s.filler(fmt.Sprintf("demo/other%d", i), 1)
		}
	}
	listed := slices.Clone(repos)
	slices.SortFunc(repos, func(a, b recordedRepository) int { return a.ID - b.ID })
	for _, repo := range repos {
		s.filler(repo.Name, repo.Artifacts)
		s.pullTimes(repo.Name, repo.Pulls)
	}
	if strings.Contains(r.path(), "sort=-update_time") {
		for _, repo := range slices.Backward(listed) {
			s.filler(repo.Name, 1) // The same push again changes nothing but the time.
		}
	}
}

// pullTimes pulls any artifact of a repository n times.
func (s *stage) pullTimes(repo string, n int) {
	s.t.Helper()
	if n <= 0 {
		return
	}
	var artifacts []recordedArtifact
	s.want(http.StatusOK, admin(), http.MethodGet, apiRepository(repo)+"/artifacts", nil).decode(s.t, &artifacts)
	for range n {
		s.want(http.StatusOK, admin(), http.MethodGet, "/v2/"+repo+"/manifests/"+artifacts[0].Digest, nil,
			"Accept", allManifestTypes)
	}
}

// scenePolicies replays the life of webhook policies, in order, ids included.
func scenePolicies(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	for _, name := range []string{
		"01-project-create", "02-project-get", "03-webhook-events", "04-configurations", "05-policies-empty",
		"06-create-default", "07-create-cloudevents", "08-create-duplicate-name", "09-create-bad-event",
		"10-create-no-targets", "11-create-bad-format", "12-create-without-format", "13-policies-list", "14-policy-get",
		"15-policy-put", "16-policy-get-after-put", "17-policy-put-partial", "18-policy-delete", "19-policy-get-404",
		"20-lasttrigger", "21-policies-paged", "22-create-bad-address",
	} {
		s.replay(t, "api/1-policies/"+name+".json")
	}
}

// sceneProjects replays projects, users, members, robots and their errors, in an order in which the state fits.
func sceneProjects(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.logins["dev"] = login{"dev", "Devpass123"}
	api := func(names ...string) {
		t.Helper()
		for _, name := range names {
			s.replay(t, "api/5-api/"+name+".json")
		}
	}
	s.project("demo", nil)
	for i := range 10 {
		s.filler(fmt.Sprintf("demo/r%d", i), 1)
	}
	for name, public := range map[string]string{"p2": "false", "p3": "false", "p4": "true"} {
		s.project(name, map[string]string{"public": public})
	}
	api("user-create", "users-current-dev", "users-current-admin", "users-current-anonymous")
	api("error-403-project", "error-project-missing-dev", "error-401-anonymous", "error-404-or-403-project-missing-admin")
	s.logins["admin"] = login{"admin", "wrong"}
	api("error-401-wrong-password")
	s.logins["admin"] = admin()
	api("member-add", "members", "members-as-developer", "project-get-as-developer", "error-403-policies-as-developer")
	api("projects-page1", "projects-page2", "projects-page9", "projects-nodetail", "projects-page-size-too-big",
		"projects-anonymous", "projects-as-developer", "head-project", "error-404-head-project")
	api("error-400-project", "error-400-bad-json", "error-409-project", "error-412-project-not-empty")
	api("robot-create-project", "robot-create-system-wildcard", "robots", "error-409-robot",
		"error-400-robot-bad-resource", "permissions")
	s.logins["robot$demo+pusher"] = s.robotLogin("robot$demo+pusher")
	api("users-current-robot", "metadatas", "project-put-cosign-on", "project-get-cosign-on", "metadata-cosign",
		"metadata-put-cosign-off")
	for i := range 24 {
		s.filler(fmt.Sprintf("demo/more%d", i), 1)
	}
	s.replay(t, "api/9-listing/projects-by-name.json")
}

// robotLogin gives a robot a new secret.
func (s *stage) robotLogin(name string) login {
	s.t.Helper()
	var robots []struct {
		ID   int
		Name string
	}
	var demo struct {
		ID int `json:"project_id"`
	}
	s.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/projects/demo", nil).decode(s.t, &demo)
	s.want(http.StatusOK, admin(), http.MethodGet,
		fmt.Sprintf("/api/v2.0/robots?q=Level%%3Dproject,ProjectID%%3D%d", demo.ID), nil).decode(s.t, &robots)
	for _, r := range robots {
		if r.Name == name {
			var made struct{ Secret string }
			s.want(http.StatusOK, admin(), http.MethodPatch, fmt.Sprintf("/api/v2.0/robots/%d", r.ID), "{}").
				decode(s.t, &made)
			return login{name, made.Secret}
		}
	}
	s.t.Fatalf("robot %s not found", name)
	return login{}
}

// sceneRequests replays what needs little state: system endpoints, tokens, missing things.
func sceneRequests(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	s.project("p2", nil)
	s.filler("demo/app", 1)
	s.filler("demo/team/app", 1)
	s.logins["robot$signer"] = s.robot("signer", "project", "*", "repository:pull", "repository:push")
	s.logins["robot$puller"] = s.robot("puller", "project", "*", "repository:pull")
	for _, name := range []string{
		"ping", "health", "systeminfo-admin", "systeminfo-anonymous", "error-404-artifact", "error-404-v2-manifest",
		"error-401-v2-manifest", "repository-nested-plain", "token-anonymous", "token-post", "token-puller-pull-push",
		"token-signer-all", "token-signer-pull-push", "token-signer-pull",
	} {
		s.replay(t, "api/5-api/"+name+".json")
	}
	s.logins["robot$signer"] = login{"robot$signer", "wrong"}
	s.replay(t, "api/5-api/error-401-token.json")
}

// sceneAudit replays the audit log.
func sceneAudit(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	s.project("siglab", nil)
	s.logins["robot signer"] = s.robot("signer", "project", "*", "repository:pull", "repository:push",
		"repository:list", "artifact:list")
	s.replay(t, "api/9-listing/audit-logs.json")
	s.replay(t, "api/9-listing/robot-create-audit.json")
	auditor := s.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/robots", map[string]any{
		"name": "auditor", "level": "system", "duration": -1, "permissions": []any{map[string]any{
			"kind": "system", "namespace": "/", "access": []any{map[string]string{"resource": "audit-log", "action": "list"}},
		}},
	})
	var made struct{ Name, Secret string }
	auditor.decode(t, &made)
	s.logins["robot"] = login{made.Name, made.Secret}
	for _, name := range []string{"robot-project-auditlog", "signer-auditlog-empty"} {
		s.replay(t, "api/9-listing/"+name+".json")
	}
	for _, name := range []string{"auditlog-pushes-range", "robot-auditlog", "auditlog-ext"} {
		s.auditPushes("api/9-listing/" + name + ".json")
	}
}

// auditPushes pushes until the log is as long as recorded, lets the recorded pushes come last, and replays.
func (s *stage) auditPushes(file string) {
	s.t.Helper()
	r := load(s.t, file)
	path := s.aroundNow(s.t, r.path())
	var want, have int
	total, _ := r.header("X-Total-Count")
	if _, err := fmt.Sscan(total, &want); err != nil {
		s.t.Fatalf("X-Total-Count: %v", err)
	}
	var entries []struct {
		Resource    string `json:"resource"`
		Description string `json:"operation_description"`
		User        string `json:"username"`
	}
	if err := json.Unmarshal(r.Response.Body, &entries); err != nil {
		s.t.Fatalf("decoding the log: %v", err)
	}
	count := s.want(http.StatusOK, admin(), http.MethodGet, path, nil).header.Get("X-Total-Count")
	if _, err := fmt.Sscan(count, &have); err != nil {
		s.t.Fatalf("X-Total-Count: %v", err)
	}
	s.filler("siglab/filler", want-have-len(entries))
	for _, e := range slices.Backward(entries) {
		name, recorded, _ := strings.Cut(strings.TrimPrefix(e.Description, "push artifact: "), "@")
		config := s.blob(name, "application/vnd.oci.image.config.v1+json", []byte("{}"))
		body := s.padded(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
			"layers": []any{}, "annotations": map[string]string{"recorded": recorded[7:15]},
		}, 600)
		s.remember(recorded, body)
		reference := digestOf(body)
		if _, tag, ok := strings.Cut(e.Resource, ":"); ok && !strings.Contains(e.Resource, "@") {
			reference = tag
		}
		s.put(s.logins["robot signer"], name, reference, "application/vnd.oci.image.manifest.v1+json", body)
	}
	s.replayTo(s.t, file, path)
}
