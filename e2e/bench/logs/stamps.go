package logs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

// askers is how many ask the authority at once in the bare loop: as many as a signer has slots by default.
const askers = 32

// Stamps compares what is signed with and without timestamps, nothing of it logged.
type Stamps struct {
	Off      Stamped `json:"off"`
	Optional Stamped `json:"optional"`
	Required Stamped `json:"required"`
	// Own is what the authority itself does.
	Own Own `json:"own"`
}

// Stamped is one setting of timestamps.
type Stamped struct {
	Catch
	// Made and Missed are timestamps.
	Made   int `json:"timestamps"`
	Missed int `json:"timestamps_missed"`
}

func (b *bench) stamps(ctx context.Context, r *Result) (err error) {
	if b.Stamped == 0 {
		return nil
	}
	b.say("starting the timestamp authority")
	dir := filepath.Join(b.Dir, "tsa")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	authority, err := harness.StartTSA(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, authority.Close()) }()
	s := &Stamps{}
	if s.Own, err = ownStamps(ctx, authority, b.Stamped); err != nil {
		return err
	}
	for _, one := range []struct {
		setting policy.Timestamp
		to      *Stamped
	}{{policy.TimestampOff, &s.Off}, {policy.TimestampOptional, &s.Optional}, {policy.TimestampRequired, &s.Required}} {
		if *one.to, err = b.stamped(ctx, authority, one.setting); err != nil {
			return fmt.Errorf("%s: %w", one.setting, err)
		}
		b.say("timestamps %s: %.0f signatures a second", one.setting, one.to.Rate())
	}
	r.Stamps = s
	return nil
}

func (b *bench) stamped(ctx context.Context, authority *harness.TSA, setting policy.Timestamp) (s Stamped, err error) {
	b.say("timestamps %s: %d images", setting, b.Stamped)
	w, err := b.newWorld(ctx, func(c harness.Config) {
		harness.Set(c, []harness.Config{{"name": "tsa", "url": authority.URL, "certificate_chain_file": authority.Chain}}, "timestamp_authorities")
		harness.Set(c, string(setting), "sign", "timestamp")
	})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	if s.Catch, err = w.catchUp(ctx, b.Stamped); err != nil {
		return s, err
	}
	m, err := w.Metrics(ctx, w.signer())
	if err != nil {
		return s, err
	}
	const name = "harborseal_signing_timestamps_total"
	s.Made, s.Missed = int(m.Sum(name, `result="made"`)), int(m.Sum(name, `result="missed"`))
	return s, nil
}

// ownStamps asks the authority as fast as it answers.
func ownStamps(ctx context.Context, authority *harness.TSA, n int) (o Own, err error) {
	chain, err := os.ReadFile(authority.Chain)
	if err != nil {
		return o, fmt.Errorf("reading the chain of the authority: %w", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: askers}
	defer transport.CloseIdleConnections()
	client, err := tsa.New(tsa.Config{Name: "tsa", URL: authority.URL, Chain: chain, Transport: transport})
	if err != nil {
		return o, err
	}
	before := newLoad()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askers)
	for i := range n {
		g.Go(func() error {
			_, _, err := client.Stamp(ctx, fmt.Appendf(nil, "signature %d", i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return o, fmt.Errorf("asking the authority: %w", err)
	}
	used := before.since()
	o.add(Own{Entries: n, Took: used.took, CPU: used.started, Client: used.self})
	return o, nil
}
