package harbortest

import (
	"net/http"
	"time"
)

// buildCommit is what a released Harbor appends to its version.
const buildCommit = "-080b0220"

func (c *call) getPing() error {
	c.w.Header().Set("Content-Type", "text/plain")
	c.write([]byte("Pong"))
	return nil
}

func (c *call) getHealth() error {
	var components []any
	for _, name := range []string{"core", "database", "jobservice", "portal", "redis", "registry", "registryctl"} {
		components = append(components, map[string]any{"name": name, "status": "healthy"})
	}
	return c.json(http.StatusOK, map[string]any{"components": components, "status": "healthy"})
}

func (c *call) getSystemInfo() error {
	setting := func(name string) any { return c.h.state.config[name].Value }
	out := map[string]any{
		"auth_mode": setting("auth_mode"), "banner_message": setting("banner_message"), "oidc_provider_name": "",
		"primary_auth_mode": setting("primary_auth_mode"), "self_registration": setting("self_registration"),
	}
	if c.who.authenticated() {
		out["current_time"] = timestamp(time.Now())
		out["external_url"] = c.h.URL()
		out["harbor_version"] = c.h.state.release.full()
		out["has_ca_root"] = false
		out["notification_enable"] = setting("notification_enable")
		out["project_creation_restriction"] = setting("project_creation_restriction")
		out["read_only"] = setting("read_only")
		out["registry_storage_provider_name"] = "filesystem"
		out["registry_url"] = c.h.Host()
	}
	return c.json(http.StatusOK, out)
}

func (c *call) getConfigurations() error {
	if err := c.requireSystem("configuration", "read"); err != nil {
		return err
	}
	out := make(map[string]any, len(c.h.state.config))
	for name, item := range c.h.state.config {
		out[name] = item
		if name == "scan_all_policy" {
			out[name] = struct{}{} // As recorded: not set up.
		}
	}
	return c.json(http.StatusOK, out)
}

func (c *call) putConfigurations() error {
	var values map[string]any
	if err := c.decode("configurations", &values); err != nil {
		return err
	}
	if err := c.requireSystem("configuration", "update"); err != nil {
		return err
	}
	for name := range values {
		if _, ok := c.h.state.config[name]; !ok {
			return errBadRequest("invalid configuration item: %s", name)
		}
	}
	for name, value := range values {
		c.h.state.config[name] = configItem{Editable: true, Value: value}
	}
	return c.ok()
}

// notifies tells whether webhooks fire at all.
func (s *state) notifies() bool {
	enabled, ok := s.config["notification_enable"].Value.(bool)
	return ok && enabled
}

func (c *call) getPermissions() error {
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	if !c.who.sysadmin() {
		return errForbidden()
	}
	return c.json(http.StatusOK, c.h.state.permissions)
}

func (c *call) getStatistics() error {
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	var public, private, publicRepos, privateRepos int
	for _, p := range c.h.state.projects {
		repos := len(p.repos)
		switch {
		case p.public():
			public++
			publicRepos += repos
		case c.who.covers(p):
			private++
			privateRepos += repos
		}
	}
	return c.json(http.StatusOK, map[string]any{
		"public_project_count": public, "public_repo_count": publicRepos, "private_project_count": private,
		"private_repo_count": privateRepos, "total_project_count": public + private,
		"total_repo_count": publicRepos + privateRepos,
	})
}
