// Package contender is how the benchmark talks to the programs that it compares, and how each of them measures itself.
//
// A contender is a process of its own, so that what it uses is not mixed with the registry's and the driver's. It reads
// orders, one JSON object a line, from standard input, and answers each with a result on standard output; the end of the
// input ends it. Times are those from the first request of an order to the end of its last one.
//
// It assumes Linux: the peak of the resident set is read from /proc.
package contender

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Setup is what a contender is told once, as flags.
type Setup struct {
	// URL is the registry's origin, Host what signatures name it.
	URL, Host string
	// Username and SecretFile are the account's; unused where the registry asks for no token.
	Username, SecretFile string
	// KeyFile is an ECDSA key: PKCS #8 in PEM without a PasswordFile, as cosign encrypts it with one.
	KeyFile, PasswordFile string
	// Format is legacy, bundle or both. Contenders other than the engine know legacy alone.
	Format string
	// Watch lets the engine look again at the tags that it wrote, as it does beside its work.
	Watch bool
	// CPUProfile is written for the whole life of the process if it is not empty, and a profile of allocations beside it.
	CPUProfile string
}

// Args are the flags that give a Setup to a contender.
func (s Setup) Args() []string {
	return []string{
		"-url", s.URL, "-host", s.Host, "-username", s.Username, "-secret-file", s.SecretFile, "-key-file", s.KeyFile,
		"-password-file", s.PasswordFile, "-format", s.Format, "-watch=" + strconv.FormatBool(s.Watch), "-cpu-profile", s.CPUProfile,
	}
}

func parse(args []string, stderr io.Writer) (Setup, error) {
	var s Setup
	flags := flag.NewFlagSet("contender", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.URL, "url", "", "origin of the registry")
	flags.StringVar(&s.Host, "host", "", "the registry's name in signatures")
	flags.StringVar(&s.Username, "username", "", "account that pushes")
	flags.StringVar(&s.SecretFile, "secret-file", "", "file with the account's secret")
	flags.StringVar(&s.KeyFile, "key-file", "", "file with the signing key")
	flags.StringVar(&s.PasswordFile, "password-file", "", "file with the key's password")
	flags.StringVar(&s.Format, "format", "legacy", "legacy, bundle or both")
	flags.BoolVar(&s.Watch, "watch", false, "look again at the tags that were written")
	flags.StringVar(&s.CPUProfile, "cpu-profile", "", "file for a CPU profile")
	if err := flags.Parse(args); err != nil {
		return Setup{}, fmt.Errorf("parsing flags: %w", err)
	}
	if s.URL == "" || s.Host == "" || s.KeyFile == "" {
		return Setup{}, errors.New("url, host and key-file are required")
	}
	return s, nil
}

// Order asks for signatures, so many at once.
type Order struct {
	Repository string   `json:"repository"`
	Digests    []string `json:"digests"`
	InFlight   int      `json:"in_flight"`
}

// Result is what an order has taken. CPU and allocations are those of the process during the order; PeakRSS, in bytes, is
// the peak since the first order: what decrypting the key took, once, is left out.
type Result struct {
	Signatures     int           `json:"signatures"`
	Took           time.Duration `json:"took_ns"`
	CPU            time.Duration `json:"cpu_ns"`
	PeakRSS        int64         `json:"peak_rss_bytes"`
	Allocations    uint64        `json:"allocations"`
	AllocatedBytes uint64        `json:"allocated_bytes"`
}

// Sign makes one signature, attaches it and verifies what it reads back. It is called by many goroutines at once.
type Sign func(ctx context.Context, repository, digest string) error

// Run serves orders until the input ends.
func Run(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer, start func(context.Context, Setup) (Sign, error)) (err error) {
	setup, err := parse(args, stderr)
	if err != nil {
		return err
	}
	sign, err := start(ctx, setup)
	if err != nil {
		return err
	}
	if setup.CPUProfile != "" {
		stop, err := profile(setup.CPUProfile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	debug.FreeOSMemory()
	if err := resetPeakRSS(); err != nil {
		return err
	}
	orders, results := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o Order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading an order: %w", err)
		}
		result, err := fill(ctx, o, sign)
		if err != nil {
			return err
		}
		if err := results.Encode(result); err != nil {
			return fmt.Errorf("writing a result: %w", err)
		}
	}
}

// fill does the work of one order.
func fill(ctx context.Context, o Order, sign Sign) (Result, error) {
	// What reading the order left behind is not this order's cost.
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, err := CPUTime()
	if err != nil {
		return Result{}, err
	}
	started := time.Now()
	next := make(chan string)
	g, ctx := errgroup.WithContext(ctx)
	for range max(o.InFlight, 1) {
		g.Go(func() error {
			for digest := range next {
				if err := sign(ctx, o.Repository, digest); err != nil {
					return fmt.Errorf("signing %s@%s: %w", o.Repository, digest, err)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(next)
		for _, digest := range o.Digests {
			select {
			case next <- digest:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	r := Result{Signatures: len(o.Digests), Took: time.Since(started)}
	used, err := CPUTime()
	if err != nil {
		return Result{}, err
	}
	runtime.ReadMemStats(&after)
	r.CPU, r.Allocations, r.AllocatedBytes = used-cpu, after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	r.PeakRSS, err = peakRSS()
	return r, err
}
