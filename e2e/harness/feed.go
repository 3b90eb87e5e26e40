package harness

import (
	"context"
	"net/http"
	"strconv"
)

// GrantFeed gives a robot, beside its rights in projects, the right to read the log of all pushes of the Harbor.
func (h *Harbor) GrantFeed(ctx context.Context, robot Robot, rights []string, projects ...string) error {
	body, ok := robotBody(robot.Name, rights, projects).(map[string]any)
	if !ok {
		return errHopeless
	}
	permissions, ok := body["permissions"].([]map[string]any)
	if !ok {
		return errHopeless
	}
	body["permissions"] = append(permissions, map[string]any{
		"kind": "system", "namespace": "/", "access": []map[string]string{{"resource": "audit-log", "action": "list"}},
	})
	_, err := h.call(ctx, http.MethodPut, api+"/robots/"+strconv.Itoa(robot.ID), http.StatusOK, body, nil)
	return err
}
