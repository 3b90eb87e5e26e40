package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// Names of the two keys: one of what needs no log, one of what has to be in the log in the end.
const (
	plainKey  = "images"
	loggedKey = "logged"
)

// world is the whole system.
type world struct {
	dir     string
	seed    uint64
	say     func(format string, args ...any)
	journal *journal

	harbor    *harness.Harbor
	emulator  *harness.Process
	rekor     *harness.Rekor
	fronts    []*harness.Front // before the log, and before its tiles
	nats      *harness.NATS
	system    *harness.System
	developer *harness.Developer
	cosign    *harness.Tool
	keys      map[string]harness.Keys
	foreign   harness.Keys

	// refused is how many webhooks receivers refused while the queue's store was full.
	refused atomic.Int64

	// launching is held while a program is started or killed.
	launching sync.Mutex
	deaths    []error // of programs that ended by themselves; guarded by launching
}

// newWorld starts all that the system needs, and none of its programs.
func newWorld(ctx context.Context, dir string, p *plan.Plan, j *journal, say func(string, ...any)) (w *world, err error) {
	w = &world{dir: dir, seed: p.Seed, say: say, journal: j, keys: make(map[string]harness.Keys)}
	defer func() { //nolint:contextcheck // what runs is ended also if ctx has
		if err != nil {
			err = errors.Join(fmt.Errorf("preparing: %w", err), w.close())
		}
	}()
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return w, err
	}
	say("building the programs")
	programs, err := harness.Build(ctx, bin, "failpoints")
	if err != nil {
		return w, err
	}
	server, err := harness.BuildNATS(ctx, bin)
	if err != nil {
		return w, err
	}
	// Gaps between Harbor's attempts of 0.8 to 4 s: three attempts outlast most faults, and not all.
	speed := harness.EmulatorOptions{RetryScale: 0.05, DeliveryDelayScale: 1}
	if w.harbor, w.emulator, err = harness.StartEmulator(ctx, programs, dir, speed); err != nil {
		return w, err
	}
	if err := w.startLog(ctx); err != nil {
		return w, err
	}
	w.nats, err = harness.StartNATS(ctx, harness.NATSOptions{
		Program: server, Dir: filepath.Join(dir, "nats"), Nodes: 3, Filler: true, MaxStore: maxStore, Volume: volumeBytes,
	})
	if err != nil {
		return w, err
	}
	if len(w.nats.Volumes()) == 0 {
		say("no volume can be mounted here, which root may: no disk will be full, only the queue's store")
	}
	for _, name := range []string{plainKey, loggedKey} {
		if w.keys[name], err = harness.GenerateKeys(ctx, programs, dir, name); err != nil {
			return w, err
		}
	}
	if w.foreign, err = harness.GenerateKeys(ctx, programs, dir, "foreign"); err != nil {
		return w, err
	}
	return w, w.prepare(ctx, programs)
}

// startLog starts a log of Rekor v2 behind fronts that speak TLS.
func (w *world) startLog(ctx context.Context) (err error) {
	if w.rekor, err = harness.StartRekorV2(ctx, w.dir, harness.RekorOptions{}); err != nil {
		return err
	}
	for name, target := range map[string]string{"log": w.rekor.URL, "tiles": w.rekor.TilesURL} {
		front, err := harness.StartFront(ctx, filepath.Join(w.dir, name), target, "localhost")
		if err != nil {
			return err
		}
		w.fronts = append(w.fronts, front)
		if name == "log" { // it is the first
			w.fronts[0], w.fronts[len(w.fronts)-1] = front, w.fronts[0]
		}
	}
	return nil
}

