// Command registry serves package memory on the loopback interface as a process of its own, so that its CPU is nobody
// else's. It prints one line of JSON, {"url":"http://127.0.0.1:port"}, when it listens. GET /_bench/requests gives the
// counted requests by kind, GET /_bench/cpu the CPU time that it has used, in nanoseconds, and DELETE /_bench/content forgets
// all content. The end of its standard input or a signal ends it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/e2e/bench/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("registry", flag.ContinueOnError)
	flags.SetOutput(stderr)
	username := flags.String("username", "", "account that tokens are given to; empty lets everybody do everything")
	secretVariable := flags.String("secret-variable", "", "environment variable with the account's secret")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	// Memory is plenty here, and every moment of collecting garbage is taken from what is measured.
	debug.SetGCPercent(400)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	registry := memory.New(*username, os.Getenv(*secretVariable))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_bench/requests", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(registry.Requests()) // the driver has gone
	})
	mux.HandleFunc("GET /_bench/cpu", func(w http.ResponseWriter, _ *http.Request) {
		used, err := contender.CPUTime()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(used) // the driver has gone
	})
	mux.HandleFunc("DELETE /_bench/content", func(w http.ResponseWriter, _ *http.Request) {
		registry.Reset()
		debug.FreeOSMemory()
		w.WriteHeader(http.StatusNoContent)
	})
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 1 && r.URL.Path[1] == '_' {
			mux.ServeHTTP(w, r)
			return
		}
		registry.ServeHTTP(w, r)
	})}
	if err := json.NewEncoder(stdout).Encode(map[string]string{"url": "http://" + listener.Addr().String()}); err != nil {
		return errors.Join(fmt.Errorf("announcing the address: %w", err), listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // its end is all that counts
		cancel()
	}()
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve tells
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
