//go:build e2e

package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// The pages that answer in a server's place.
const (
	proxyPage = "<!DOCTYPE html><html><title>Welcome to the company's network</title></html>"
	htmlType  = "text/html; charset=utf-8"
)

// logFault is a way in which a log can be away.
type logFault struct {
	name string
	// trouble is what happens wherever the log is asked; writes, if it is to happen only where entries are taken.
	trouble harness.Trouble
	writes  bool
	// strange lets the signer be configured with the key of another log instead.
	strange bool
	cause   string
	// short says that the short form tries it, with Rekor v1.
	short bool
}

func logFaults() []logFault {
	return []logFault{
		{name: "refused", trouble: harness.Trouble{Refuse: true}, cause: "refused"},
		{name: "hanging", trouble: harness.Trouble{Hang: true}, cause: "timeout", short: true},
		{name: "500", trouble: harness.Trouble{Status: http.StatusInternalServerError, Type: jsonType, Body: `{"code":500,"message":"no"}`}, cause: "protocol"},
		{
			name: "429 with Retry-After", cause: "protocol", short: true,
			trouble: harness.Trouble{Status: http.StatusTooManyRequests, RetryAfter: "2", Type: jsonType, Body: `{"code":429,"message":"later"}`},
		},
		{name: "HTML instead of JSON", trouble: harness.Trouble{Status: http.StatusOK, Type: htmlType, Body: proxyPage}, cause: "protocol"},
		{name: "expired certificate", trouble: harness.Trouble{Expired: true}, cause: "tls"},
		{name: "wrong key", strange: true, cause: "protocol"},
		{name: "writes refused", trouble: harness.Trouble{Refuse: true}, writes: true, cause: "refused"},
		{name: "writes answered by HTML", trouble: harness.Trouble{Status: http.StatusOK, Type: htmlType, Body: proxyPage}, writes: true, cause: "protocol"},
	}
}

// However a log is away, it is seen, projects that can wait for their entries do not, those that cannot, wait, and all is made up
// for afterwards.
func TestLogFaults(t *testing.T) {
	for _, logType := range []string{"rekor-v1", "rekor-v2"} {
		for _, fault := range logFaults() {
			if fault.writes && logType == "rekor-v1" {
				continue // it has one address for everything
			}
			t.Run(logType+" "+fault.name, func(t *testing.T) {
				t.Parallel()
				if !fault.short || logType != "rekor-v1" {
					full(t)
				}
				testLogFault(t, logType, fault)
			})
		}
	}
}

func testLogFault(t *testing.T, logType string, fault logFault) {
	t.Helper()
	const interval, quiet, pace = 3 * time.Second, 3 * time.Second, 500 * time.Millisecond
	m := newMixed(t, logType, 1, probing(interval))
	m.awaitUp(t, onLog)
	before := m.push(t, "before", quiet, pace)
	m.settle(t, before)

	gone := time.Now()
	heal := m.harm(t, fault)
	load := m.load(t, "during", pace)
	m.awaitDown(t, onLog, fault.cause, gone, interval)
	m.lull(t, time.Until(gone.Add(5*time.Second)))
	during := load.end()
	m.awaitAway(t, during, during)
	m.noSlower(t, before, during, tolerable, m.deferred, m.off)

	heal()
	m.settle(t, during)
	m.judgeMixed(t, append(before, during...))
	m.noneDead(t)
	m.awaitUp(t, onLog)
}

// harm causes a fault; heal ends it.
func (m *mixed) harm(t *testing.T, fault logFault) (heal func()) {
	t.Helper()
	switch {
	case fault.strange:
		change := func(path string) {
			m.reconfigure(t, m.Signers[0], func(c harness.Config) {
				log, ok := listOf(t, c, "logs")[0].(harness.Config)
				if !ok {
					t.Fatalf("the log is %v", c["logs"])
				}
				log["public_key_file"] = path
			})
		}
		change(strangeKey(t, m.dir))
		return func() { change(m.proofs.rekor.PublicKey) }
	case fault.writes:
		m.cause(t, m.proofs.log, fault.trouble)
	default:
		m.trouble(t, fault.trouble)
	}
	return func() { m.trouble(t, harness.Trouble{}) }
}

// listOf gives a list of a configuration that was read from its file.
func listOf(t *testing.T, c harness.Config, key string) []any {
	t.Helper()
	list, ok := c[key].([]any)
	if !ok || len(list) == 0 {
		t.Fatalf("%s is %v in the configuration, want a list", key, c[key])
	}
	return list
}

// cause causes trouble in one place.
func (m *mixed) cause(t *testing.T, front *harness.Front, trouble harness.Trouble) {
	t.Helper()
	if err := front.Cause(t.Context(), trouble); err != nil {
		t.Fatal(err)
	}
}

// strangeKey writes a public key that no log has.
func strangeKey(t *testing.T, dir string) (path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "strange.pub")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A log whose answers are lost has taken the entries: each signature has exactly one in the end, the one that is there.
func TestLogAnswersLost(t *testing.T) {
	for _, tt := range []struct {
		logType string
		// entries are those of an image in both formats.
		entries int
	}{{"rekor-v1", 2}, {"rekor-v2", 1}} {
		t.Run(tt.logType, func(t *testing.T) {
			m := newMixed(t, tt.logType, 1, probing(3*time.Second))
			m.awaitUp(t, onLog)
			size := m.logSize(t)
			m.cause(t, m.proofs.log, harness.Trouble{Swallow: true})
			var pushed []timed
			for _, project := range m.projects {
				p, err := m.pushOne(t.Context(), project+"/app", "v1")
				if err != nil {
					t.Fatal(err)
				}
				pushed = append(pushed, timed{p, time.Now()})
			}
			// Each of the two projects has asked at least once, and so has been left without an answer.
			m.until(t, func(context.Context) error {
				if lost := m.proofs.log.Lost(); lost < 2*tt.entries {
					return fmt.Errorf("%d answers were lost, want %d", lost, 2*tt.entries)
				}
				return nil
			})
			m.unsigned(t, of(pushed, m.required))
			m.cause(t, m.proofs.log, harness.Trouble{})
			m.settle(t, pushed)
			m.judgeMixed(t, pushed)
			m.noneDead(t)
			if got, want := m.logSize(t)-size, 2*tt.entries; got != want {
				t.Errorf("the log has %d more entries, want %d: one for each signature that has a place for it", got, want)
			}
		})
	}
}

// logSize asks the log itself how many entries it has.
func (m *mixed) logSize(t *testing.T) int {
	t.Helper()
	target := m.proofs.rekor.URL + "/api/v1/log"
	if m.proofs.rekor.TilesURL != "" {
		target = m.proofs.rekor.TilesURL + "/checkpoint"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	status, _, raw := exchange(t, req)
	if status != http.StatusOK {
		t.Fatalf("asking the log for its size: status %d", status)
	}
	if m.proofs.rekor.TilesURL == "" {
		var info struct {
			TreeSize int `json:"treeSize"`
		}
		if err := json.Unmarshal(raw, &info); err != nil {
			t.Fatal(err)
		}
		return info.TreeSize
	}
	// SPEC: C2SP tlog-checkpoint: origin, size and root hash, a line each.
	lines := strings.SplitN(string(raw), "\n", 3)
	if len(lines) < 3 {
		t.Fatalf("the checkpoint is %q", raw)
	}
	size, err := strconv.Atoi(lines[1])
	if err != nil {
		t.Fatal(err)
	}
	return size
}
