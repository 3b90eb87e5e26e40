package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Harbor is the registry under test, the emulator or a real one, as its administrator sees it.
type Harbor struct {
	// URL is the origin, Host its host and port: what images are named by.
	URL, Host string
	// Username and Password are the administrator's.
	Username, Password string
	// Emulated says that faults can be injected.
	Emulated bool

	client *http.Client
}

// NewHarbor describes a Harbor that is running.
func NewHarbor(origin, username, password string, emulated bool) (*Harbor, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("address of Harbor %q: want http://host:port or https://host", origin)
	}
	return &Harbor{
		URL: u.Scheme + "://" + u.Host, Host: u.Host, Username: username, Password: password, Emulated: emulated,
		client: &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second},
	}, nil
}

// call asks Harbor's API. A status other than the wanted one is an error. Both body and out may be nil.
func (h *Harbor) call(ctx context.Context, method, path string, want int, body, out any) (http.Header, error) {
	var reader io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("asking Harbor: %w", err)
		}
		reader = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, h.URL+path, reader)
	if err != nil {
		return nil, fmt.Errorf("asking Harbor: %w", err)
	}
	req.SetBasicAuth(h.Username, h.Password)
	req.Header.Set("Content-Type", "application/json")
	// A project may be called by digits alone.
	req.Header.Set("X-Is-Resource-Name", "true")
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking Harbor: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("asking Harbor: %s %s: %w", method, path, err)
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("asking Harbor: %s %s: the answer is %d, want %d: %.300s", method, path, resp.StatusCode, want, raw)
	}
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			return nil, fmt.Errorf("asking Harbor: %s %s: %w", method, path, err)
		}
	}
	return resp.Header, nil
}

const api = "/api/v2.0"

// Ping says whether Harbor answers.
func (h *Harbor) Ping(ctx context.Context) error {
	_, err := h.call(ctx, http.MethodGet, api+"/ping", http.StatusOK, nil, nil)
	return err
}

// firstWithBundles is the first release of Harbor 2 that takes a sigstore bundle for a signature.
const firstWithBundles = 15

// Bundles says whether Harbor takes a sigstore bundle for a signature.
func (h *Harbor) Bundles(ctx context.Context) (bool, error) {
	var info struct {
		Version string `json:"harbor_version"`
	}
	if _, err := h.call(ctx, http.MethodGet, api+"/systeminfo", http.StatusOK, nil, &info); err != nil {
		return false, err
	}
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(info.Version, "v"), "%d.%d", &major, &minor); err != nil {
		return false, fmt.Errorf("reading the version %q: %w", info.Version, err)
	}
	return major > 2 || major == 2 && minor >= firstWithBundles, nil
}

// CreateProject makes a private project.
func (h *Harbor) CreateProject(ctx context.Context, name string) error {
	body := map[string]any{"project_name": name, "metadata": map[string]string{"public": "false"}}
	_, err := h.call(ctx, http.MethodPost, api+"/projects", http.StatusCreated, body, nil)
	return err
}

// SetPullPolicy switches the rule that only signed images can be pulled.
func (h *Harbor) SetPullPolicy(ctx context.Context, project string, on bool) error {
	body := map[string]any{"metadata": map[string]string{"enable_content_trust_cosign": strconv.FormatBool(on)}}
	_, err := h.call(ctx, http.MethodPut, api+"/projects/"+project, http.StatusOK, body, nil)
	return err
}

// DeleteProject deletes a project with all that is in it.
func (h *Harbor) DeleteProject(ctx context.Context, name string) error {
	var repositories []struct {
		Name string `json:"name"`
	}
	for {
		if _, err := h.call(ctx, http.MethodGet, api+"/projects/"+name+"/repositories?page_size=100", http.StatusOK, nil, &repositories); err != nil {
			return err
		}
		if len(repositories) == 0 {
			break
		}
		for _, r := range repositories {
			path := api + "/projects/" + name + "/repositories/" + escapeRepository(strings.TrimPrefix(r.Name, name+"/"))
			if _, err := h.call(ctx, http.MethodDelete, path, http.StatusOK, nil, nil); err != nil {
				return err
			}
		}
	}
	_, err := h.call(ctx, http.MethodDelete, api+"/projects/"+name, http.StatusOK, nil, nil)
	return err
}

// escapeRepository writes a repository's name as Harbor's API wants it in a path: escaped twice.
func escapeRepository(name string) string { return url.PathEscape(url.PathEscape(name)) }

