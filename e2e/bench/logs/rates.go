package logs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/policy"
)

// logName is what the configuration calls the log.
const logName = "rekor"

// Rate compares what is signed, where an entry is required, with what the log does.
type Rate struct {
	Log     policy.LogType `json:"log"`
	Waiting int            `json:"waiting"`
	Own     Own            `json:"own"`
	Catch
	// Entries is how many more the log has since.
	Entries int `json:"entries"`
}

// Ratio is that of the rates.
func (r *Rate) Ratio() float64 { return ratio(r.Rate(), r.Own.Rate()) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (b *bench) rate(ctx context.Context, log *harness.Rekor, p Plan) (r *Rate, err error) {
	r = &Rate{Log: p.Log, Waiting: p.Waiting}
	own, err := newOwn(log, log.URL, p.Waiting)
	if err != nil {
		return nil, err
	}
	defer own.close()
	w, err := b.newWorld(ctx, withLog(logConfig(log, logName, log.URL)), func(c harness.Config) {
		harness.Set(c, string(policy.TransparencyRequired), "sign", "transparency")
		harness.Set(c, p.Waiting, "sign", "log_concurrency")
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	b.say("%s, %d waiting: the log itself", p.Log, p.Waiting)
	if err := own.measure(ctx, p.Signatures/2, &r.Own); err != nil {
		return nil, err
	}
	before, err := size(ctx, log)
	if err != nil {
		return nil, err
	}
	b.say("%s, %d waiting: %d images", p.Log, p.Waiting, p.Signatures)
	if r.Catch, err = w.catchUp(ctx, p.Signatures); err != nil {
		return nil, err
	}
	after, err := size(ctx, log)
	if err != nil {
		return nil, err
	}
	r.Entries = after - before
	if err := own.measure(ctx, p.Signatures-p.Signatures/2, &r.Own); err != nil {
		return nil, err
	}
	b.say("%s, %d waiting: %.1f signatures a second, the log itself %.1f, ratio %.2f", p.Log, p.Waiting, r.Rate(), r.Own.Rate(), r.Ratio())
	return r, nil
}

// logConfig is an entry of a signer's logs.
func logConfig(log *harness.Rekor, name, url string) harness.Config {
	c := harness.Config{"name": name, "type": log.Type, "url": url, "public_key_file": log.PublicKey}
	if log.TilesURL != "" {
		c["origin"], c["tiles_url"] = log.Origin, log.TilesURL
	}
	return c
}

func withLog(logs ...harness.Config) edit {
	return func(c harness.Config) {
		harness.Set(c, logs, "logs")
		harness.Set(c, logs[0]["name"], "sign", "log")
	}
}

// Own is what the log itself does, with as many callers as wait in what it is compared with.
type Own struct {
	Entries int           `json:"entries"`
	Took    time.Duration `json:"took_ns"`
	// CPU is the processor time of log and database together, for all entries; Client is that of the callers.
	CPU    time.Duration `json:"cpu_ns"`
	Client time.Duration `json:"client_cpu_ns"`
}

// Rate is entries a second.
func (o Own) Rate() float64 { return rate(o.Entries, o.Took) }

// each is the processor time of the log for an entry.
func (o Own) each() time.Duration { return o.CPU / time.Duration(max(1, o.Entries)) }

func (o *Own) add(more Own) {
	o.Entries, o.Took, o.CPU, o.Client = o.Entries+more.Entries, o.Took+more.Took, o.CPU+more.CPU, o.Client+more.Client
}

// String is for people.
func (o Own) String() string { return fmt.Sprintf("%.1f", o.Rate()) }
