package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/harness"
)

const (
	// repositories is among how many of them the images of a world are divided.
	repositories = 16
	// reporters is how many webhooks are sent at once.
	reporters = 32
	// patience bounds every wait in which nothing happens.
	patience = 3 * time.Minute
)

// world is a running system with one signer and a project of its own, which has no webhook: this program reports the pushes.
type world struct {
	*harness.System
	project   string
	emulator  *harness.Process
	developer *harness.Developer
	client    *http.Client
	pushed    int
}

// edit changes a signer's configuration.
type edit func(harness.Config)

// newWorld starts a system, and waits for its first sweep.
func (b *bench) newWorld(ctx context.Context, edits ...edit) (_ *world, err error) {
	b.worlds++
	w := &world{emulator: b.emulator, project: "logs-" + strconv.Itoa(b.worlds)}
	site, err := harness.NewSite(ctx, b.harbor, w.project)
	if err != nil {
		return nil, err
	}
	w.developer = b.harbor.NewDeveloper(site.Developer)
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: reporters}}
	w.System, err = harness.NewSystem(ctx, harness.Options{
		Programs: b.programs, Dir: filepath.Join(b.Dir, w.project), Site: site, Enabled: []string{w.project},
		// One signature and one entry for each image. Nobody dies here, so the deadline is the default one.
		Format: "bundle", AckWait: time.Minute,
		EditSigner: func(c harness.Config) {
			harness.Set(c, "info", "log", "level")
			for _, e := range edits {
				e(c)
			}
		},
		EditReceiver: func(c harness.Config) {
			harness.Set(c, "info", "log", "level")
			harness.Set(c, "2GiB", "queue", "embedded", "max_store")
		},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.end())
		}
	}()
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	// It would look at everything that was pushed otherwise.
	return w, w.until(ctx, func(m harness.Metrics) error {
		if m.Sum("harborseal_sweeps_total", `kind="full"`) == 0 {
			return errors.New("the first sweep has not ended")
		}
		return nil
	})
}

// end stops the system.
func (w *world) end() error {
	w.client.CloseIdleConnections()
	return w.Stop()
}

// signer is the only one.
func (w *world) signer() *harness.Program { return w.Signers[0] }

// push pushes images and reports them to the receiver, as Harbor would.
func (w *world) push(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(reporters)
	for i := range repositories {
		count := (n + i) / repositories
		if count == 0 {
			continue
		}
		w.pushed++
		pushed, err := w.developer.PushMany(ctx, fmt.Sprintf("%s/app%d", w.project, w.pushed), count)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		for _, p := range pushed {
			g.Go(func() error { return w.report(ctx, p) })
		}
	}
	return g.Wait()
}

func (w *world) report(ctx context.Context, p harness.Pushed) error {
	_, repository, _ := strings.Cut(p.Repository, "/")
	body := harness.Delivery(w.project, repository, p.Digest, p.Tag)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.WebhookAddress(w.project), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("reporting a push: %w", err)
	}
	req.Header.Set("Authorization", w.WebhookAuth)
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("reporting a push: %w", err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("reporting a push: the answer is %d, %w", resp.StatusCode, err)
	}
	return nil
}

// signed is how many images have been signed by the signer's process.
func signed(m harness.Metrics) int {
	return int(m.Sum("harborseal_signing_outcomes_total", `outcome="signed"`))
}

// paid is how many log entries were owed and have been made.
func paid(m harness.Metrics) int {
	return int(m.Sum("harborseal_signing_log_debts_settled_total", `reason=""`))
}

// failures are attempts that had to be repeated, by their reasons.
func failures(m harness.Metrics) map[string]int {
	by := make(map[string]int)
	for sample, count := range m {
		labels, ok := strings.CutPrefix(sample, "harborseal_signing_failures_total{")
		_, reason, named := strings.Cut(labels, `reason="`)
		if reason, _, _ = strings.Cut(reason, `"`); ok && named && count > 0 {
			by[reason] += int(count)
		}
	}
	return by
}

// until waits until the signer's metrics are as they have to be.
func (w *world) until(ctx context.Context, condition func(harness.Metrics) error) error {
	err := harness.Until(ctx, patience, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, w.signer())
		if err != nil {
			return err
		}
		return condition(m)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, w.Tails())
	}
	return nil
}

// reach waits until a count is as high as it has to be. It gives up when nothing has come for a while, not before.
func (w *world) reach(ctx context.Context, want int, count func(harness.Metrics) int, look func(harness.Metrics)) error {
	for have := -1; have < want; {
		last := have
		err := w.until(ctx, func(m harness.Metrics) error {
			if have = count(m); have == last {
				return fmt.Errorf("%d of %d are done", have, want)
			}
			look(m)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