// Robot is a robot account.
type Robot struct {
	ID     int    `json:"id"`
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// CreateRobot makes a system-level robot with rights ("repository:push") in the named projects; none means all.
func (h *Harbor) CreateRobot(ctx context.Context, name string, rights []string, projects ...string) (Robot, error) {
	var robot Robot
	_, err := h.call(ctx, http.MethodPost, api+"/robots", http.StatusCreated, robotBody(name, rights, projects), &robot)
	return robot, err
}

// UpdateRobot replaces a robot's rights.
func (h *Harbor) UpdateRobot(ctx context.Context, robot Robot, rights []string, projects ...string) error {
	body := robotBody(robot.Name, rights, projects)
	_, err := h.call(ctx, http.MethodPut, api+"/robots/"+strconv.Itoa(robot.ID), http.StatusOK, body, nil)
	return err
}

func robotBody(name string, rights, projects []string) any {
	access := make([]map[string]string, 0, len(rights))
	for _, right := range rights {
		resource, action, _ := strings.Cut(right, ":")
		access = append(access, map[string]string{"resource": resource, "action": action})
	}
	if len(projects) == 0 {
		projects = []string{"*"}
	}
	permissions := make([]map[string]any, 0, len(projects))
	for _, project := range projects {
		permissions = append(permissions, map[string]any{"kind": "project", "namespace": project, "access": access})
	}
	return map[string]any{"name": name, "level": "system", "duration": -1, "permissions": permissions}
}

// SignerRights are the least rights that the signer's robot needs.
func SignerRights() []string {
	return []string{"repository:pull", "repository:push", "repository:list", "artifact:list", "artifact:read"}
}

// ReceiverRights are the least rights that the receiver's robot needs where it sees to webhooks.
func ReceiverRights() []string {
	return []string{
		"project:read", "artifact:read", "repository:pull", "notification-policy:create", "notification-policy:list", "notification-policy:read",
		"notification-policy:update", "notification-policy:delete",
	}
}

// DeveloperRights are what whoever pushes and pulls images needs.
func DeveloperRights() []string { return []string{"repository:pull", "repository:push"} }

// DeleteRobot deletes a robot account.
func (h *Harbor) DeleteRobot(ctx context.Context, id int) error {
	_, err := h.call(ctx, http.MethodDelete, api+"/robots/"+strconv.Itoa(id), http.StatusOK, nil, nil)
	return err
}

// Webhook is a webhook policy for pushes.
type Webhook struct {
	Name, Project, Address, AuthHeader string
	// Format is Default or CloudEvents.
	Format string
	// Disabled policies send nothing.
	Disabled bool
	id       string
}

func (w *Webhook) body() any {
	return map[string]any{
		"name": w.Name, "enabled": !w.Disabled, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []any{map[string]any{
			"type": "http", "address": w.Address, "auth_header": w.AuthHeader, "payload_format": w.Format, "skip_cert_verify": true,
		}},
	}
}

func (w *Webhook) path() string { return api + "/projects/" + w.Project + "/webhook/policies" }

// CreateWebhook makes a webhook policy.
func (h *Harbor) CreateWebhook(ctx context.Context, w *Webhook) error {
	header, err := h.call(ctx, http.MethodPost, w.path(), http.StatusCreated, w.body(), nil)
	if err != nil {
		return err
	}
	location := header.Get("Location")
	w.id = location[strings.LastIndex(location, "/")+1:]
	if w.id == "" {
		return errors.New("asking Harbor: a new webhook policy has no Location")
	}
	return nil
}

// UpdateWebhook replaces a webhook policy.
func (h *Harbor) UpdateWebhook(ctx context.Context, w *Webhook) error {
	_, err := h.call(ctx, http.MethodPut, w.path()+"/"+w.id, http.StatusOK, w.body(), nil)
	return err
}

// Artifact is a manifest as Harbor's API lists it.
type Artifact struct {
	Digest     string `json:"digest"`
	Repository string `json:"repository_name"`
}

// Population lists all artifacts of a project that are no accessories, children of indexes included.
func (h *Harbor) Population(ctx context.Context, project string) ([]Artifact, error) {
	var all []Artifact
	for page := 1; ; page++ {
		var some []Artifact
		path := fmt.Sprintf("%s/projects/%s/artifacts?q=base=*&page_size=100&page=%d", api, project, page)
		if _, err := h.call(ctx, http.MethodGet, path, http.StatusOK, nil, &some); err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < 100 {
			return all, nil
		}
	}
}

// DeleteArtifact deletes a manifest with its tags and accessories.
func (h *Harbor) DeleteArtifact(ctx context.Context, repository, digest string) error {
	project, name, _ := strings.Cut(repository, "/")
	path := api + "/projects/" + project + "/repositories/" + escapeRepository(name) + "/artifacts/" + digest
	_, err := h.call(ctx, http.MethodDelete, path, http.StatusOK, nil, nil)
	return err
}

// Delivery is the body of Harbor's report of a push, in its Default format.
func Delivery(project, repository, digest, tag string) []byte {
	full := project + "/" + repository
	return fmt.Appendf(nil, `{"type":"PUSH_ARTIFACT","occur_at":%d,"operator":"admin","event_data":{"resources":[{"digest":%q,"tag":%q,`+
		`"resource_url":"harbor.example.com/%s:%s"}],"repository":{"date_created":1,"name":%q,"namespace":%q,"repo_full_name":%q,`+
		`"repo_type":"private"}}}`, time.Now().Unix(), digest, tag, full, tag, repository, project, full)
}