// prepare makes projects and configurations.
func (w *world) prepare(ctx context.Context, programs harness.Programs) error {
	var names []string
	for _, p := range plan.Projects() {
		names = append(names, p.Name)
	}
	site, err := harness.NewSite(ctx, w.harbor, names...)
	if err != nil {
		return err
	}
	w.developer = w.harbor.NewDeveloper(site.Developer)
	if w.cosign, err = harness.NewTool(harness.EnvCosignV2, filepath.Join(w.dir, "cosign"), w.harbor, site.Developer, nil); err != nil {
		return err
	}
	var authorities []byte
	for _, f := range w.fronts {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return err
		}
		authorities = append(authorities, pem...)
	}
	bundle := filepath.Join(w.dir, "log-authorities.pem")
	if err := os.WriteFile(bundle, authorities, 0o600); err != nil { //nolint:gosec // in the folder of this run
		return err
	}
	w.system, err = harness.NewSystem(ctx, harness.Options{
		Programs: programs, Dir: filepath.Join(w.dir, "system"), Site: site, Managed: true, NATS: w.nats, Receivers: 2, Signers: 2,
		Keys:  []harness.Key{w.keys[plainKey].Entry(plainKey), w.keys[loggedKey].Entry(loggedKey)},
		Sweep: 30 * time.Second, Probe: time.Second,
		EditSigner: func(c harness.Config) {
			harness.Set(c, "10s", "sweep", "incremental")
			harness.Set(c, []harness.Config{{
				"name": logName, "type": w.rekor.Type, "url": w.fronts[0].URL("127.0.0.1"), "tiles_url": w.fronts[1].URL("127.0.0.1"),
				"origin": w.rekor.Origin, "ca_file": bundle, "public_key_file": w.rekor.PublicKey,
			}}, "logs")
		},
		EditReceiver: func(c harness.Config) { harness.Set(c, "5s", "drift", "interval") },
	})
	return err
}

const logName = "rekor"

// start starts the programs and enables the projects.
func (w *world) start(ctx context.Context) error {
	for _, p := range w.programs() {
		if err := w.launch(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range w.programs() {
		if err := w.system.AwaitReady(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range plan.Projects() {
		if p.Settings == nil {
			continue
		}
		if err := w.insist(ctx, p.Name, *p.Settings); err != nil {
			return err
		}
	}
	return nil
}

// programs are receivers and signers.
func (w *world) programs() []*harness.Program {
	return append(append([]*harness.Program{}, w.system.Receivers...), w.system.Signers...)
}

// launch starts a program with a clock of its own.
func (w *world) launch(ctx context.Context, p *harness.Program) error {
	w.launching.Lock()
	defer w.launching.Unlock()
	return w.system.LaunchProgram(ctx, p, "HARBORSEAL_CLOCK_FILE="+w.clockFile(p))
}

// kill ends a program at once.
func (w *world) kill(p *harness.Program) error {
	w.launching.Lock()
	defer w.launching.Unlock()
	w.look(p)
	return p.Process.Kill()
}

// look remembers that a program has ended by itself: nobody but the plan ends one. Launching is held.
func (w *world) look(p *harness.Program) {
	if p.Process != nil && !p.Process.Running() && !p.Process.Killed() {
		w.deaths = append(w.deaths, fmt.Errorf("%s has ended by itself\n%s", p.Name, strings.TrimSpace(p.Process.Tail())))
	}
}

func (w *world) clockFile(p *harness.Program) string { return filepath.Join(w.dir, p.Name+".clock") }

// checkers judge signatures, by the names of the keys.
func (w *world) checkers() (map[string]*checker.Checker, error) {
	text, err := os.ReadFile(w.rekor.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("reading the log's key: %w", err)
	}
	trust := checker.Trust{Logs: []checker.Log{{Name: logName, Key: text, Origin: w.rekor.Origin}}}
	all := make(map[string]*checker.Checker)
	for name, keys := range w.keys {
		plain, err := w.system.CheckerOf(keys.Public)
		if err == nil {
			all[name], err = plain.Trusting(trust, checker.Asked{Log: name == loggedKey})
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// close ends everything that runs.
func (w *world) close() error {
	var errs []error
	if w.system != nil {
		w.system.Kill()
	}
	if w.nats != nil {
		errs = append(errs, w.nats.Close())
	}
	for _, f := range w.fronts {
		errs = append(errs, f.Close())
	}
	if w.rekor != nil {
		errs = append(errs, w.rekor.Close())
	}
	if w.emulator != nil {
		errs = append(errs, w.emulator.Kill())
	}
	return errors.Join(errs...)
}

// ended says which programs ended by themselves.
func (w *world) ended() error {
	w.launching.Lock()
	defer w.launching.Unlock()
	for _, p := range w.programs() {
		w.look(p)
	}
	return errors.Join(w.deaths...)
}
