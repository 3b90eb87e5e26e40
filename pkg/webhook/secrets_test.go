package webhook_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/webhook"
)

// secrets accepts one value for each project.
type secrets struct {
	values map[string]string
	err    error
}

func (s secrets) Accepts(_ context.Context, project, authorization string) (bool, error) {
	return s.values[project] == authorization, s.err
}

func (s secrets) Has(_ context.Context, project string) (bool, error) {
	return s.values[project] != "", s.err
}

func TestAProjectsSecretOpensItsOwnDoorAlone(t *testing.T) {
	const ofDemo, ofOther = "Bearer secret-of-demo", "Bearer secret-of-other"
	others := secrets{values: map[string]string{"other": ofOther}}
	own := secrets{values: map[string]string{"demo": ofDemo, "other": ofOther}}
	away := secrets{err: errors.New("the bucket is not read yet")}
	tests := []struct {
		name    string
		files   bool
		secrets webhook.Secrets
		value   string
		status  int
	}{
		{"its own", true, own, ofDemo, http.StatusAccepted},
		{"its own, and no file", false, own, ofDemo, http.StatusAccepted},
		{"another project's", true, own, ofOther, http.StatusUnauthorized},
		{"the file's, where it has one of its own", true, own, authorization, http.StatusUnauthorized},
		{"the file's, where it has none of its own", true, others, authorization, http.StatusAccepted},
		{"the file's, where there is none", false, own, authorization, http.StatusUnauthorized},
		{"none", true, own, "", http.StatusUnauthorized},
		{"not loaded", true, away, ofDemo, http.StatusServiceUnavailable},
		{"the file's, not loaded", true, away, authorization, http.StatusServiceUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDoor(t, func(c *webhook.Config) {
				c.Secrets = tt.secrets
				if !tt.files {
					c.SecretFiles = nil
				}
			})
			d.wantStatus(t, tt.name, tt.value, tt.status)
			if tt.status != http.StatusAccepted && len(d.queue.calls) > 0 {
				t.Errorf("calls of the queue = %v, want none", d.queue.calls)
			}
			if strings.Contains(d.log.String(), "secret-of") {
				t.Errorf("the log holds a secret:\n%s", d.log)
			}
		})
	}
}

func TestTheProjectOfThePathIsAskedFor(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) {
		c.Secrets = secrets{values: map[string]string{"demo": "Bearer of-demo"}}
		c.Policies = policies{enabled: []string{"demo", "other"}}
	})
	r := post(t, "other", payload{repository: "other/app"}.encode(t, webhook.Default))
	r.Header.Set("Authorization", "Bearer of-demo")
	if rec := d.do(r); rec.Code != http.StatusUnauthorized {
		t.Errorf("status of an admin of one project at another's door = %d, want 401", rec.Code)
	}
}

func TestTheBodyIsNotReadBeforeTheSecretsAreKnown(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) { c.Secrets = secrets{err: errors.New("away")} })
	r := post(t, "demo", "")
	r.Body, r.ContentLength = untouchable{t}, 100
	r.Header.Set("Authorization", planted)
	rec := d.do(r)
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Connection") != "close" || rec.Header().Get("Retry-After") == "" {
		t.Errorf("answer = %d %v, want 503 with a delay and a closed connection", rec.Code, rec.Header())
	}
}

// The answer to a stranger must not depend on whether a project exists.
func TestAStrangerLearnsNothing(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) { c.Secrets = secrets{values: map[string]string{"demo": "Bearer x"}} })
	var answers []string
	for _, project := range []string{"demo", "unknown"} {
		r := post(t, project, payload{}.encode(t, webhook.Default))
		r.Header.Set("Authorization", planted)
		rec := d.do(r)
		rec.Header().Del("X-Request-Id") // by chance
		var header strings.Builder
		if err := rec.Header().Write(&header); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, header.String()+strings.ReplaceAll(rec.Body.String(), project, "<project>"))
	}
	if answers[0] != answers[1] {
		t.Errorf("the answers differ:\n%s\n%s", answers[0], answers[1])
	}
}

type stuckSecrets struct{}

func (stuckSecrets) Accepts(ctx context.Context, _, _ string) (bool, error) { return false, stuck(ctx) }

func (stuckSecrets) Has(ctx context.Context, _ string) (bool, error) { return false, stuck(ctx) }

func TestStuckSecretsAreNotWaitedFor(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) { c.Secrets = stuckSecrets{} })
	r := post(t, "demo", payload{}.encode(t, webhook.Default))
	r.Header.Set("Authorization", planted)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		rec := d.do(r.WithContext(t.Context()))
		if took := time.Since(start); rec.Code != http.StatusServiceUnavailable || took > 200*time.Millisecond {
			t.Errorf("status = %d after %s, want 503 within 200ms: the body and the queue need the rest of Harbor's 3s", rec.Code, took)
		}
	})
}

func TestSecretsStandInForFiles(t *testing.T) {
	cfg := webhook.Config{HarborName: "main", Policies: policies{}, Queue: &queue{}, Registerer: prometheus.NewRegistry()}
	if _, err := webhook.New(cfg); err == nil {
		t.Error("New() without any secret succeeded")
	}
	cfg.Secrets = secrets{}
	if _, err := webhook.New(cfg); err != nil {
		t.Errorf("New() without files: %v", err)
	}
}
