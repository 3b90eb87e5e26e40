package harbortest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

type shownExecution struct {
	ID      int64          `json:"id"`
	Status  string         `json:"status"`
	Vendor  int64          `json:"vendor_id"`
	Started time.Time      `json:"start_time"`
	Metrics map[string]int `json:"metrics"`
}

// TestExecutionsTellWhatFailed lets deliveries of one policy succeed and fail in turn and reads Harbor's log of them.
func TestExecutionsTellWhatFailed(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	refusing := map[string]bool{}
	hook := newReceiver(t, func(n int, r *http.Request) string {
		if refusing[r.URL.Path] {
			return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nwho?\n"
		}
		return ok200(n, r)
	})
	refusing["/bad"] = true
	s.policy("demo", "good", hook.url()+"/good", "Default")
	s.policy("demo", "bad", hook.url()+"/bad", "Default")
	for i := range 3 {
		body := s.plain(i)
		s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
		settled(t, s.client, hook)
	}
	var policies []struct {
		ID   int64
		Name string
	}
	const base = "/api/v2.0/projects/demo/webhook/policies"
	s.want(http.StatusOK, admin(), http.MethodGet, base, nil).decode(t, &policies)
	for _, p := range policies {
		want := map[string]string{"good": "Success", "bad": "Error"}[p.Name]
		path := fmt.Sprintf("%s/%d/executions", base, p.ID)
		all := s.executions(path)
		if len(all) != 3 || all[0].ID <= all[1].ID || all[1].ID <= all[2].ID {
			t.Errorf("%s: got %+v, want 3 executions, newest first", p.Name, all)
		}
		for _, e := range all {
			if e.Status != want || e.Vendor != p.ID || e.Metrics[strings.ToLower(want)+"_task_count"] != 1 {
				t.Errorf("%s: got %+v, want %s", p.Name, e, want)
			}
		}
		if got := s.executions(path + "?page=2&page_size=2"); len(got) != 1 || got[0].ID != all[2].ID {
			t.Errorf("%s: second page: got %+v, want the oldest", p.Name, got)
		}
		if got := s.executions(path + "?sort=id&page_size=1"); len(got) != 1 || got[0].ID != all[2].ID {
			t.Errorf("%s: sorted by id: got %+v, want the oldest", p.Name, got)
		}
		for query, count := range map[string]int{
			"status%3DError": map[string]int{"bad": 3}[p.Name], "vendor_type%3DWEBHOOK": 3, "vendor_type%3DSLACK": 0,
			"status%3DRunning": 0, fmt.Sprintf("id%%3D%d", all[1].ID): 1,
			"start_time%3D%5B2020-01-01%2000:00:00~2020-01-02%2000:00:00%5D": 0,
		} {
			if got := s.executions(path + "?q=" + query); len(got) != count {
				t.Errorf("%s: q=%s: got %d executions, want %d", p.Name, query, len(got), count)
			}
		}
		s.checkTaskLog(t, p.Name, fmt.Sprintf("%s/%d/tasks", path, all[0].ID))
	}
}

func (s *stage) executions(path string) []shownExecution {
	s.t.Helper()
	var out []shownExecution
	s.want(http.StatusOK, admin(), http.MethodGet, path, nil).decode(s.t, &out)
	return out
}

func (s *stage) checkTaskLog(t *testing.T, policy, path string) {
	t.Helper()
	var tasks []struct {
		ID     int64
		Status string
		Runs   int `json:"run_count"`
	}
	s.want(http.StatusOK, admin(), http.MethodGet, path, nil).decode(t, &tasks)
	runs, line := 1, "success to run webhook job"
	if policy == "bad" {
		runs, line = 3, "abnormal response code: 401, body: who?"
	}
	if len(tasks) != 1 || tasks[0].Runs != runs {
		t.Fatalf("%s: tasks: got %+v, want one with %d runs", policy, tasks, runs)
	}
	log := s.want(http.StatusOK, admin(), http.MethodGet, fmt.Sprintf("%s/%d/log", path, tasks[0].ID), nil)
	if got := strings.Count(string(log.body), line); got != runs {
		t.Errorf("%s: log: got %d times %q, want %d; %s", policy, got, line, runs, log.body)
	}
	if got := log.header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
		t.Errorf("%s: type of the log: got %s, want text/plain", policy, got)
	}
	s.want(http.StatusNotFound, admin(), http.MethodGet, fmt.Sprintf("%s/%d/log", path, tasks[0].ID+1000), nil)
}

// TestAPolicyWithARunningExecutionStays shows why the removal of a webhook has to be repeated: Harbor refuses it while a
// delivery is under way, and for ever when an event was lost before the jobservice heard of it.
func TestAPolicyWithARunningExecutionStays(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	release := make(chan struct{})
	arrived := make(chan struct{}, 1)
	hook := newReceiver(t, func(n int, r *http.Request) string {
		arrived <- struct{}{}
		<-release
		return ok200(n, r)
	})
	s.policy("demo", "hook", hook.url(), "Default")
	var policies []struct{ ID int64 }
	const base = "/api/v2.0/projects/demo/webhook/policies"
	s.want(http.StatusOK, admin(), http.MethodGet, base, nil).decode(t, &policies)
	path := fmt.Sprintf("%s/%d", base, policies[0].ID)
	body := s.plain(0)
	s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	<-arrived
	refused := s.want(http.StatusPreconditionFailed, admin(), http.MethodDelete, path, nil)
	if want := "aren't in final status"; !strings.Contains(string(refused.body), want) {
		t.Errorf("refusal: got %s, want %q in it", refused.body, want)
	}
	close(release)
	settled(t, s.client, hook)
	s.want(http.StatusOK, admin(), http.MethodDelete, path, nil)
	s.want(http.StatusNotFound, admin(), http.MethodGet, path+"/executions", nil)
}

func TestNotificationsSwitchedOff(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	hook := newReceiver(t, ok200)
	s.policy("demo", "hook", hook.url(), "Default")
	shown := func() bool {
		var out struct {
			On bool `json:"notification_enable"`
		}
		s.want(http.StatusOK, admin(), http.MethodGet, "/api/v2.0/systeminfo", nil).decode(t, &out)
		return out.On
	}
	push := func(n int) {
		body := s.plain(n)
		s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	}
	for n, on := range []bool{false, true} {
		s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]bool{"notification_enable": on})
		if got := shown(); got != on {
			t.Errorf("notification_enable: got %t, want %t", got, on)
		}
		push(n)
		if got := len(settled(t, s.client, hook)); got != n {
			t.Errorf("deliveries with notification_enable %t: got %d, want %d", on, got, n)
		}
	}
}
