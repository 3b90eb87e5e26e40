package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Notice is one webhook that Harbor sent, or gave up, as its own list of executions tells.
type Notice struct {
	Repository, Digest string
	// Began and Ended are in whole seconds, by Harbor's clock.
	Began, Ended time.Time
	// Delivered says that it was answered with success, at the first attempt or a later one.
	Delivered bool
}

// Notices gives the webhooks about pushes in a project that its present policies have sent, newest first.
func (h *Harbor) Notices(ctx context.Context, project string) ([]Notice, error) {
	policies, err := h.Webhooks(ctx, project)
	if err != nil {
		return nil, err
	}
	var all []Notice
	for _, policy := range policies {
		const size = 100
		path := fmt.Sprintf("%s/projects/%s/webhook/policies/%d/executions?page_size=%d&page=", api, project, policy.ID, size)
		for page := 1; ; page++ {
			var executions []execution
			if _, err := h.call(ctx, http.MethodGet, path+strconv.Itoa(page), http.StatusOK, nil, &executions); err != nil {
				return nil, err
			}
			for _, e := range executions {
				told, err := e.notices()
				if err != nil {
					return nil, fmt.Errorf("asking Harbor for its webhooks: %w", err)
				}
				all = append(all, told...)
			}
			if len(executions) < size {
				break
			}
		}
	}
	return all, nil
}

type execution struct {
	Status string    `json:"status"`
	Began  time.Time `json:"start_time"`
	Ended  time.Time `json:"end_time"`
	Extra  struct {
		Event   string `json:"event_type"`
		Payload string `json:"payload"`
	} `json:"extra_attrs"`
}

// notices reads what a webhook told of, in either of Harbor's formats.
func (e execution) notices() ([]Notice, error) {
	if e.Extra.Event != "PUSH_ARTIFACT" {
		return nil, nil
	}
	type told struct {
		Resources []struct {
			Digest string `json:"digest"`
		} `json:"resources"`
		Repository struct {
			Name string `json:"repo_full_name"`
		} `json:"repository"`
	}
	var body struct {
		Default     told `json:"event_data"`
		CloudEvents told `json:"data"`
	}
	if err := json.Unmarshal([]byte(e.Extra.Payload), &body); err != nil {
		return nil, fmt.Errorf("reading a webhook: %w", err)
	}
	var all []Notice
	for _, t := range []told{body.Default, body.CloudEvents} {
		for _, r := range t.Resources {
			all = append(all, Notice{t.Repository.Name, r.Digest, e.Began, e.Ended, e.Status == "Success"})
		}
	}
	return all, nil
}
