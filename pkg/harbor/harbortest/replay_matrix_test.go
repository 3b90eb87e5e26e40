package harbortest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// sceneRobotMatrix asks, for each recorded robot, which of the recorded operations it may do.
func sceneRobotMatrix(t *testing.T, done *replayed) {
	t.Helper()
	const file = "api/5-api/robot-permission-matrix.json"
	s := newStage(t, done)
	s.project("demo", nil)
	s.project("p2", nil)
	s.project("p3", nil)
	s.project("p4", map[string]string{"public": "true"})
	s.filler("demo/app", 1)
	var want map[string]map[string]string
	loadInto(t, file, &want)
	for name, row := range want {
		robot := s.matrixRobot(name)
		got := s.matrixRow(robot)
		for operation, answer := range row {
			if got[operation] != answer {
				t.Errorf("robot with %s, %s: got %q, want %q", name, operation, got[operation], answer)
			}
		}
		if len(got) != len(row) {
			t.Errorf("robot with %s: tried %d operations, want %d", name, len(got), len(row))
		}
	}
	done.add(file)
}

// matrixRobot makes the robot that a row of the matrix describes.
func (s *stage) matrixRobot(description string) login {
	s.t.Helper()
	name := strings.Trim(strings.NewReplacer(" ", "-", ":", "-", ",", "-", "+", "and", "--", "-").Replace(description), "-")
	switch {
	case strings.HasPrefix(description, "system "):
		return s.robot(name, "system", "/", strings.TrimPrefix(description, "system "))
	case strings.HasPrefix(description, "project-level robot "):
		rights := []string{"repository:pull"}
		if strings.HasSuffix(description, "push") {
			rights = append(rights, "repository:push")
		}
		return s.robotOf("project", name, "project", "demo", rights...)
	case strings.HasPrefix(description, "two projects"):
		access := []any{map[string]string{"resource": "repository", "action": "pull"}}
		permissions := []any{
			map[string]any{"kind": "project", "namespace": "demo", "access": access},
			map[string]any{"kind": "project", "namespace": "p2", "access": access},
		}
		if strings.Contains(description, "system project:list") {
			permissions = append(permissions, map[string]any{
				"kind": "system", "namespace": "/", "access": []any{map[string]string{"resource": "project", "action": "list"}},
			})
		}
		var made struct{ Name, Secret string }
		s.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/robots", map[string]any{
			"name": name, "level": "system", "duration": -1, "permissions": permissions,
		}).decode(s.t, &made)
		return login{made.Name, made.Secret}
	default:
		return s.robot(name, "project", "*", description)
	}
}

// matrixRow tries every operation of the matrix.
func (s *stage) matrixRow(robot login) map[string]string {
	s.t.Helper()
	const api, demo = "/api/v2.0", "/api/v2.0/projects/demo"
	policies := demo + "/webhook/policies"
	policy := func(name string) map[string]any {
		return map[string]any{
			"name": name, "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
			"targets": []any{map[string]string{"type": "http", "address": "http://127.0.0.1:1/"}},
		}
	}
	existing := s.want(http.StatusCreated, admin(), http.MethodPost, policies, policy("old-"+robot.name)).
		header.Get("Location")
	var artifacts []recordedArtifact
	s.want(http.StatusOK, admin(), http.MethodGet, demo+"/repositories/app/artifacts", nil).decode(s.t, &artifacts)
	digest := artifacts[0].Digest
	artifact := demo + "/repositories/app/artifacts/" + digest
	manifest := s.want(http.StatusOK, admin(), http.MethodGet, "/v2/demo/app/manifests/"+digest, nil, "Accept",
		allManifestTypes).body

	out := make(map[string]string)
	for operation, request := range map[string]struct {
		method, path string
		body         any
	}{
		"HEAD project":                   {http.MethodHead, api + "/projects?project_name=demo", nil},
		"get project":                    {http.MethodGet, demo, nil},
		"get project summary":            {http.MethodGet, demo + "/summary", nil},
		"list repositories":              {http.MethodGet, demo + "/repositories", nil},
		"get repository":                 {http.MethodGet, demo + "/repositories/app", nil},
		"list all repositories (global)": {http.MethodGet, api + "/repositories", nil},
		"list artifacts with_accessory":  {http.MethodGet, demo + "/repositories/app/artifacts?with_accessory=true", nil},
		"list artifacts of project":      {http.MethodGet, demo + "/artifacts", nil},
		"get artifact":                   {http.MethodGet, artifact, nil},
		"list accessories":               {http.MethodGet, artifact + "/accessories", nil},
		"list tags":                      {http.MethodGet, artifact + "/tags", nil},
		"list metadata":                  {http.MethodGet, demo + "/metadatas", nil},
		"list webhook policies":          {http.MethodGet, policies, nil},
		"get webhook policy":             {http.MethodGet, existing, nil},
		"webhook events":                 {http.MethodGet, demo + "/webhook/events", nil},
		"webhook executions":             {http.MethodGet, existing + "/executions", nil},
		"list immutable rules":           {http.MethodGet, demo + "/immutabletagrules", nil},
		"list members":                   {http.MethodGet, demo + "/members", nil},
		"systeminfo":                     {http.MethodGet, api + "/systeminfo", nil},
		"configurations":                 {http.MethodGet, api + "/configurations", nil},
		"permissions":                    {http.MethodGet, api + "/permissions", nil},
		"list robots":                    {http.MethodGet, api + "/robots", nil},
		"users/current":                  {http.MethodGet, api + "/users/current", nil},
		"project quota":                  {http.MethodGet, api + "/quotas?reference=project", nil},
		"create webhook policy":          {http.MethodPost, policies, policy("new-" + robot.name)},
		"update webhook policy":          {http.MethodPut, existing, policy("put-" + robot.name)},
		"pull manifest (basic auth)":     {http.MethodGet, "/v2/demo/app/manifests/" + digest, nil},
		"referrers":                      {http.MethodGet, "/v2/demo/app/referrers/" + digest, nil},
		"tags/list":                      {http.MethodGet, "/v2/demo/app/tags/list", nil},
		"start blob upload":              {http.MethodPost, "/v2/demo/app/blobs/uploads/", nil},
		"push manifest":                  {http.MethodPut, "/v2/demo/app/manifests/" + digest, manifest},
		"/v2/_catalog (basic)":           {http.MethodGet, "/v2/_catalog", nil},
	} {
		got := s.do(robot, request.method, request.path, request.body, "Accept", allManifestTypes,
			"Content-Type", "application/vnd.oci.image.manifest.v1+json")
		out[operation] = fmt.Sprint(got.status)
	}
	out["delete webhook policy"] = fmt.Sprint(s.do(robot, http.MethodDelete, existing, nil).status)
	bearer := "Bearer " + s.token(s.t, robot, "repository:demo/app:pull")
	out["pull manifest (bearer)"] = fmt.Sprint(s.do(login{}, http.MethodGet, "/v2/demo/app/manifests/"+digest, nil,
		"Accept", allManifestTypes, "Authorization", bearer).status)
	out["list projects"] = s.visibleProjects(robot)
	return out
}

// visibleProjects lists projects as the matrix writes them.
func (s *stage) visibleProjects(robot login) string {
	s.t.Helper()
	got := s.do(robot, http.MethodGet, "/api/v2.0/projects", nil)
	var projects []struct{ Name string }
	got.decode(s.t, &projects)
	var names []string
	for _, p := range projects {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return fmt.Sprintf("%d %s", got.status, strings.Join(names, ","))
}
