package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunAnnouncesServesAndEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{
			"-version", "v2.11.2", "-delivery-delay-scale", "0.001", "-faults", `{"status":503,"route":"token"}`,
			"-synthetic", `{"projects":1,"repositories":2,"digests":10}`,
		}, writer, io.Discard)
	}()
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		t.Fatalf("reading the announcement: %v", err)
	}
	var announced struct{ URL string }
	if err := json.Unmarshal(line, &announced); err != nil || !strings.HasPrefix(announced.URL, "http://127.0.0.1:") {
		t.Fatalf("announcement: got %s (%v), want a loopback URL", line, err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for path, want := range map[string]int{
		"/api/v2.0/ping": http.StatusOK, "/service/token": http.StatusServiceUnavailable, "/_emulator/stats": http.StatusOK,
		"/api/v2.0/projects/library/artifacts":                http.StatusNotFound, // As before 2.12.
		"/_emulator/synthetic":                                http.StatusOK,
		"/api/v2.0/projects?name=synthetic-0001&public=false": http.StatusOK,
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, announced.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ending: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"unknown flag":  {"-nope"},
		"unknown fault": {"-faults", `{"nope":1}`},
		"bad address":   {"-listen", "127.0.0.1:nope"},
		"unknown key":   {"-synthetic", `{"project":1}`},
		"no content":    {"-synthetic", `{"projects":1}`},
	} {
		var out bytes.Buffer
		err := run(t.Context(), args, &out, io.Discard)
		if err == nil || errors.Is(err, flag.ErrHelp) || out.Len() > 0 {
			t.Errorf("%s: got error %v and output %q, want an error and no output", name, err, &out)
		}
	}
}
