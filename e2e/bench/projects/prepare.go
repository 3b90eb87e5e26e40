package projects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

const (
	// atOnce is how many projects are enabled, and how many webhooks sent, at once.
	atOnce = 10
	// sweptOf is that one in so many projects is swept: sweeps come one after the other, and those of all would take most of the
	// run. What one leaves behind is a value of some hundred bytes and an event.
	sweptOf = 10
)

// prepare enables projects, from one to another, and waits until some are swept, and an image of each is signed.
func (b *bench) prepare(ctx context.Context, from, to int) error {
	if err := b.enable(ctx, b.Made.Projects[from:to]); err != nil {
		return err
	}
	if err := b.push(ctx, b.Made.Projects[from:to]); err != nil {
		return err
	}
	return b.Await(ctx, func(m harness.Metrics) error {
		swept, signed := int(m.Sum("harborseal_sweeps_total", `kind="full"`, `outcome="done"`)), stage.Signed(m)
		if swept < to/sweptOf || signed < to || m.InFlight() > 0 {
			return fmt.Errorf("%d of %d projects are swept, %d of %d images are signed", swept, to/sweptOf, signed, to)
		}
		return nil
	})
}

// number asks Harbor for the ids of all projects.
func (b *bench) number(ctx context.Context) error {
	const perPage = 100
	b.ids = map[string]int64{}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for page := 1; ; page++ {
		address := fmt.Sprintf("%s/api/v2.0/projects?page_size=%d&page=%d", b.Harbor.URL, perPage, page)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return fmt.Errorf("listing the projects: %w", err)
		}
		req.SetBasicAuth(b.Harbor.Username, b.Harbor.Password)
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("listing the projects: %w", err)
		}
		var some []struct {
			Name string `json:"name"`
			ID   int64  `json:"project_id"`
		}
		err = json.NewDecoder(resp.Body).Decode(&some)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return fmt.Errorf("listing the projects: %w", err)
		}
		for _, project := range some {
			b.ids[project.Name] = project.ID
		}
		if len(some) < perPage {
			return nil
		}
	}
}

// connect connects as a receiver, which writes policies, or as a signer, which asks for sweeps.
func (b *bench) connect(ctx context.Context, user string, imported bool) (*queue.Client, error) {
	return queue.Connect(ctx, queue.Config{
		URLs: strings.Split(b.System.QueueURL(), ","), Username: user, PasswordFile: b.nats.PasswordFile(user), Imported: imported,
		Name: "bench", TLS: queue.ClientTLS{CAFile: b.authority}, Replicas: b.nats.Replicas(), Logger: zerolog.Nop(),
	})
}

// enable puts the policies of projects into their bucket, and asks for sweeps of some, as the API does. What was pushed before
// is not asked for.
func (b *bench) enable(ctx context.Context, names []string) error {
	receiver, err := b.connect(ctx, "receiver", true)
	if err != nil {
		return err
	}
	defer receiver.Close()
	signer, err := b.connect(ctx, "signer", false)
	if err != nil {
		return err
	}
	defer signer.Close()
	now := time.Now().UTC()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, name := range names {
		g.Go(func() error {
			value, err := policy.Document{
				Project: name, ProjectID: b.ids[name], Spec: policy.Spec{Mode: policy.ModeSign}, ChangedBy: "bench", ChangedAt: now,
				Backfill: policy.Backfill{Choice: "since:" + now.Format(time.RFC3339), From: now},
			}.Encode()
			if err != nil {
				return err
			}
			if _, err := receiver.PutPolicy(ctx, book.Policy, name, value, 0); err != nil || i%sweptOf != 0 {
				return err
			}
			_, err = signer.Propose(ctx, reconcile.Full, name, reconcile.AdHoc(time.Now()))
			return err
		})
	}
	return g.Wait()
}

// push reports an image of each project, in the order in which they were enabled: the receiver knows of the last one by then.
func (b *bench) push(ctx context.Context, names []string) error {
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	var first []harbortest.SyntheticRef
	for _, ref := range b.Made.Unsigned {
		if project := stage.ProjectOf(ref); wanted[project] {
			delete(wanted, project)
			first = append(first, ref)
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("%d projects have no image", len(wanted))
	}
	// Each has an address of its own.
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, ref := range first {
		g.Go(func() error {
			to, err := b.Target(stage.ProjectOf(ref))
			if err != nil {
				return err
			}
			answers, err := hooks.Send(ctx, to, hooks.Order{Webhooks: []int{0}, AtOnce: 1, Body: func(int) []byte { return stage.Body(ref) }})
			if err == nil && answers.Accepted == 0 {
				err = fmt.Errorf("a push was not accepted: %d to be tried again, %v", answers.Retryable, answers.Broken)
			}
			return err
		})
	}
	return g.Wait()
}
