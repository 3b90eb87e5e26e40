package harbortest

import (
	"net/http"
	"strings"
)

// access is how a handler may touch the state.
type access int

const (
	reads access = iota
	writes
)

// apiRoutes is the table of the REST API. Handlers run with Harbor.mu held as the table says.
func (h *Harbor) apiRoutes() *http.ServeMux {
	const (
		project  = "/projects/{project}"
		repo     = project + "/repositories/{repository}"
		artifact = repo + "/artifacts/{reference}"
		policies = project + "/webhook/policies"
		policy   = policies + "/{policy}"
		rules    = project + "/immutabletagrules"
		rule     = rules + "/{rule}"
	)
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern string
		access  access
		handle  func(*call) error
	}{
		{"GET /ping", reads, (*call).getPing},
		{"GET /health", reads, (*call).getHealth},
		{"GET /systeminfo", reads, (*call).getSystemInfo},
		{"GET /configurations", reads, (*call).getConfigurations},
		{"PUT /configurations", writes, (*call).putConfigurations},
		{"GET /permissions", reads, (*call).getPermissions},
		{"GET /quotas", reads, (*call).listQuotas},
		{"GET /quotas/{quota}", reads, (*call).getQuota},
		{"PUT /quotas/{quota}", writes, (*call).putQuota},
		{"GET /statistics", reads, (*call).getStatistics},
		{"GET /registries", reads, (*call).listRegistries},
		{"POST /registries", writes, (*call).createRegistry},
		{"GET /registries/{registry}", reads, (*call).getRegistry},

		{"GET /users", reads, (*call).listUsers},
		{"POST /users", writes, (*call).createUser},
		{"GET /users/current", reads, (*call).getCurrentUser},
		{"DELETE /users/{user}", writes, (*call).deleteUser},
		{"PUT /users/{user}/sysadmin", writes, (*call).putSysadmin},

		{"GET /robots", reads, (*call).listRobots},
		{"POST /robots", writes, (*call).createRobot},
		{"GET /robots/{robot}", reads, (*call).getRobot},
		{"PUT /robots/{robot}", writes, (*call).putRobot},
		{"PATCH /robots/{robot}", writes, (*call).patchRobot},
		{"DELETE /robots/{robot}", writes, (*call).deleteRobot},

		{"GET /projects", reads, (*call).listProjects},
		{"HEAD /projects", reads, (*call).headProject},
		{"POST /projects", writes, (*call).createProject},
		{"GET " + project, reads, (*call).getProject},
		{"PUT " + project, writes, (*call).putProject},
		{"DELETE " + project, writes, (*call).deleteProject},
		{"GET " + project + "/summary", reads, (*call).getProjectSummary},
		{"GET " + project + "/metadatas", reads, (*call).listMetadata},
		{"POST " + project + "/metadatas", writes, (*call).addMetadata},
		{"GET " + project + "/metadatas/{key}", reads, (*call).getMetadata},
		{"PUT " + project + "/metadatas/{key}", writes, (*call).putMetadata},
		{"DELETE " + project + "/metadatas/{key}", writes, (*call).deleteMetadata},
		{"GET " + project + "/members", reads, (*call).listMembers},
		{"POST " + project + "/members", writes, (*call).createMember},
		{"PUT " + project + "/members/{member}", writes, (*call).putMember},
		{"DELETE " + project + "/members/{member}", writes, (*call).deleteMember},
		{"GET " + rules, reads, (*call).listImmutableRules},
		{"POST " + rules, writes, (*call).createImmutableRule},
		{"PUT " + rule, writes, (*call).putImmutableRule},
		{"DELETE " + rule, writes, (*call).deleteImmutableRule},

		{"GET /repositories", reads, (*call).listAllRepositories},
		{"GET " + project + "/repositories", reads, (*call).listRepositories},
		{"GET " + repo, reads, (*call).getRepository},
		{"DELETE " + repo, writes, (*call).deleteRepository},
		{"GET " + project + "/artifacts", reads, since(minorProjectArtifacts, (*call).listProjectArtifacts)},
		{"GET " + repo + "/artifacts", reads, (*call).listArtifacts},
		{"POST " + repo + "/artifacts", writes, (*call).copyArtifact},
		{"GET " + artifact, reads, (*call).getArtifact},
		{"DELETE " + artifact, writes, (*call).deleteArtifact},
		{"GET " + artifact + "/accessories", reads, (*call).listAccessories},
		{"GET " + artifact + "/tags", reads, (*call).listTags},
		{"POST " + artifact + "/tags", writes, (*call).createTag},
		{"DELETE " + artifact + "/tags/{tag}", writes, (*call).deleteTag},

		{"GET " + project + "/webhook/events", reads, (*call).getWebhookEvents},
		{"GET " + project + "/webhook/lasttrigger", reads, (*call).getLastTrigger},
		{"GET " + policies, reads, (*call).listPolicies},
		{"POST " + policies, writes, (*call).createPolicy},
		{"GET " + policy, reads, (*call).getPolicy},
		{"PUT " + policy, writes, (*call).putPolicy},
		{"DELETE " + policy, writes, (*call).deletePolicy},
		{"GET " + policy + "/executions", reads, (*call).listExecutions},
		{"GET " + policy + "/executions/{execution}/tasks", reads, (*call).listTasks},
		{"GET " + policy + "/executions/{execution}/tasks/{task}/log", reads, (*call).getTaskLog},

		{"GET /auditlog-exts", reads, since(minorAuditLogExt, (*call).listAuditLog)},
		{"GET /audit-logs", reads, (*call).listLegacyAuditLog},
		{"GET " + project + "/auditlog-exts", reads, since(minorAuditLogExt, (*call).listProjectAuditLog)},
		{"GET " + project + "/logs", reads, (*call).listLegacyProjectLog},
	} {
		method, path, _ := strings.Cut(route.pattern, " ")
		mux.Handle(method+" /api/v2.0"+path, h.adapt(route.access, route.handle))
	}
	mux.Handle("/", h.adapt(reads, func(c *call) error {
		return errUnknownPath(c.r)
	}))
	return mux
}

func (h *Harbor) adapt(a access, handle func(*call) error) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(callKey{}).(*call)
		if !ok {
			return // Only serveAPI calls this mux.
		}
		c.r = r
		if a == writes {
			h.mu.Lock()
			defer h.mu.Unlock()
		} else {
			h.mu.RLock()
			defer h.mu.RUnlock()
		}
		if err := handle(c); err != nil {
			c.fail(err)
		}
	})
}
