//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// The names under which the servers are known, in each test by a DNS server of its own.
const (
	logName    = "rekor.test"
	stampName  = "tsa.test"
	fulcioName = "fulcio.test"
)

// The servers are started once for all tests; each test has fronts of its own before them.
var (
	sharedRekorV1 = sync.OnceValues(func() (*harness.Rekor, error) {
		r, err := harness.StartRekorV1(context.Background(), folder("rekor-v1"))
		if err == nil {
			env.share(r.Close)
		}
		return r, err
	})
	sharedRekorV2 = sync.OnceValues(func() (*harness.Rekor, error) {
		r, err := harness.StartRekorV2(context.Background(), folder("rekor-v2"), harness.RekorOptions{Hostname: logName})
		if err == nil {
			env.share(r.Close)
		}
		return r, err
	})
	sharedTSA = sync.OnceValues(func() (*harness.TSA, error) {
		a, err := harness.StartTSA(context.Background(), folder("tsa"))
		if err == nil {
			env.share(a.Close)
		}
		return a, err
	})
)

// folder makes one for the files of a shared server; what keeps it from being made, the server will say.
func folder(name string) string {
	dir := filepath.Join(env.dir, name)
	_ = os.MkdirAll(dir, 0o700)
	return dir
}

// proofs are logs and a timestamp authority as one test reaches them.
type proofs struct {
	dns *harness.DNS
	// What is promoted from here is the first log's.
	*oneLog

	logs []*oneLog
	// stamps causes trouble; tsa is what stands behind it.
	stamps *harness.Front
	tsa    *harness.TSA
}

// oneLog is a transparency log as one test reaches it.
type oneLog struct {
	// name is what the configuration calls it: rekor, but its type where there are several.
	name string
	// log causes trouble; rekor is what stands behind it.
	log *harness.Front
	// tiles is where a log of Rekor v2 is read; nil for Rekor v1.
	tiles *harness.Front
	// authorities is a file with those of the log and the tiles.
	authorities string
	rekor       *harness.Rekor
}

