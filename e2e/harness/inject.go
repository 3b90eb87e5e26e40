package harness

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Faults are what the emulator is to do wrong; see the emulator for what each key means.
type Faults struct {
	Method             string  `json:"method,omitempty"`
	PathPrefix         string  `json:"path_prefix,omitempty"`
	Route              string  `json:"route,omitempty"`
	Project            string  `json:"project,omitempty"`
	Latency            string  `json:"latency,omitempty"`
	ManifestPutLatency string  `json:"manifest_put_latency,omitempty"`
	Status             int     `json:"status,omitempty"`
	RetryAfter         string  `json:"retry_after,omitempty"`
	Count              int     `json:"count,omitempty"`
	Rate               float64 `json:"rate,omitempty"`
	DropConnections    float64 `json:"drop_connections,omitempty"`
	CutAnswers         float64 `json:"cut_answers,omitempty"`
	LoseWebhooks       bool    `json:"lose_webhooks,omitempty"`
	LoseNextWebhooks   int     `json:"lose_next_webhooks,omitempty"`
	LoseWebhookRate    float64 `json:"lose_webhook_rate,omitempty"`
	DoubleWebhookRate  float64 `json:"double_webhook_rate,omitempty"`
}

const emulatorFaults = "/_emulator/faults"

// SetFaults replaces all faults of the emulator, those with names too; the zero value heals it.
func (h *Harbor) SetFaults(ctx context.Context, f Faults) error {
	_, err := h.call(ctx, http.MethodPut, emulatorFaults, http.StatusOK, f, nil)
	return err
}

// SetFault replaces the faults of one name and leaves the others in force; the zero value ends those of the name.
func (h *Harbor) SetFault(ctx context.Context, name string, f Faults) error {
	_, err := h.call(ctx, http.MethodPut, emulatorFaults+"/"+url.PathEscape(name), http.StatusOK, f, nil)
	return err
}

// Faults reads the faults without a name that are in force, counts as far as they have come.
func (h *Harbor) Faults(ctx context.Context) (Faults, error) {
	var f Faults
	_, err := h.call(ctx, http.MethodGet, emulatorFaults, http.StatusOK, nil, &f)
	return f, err
}

// Stats are the emulator's counters.
type Stats struct {
	Requests     map[string]int `json:"requests"`
	FaultAnswers int            `json:"fault_answers"`
	CutAnswers   int            `json:"cut_answers"`
	Webhooks     struct {
		Events, Attempts, Delivered, Lost, Doubled, Pending int
		GivenUp                                             int `json:"given_up"`
	} `json:"webhooks"`
}

// Stats reads the emulator's counters.
func (h *Harbor) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	_, err := h.call(ctx, http.MethodGet, "/_emulator/stats", http.StatusOK, nil, &s)
	return s, err
}

// Unlimited is a quota without a limit.
const Unlimited int64 = -1

// Quota is what a project may hold and holds, in bytes.
type Quota struct {
	Limit, Used int64
	id          int
}

// Quota reads the storage quota of a project.
func (h *Harbor) Quota(ctx context.Context, project string) (Quota, error) {
	var found struct {
		ID int `json:"project_id"`
	}
	if _, err := h.call(ctx, http.MethodGet, api+"/projects/"+project, http.StatusOK, nil, &found); err != nil {
		return Quota{}, err
	}
	type storage struct {
		Storage int64 `json:"storage"`
	}
	var quotas []struct {
		ID   int     `json:"id"`
		Hard storage `json:"hard"`
		Used storage `json:"used"`
	}
	path := api + "/quotas?reference=project&reference_id=" + strconv.Itoa(found.ID)
	if _, err := h.call(ctx, http.MethodGet, path, http.StatusOK, nil, &quotas); err != nil {
		return Quota{}, err
	}
	if len(quotas) != 1 {
		return Quota{}, fmt.Errorf("reading the quota of %s: there are %d, want 1", project, len(quotas))
	}
	return Quota{Limit: quotas[0].Hard.Storage, Used: quotas[0].Used.Storage, id: quotas[0].ID}, nil
}

// SetQuota limits the storage of a project to some bytes, or to none with Unlimited. A limit below what is used refuses every
// push that adds something.
func (h *Harbor) SetQuota(ctx context.Context, project string, limit int64) error {
	q, err := h.Quota(ctx, project)
	if err != nil {
		return err
	}
	body := map[string]any{"hard": map[string]int64{"storage": limit}}
	_, err = h.call(ctx, http.MethodPut, api+"/quotas/"+strconv.Itoa(q.id), http.StatusOK, body, nil)
	return err
}