// newProofs puts fronts before logs of these types and the authority.
func newProofs(t *testing.T, logTypes ...string) *proofs {
	t.Helper()
	p := &proofs{}
	var err error
	if p.tsa, err = sharedTSA(); err != nil {
		t.Fatal(err)
	}
	if p.dns, err = harness.StartDNS(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.dns.Set(logName, netip.MustParseAddr("127.0.0.1"))
	p.dns.Set(stampName, netip.MustParseAddr("127.0.0.1"))
	dir := t.TempDir()
	p.stamps = newFront(t, filepath.Join(dir, "stamps"), "http://"+p.tsa.Address, stampName)
	for _, logType := range logTypes {
		l := newLog(t, filepath.Join(dir, logType), logType)
		if len(logTypes) > 1 {
			l.name = logType
		}
		p.logs = append(p.logs, l)
	}
	p.oneLog = p.logs[0]
	t.Cleanup(func() {
		if err := p.dns.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newLog(t *testing.T, dir, logType string) *oneLog {
	t.Helper()
	l := &oneLog{name: "rekor"}
	start := sharedRekorV1
	if logType == "rekor-v2" {
		start = sharedRekorV2
	}
	var err error
	if l.rekor, err = start(); err != nil {
		t.Fatal(err)
	}
	l.log = newFront(t, filepath.Join(dir, "log"), l.rekor.URL, logName)
	if logType == "rekor-v2" {
		l.tiles = newFront(t, filepath.Join(dir, "tiles"), l.rekor.TilesURL, logName)
	}
	l.authorities = filepath.Join(dir, "authorities.pem")
	var all []byte
	for _, f := range []*harness.Front{l.log, l.tiles} {
		if f != nil {
			all = append(all, contentOf(t, f.CAFile)...)
		}
	}
	if err := os.WriteFile(l.authorities, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

func newFront(t *testing.T, dir, target, name string) *harness.Front {
	t.Helper()
	f, err := harness.StartFront(t.Context(), dir, target, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// reachable adds what the signers know of the logs and the authority to their configuration; o.Also gets the destinations.
func (p *proofs) reachable(o *harness.Options) {
	o.Also = append(o.Also, p.stamps.URL(stampName)[len("https://"):], p.dns.Addr())
	var logs []harness.Config
	for _, l := range p.logs {
		o.Also = append(o.Also, l.log.URL(logName)[len("https://"):])
		log := harness.Config{
			"name": l.name, "type": l.rekor.Type, "url": l.log.URL(logName), "ca_file": l.authorities, "public_key_file": l.rekor.PublicKey,
		}
		if l.tiles != nil {
			o.Also = append(o.Also, l.tiles.URL(logName)[len("https://"):])
			log["origin"], log["tiles_url"] = l.rekor.Origin, l.tiles.URL(logName)
		}
		logs = append(logs, log)
	}
	edit(o, func(c harness.Config) {
		harness.Set(c, logs, "logs")
		harness.Set(c, []harness.Config{{
			"name": "tsa", "url": p.stamps.URL(stampName) + "/api/v1/timestamp", "ca_file": p.stamps.CAFile, "certificate_chain_file": p.tsa.Chain,
		}}, "timestamp_authorities")
		harness.Set(c, p.name, "sign", "log")
		harness.Set(c, p.dns.Addr(), "egress", "resolver")
	})
}

// edit adds a change of the signers' configuration to those that there are.
func edit(o *harness.Options, change func(harness.Config)) {
	before := o.EditSigner
	o.EditSigner = func(c harness.Config) {
		if before != nil {
			before(c)
		}
		change(c)
	}
}

// asked gives what the signers are to ask of the first log and the authority.
func (p *proofs) asked(transparency, timestamp string) option {
	return func(o *harness.Options) {
		p.reachable(o)
		edit(o, func(c harness.Config) {
			harness.Set(c, transparency, "sign", "transparency")
			harness.Set(c, timestamp, "sign", "timestamp")
		})
	}
}

// trust is what the checker is to trust.
func (p *proofs) trust(t *testing.T) checker.Trust {
	t.Helper()
	trust := checker.Trust{Authorities: [][]byte{contentOf(t, p.tsa.Chain)}}
	for _, l := range p.logs {
		trust.Logs = append(trust.Logs, checker.Log{Name: l.name, Key: contentOf(t, l.rekor.PublicKey), Origin: l.rekor.Origin})
	}
	return trust
}

// judgedBy lets a world be judged with the logs and the authority, with what is asked of every signature in its formats.
func (p *proofs) judgedBy(t *testing.T, w *world, asked checker.Asked) {
	t.Helper()
	var err error
	if w.checker, err = w.checker.Trusting(p.trust(t), asked); err != nil {
		t.Fatal(err)
	}
}

// awaitLogged waits until nothing is owed to a log for what was pushed, and the report shows an entry for it.
func (w *world) awaitLogged(t *testing.T, pushed ...harness.Pushed) {
	t.Helper()
	for _, p := range pushed {
		for _, one := range p.All() {
			w.until(t, func(ctx context.Context) error {
				row, err := w.row(ctx, one)
				if err == nil && (row.State != "signed" || row.LogState != "logged" || len(row.LogOwed) > 0) {
					err = fmt.Errorf("%s@%s is %q (%s %s), to the log %q, owed are %q (%s)", one.Repository, one.Digest, row.State, row.Reason, row.Detail,
						row.LogState, row.LogOwed, row.LogReason)
				}
				return err
			})
		}
	}
}

// full skips what only the long form of the tests does.
func full(t *testing.T) {
	t.Helper()
	if !inFull() {
		t.Skip("one of each kind is tried in the short form: HARBORSEAL_E2E_FULL=1, or make e2e-full, tries all")
	}
}

// inFull says whether this is the long form.
func inFull() bool { return os.Getenv("HARBORSEAL_E2E_FULL") != "" }
