package receiver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// readTime bounds the reading of all policies.
const readTime = 10 * time.Second

// SweepOptions are those of the command sweep. Exactly one of All and Projects is set.
type SweepOptions struct {
	// All is every project that is enabled, Projects are some.
	All      bool
	Projects []string
	// KeepSigning leaves signing as it is; otherwise it is suspended everywhere, unless Projects are named.
	KeepSigning bool
	Reason      string
	As          ToolUser
	Actor       enroll.Actor
	Logger      zerolog.Logger
}

// Sweeps says what a sweep was asked for.
type Sweeps struct {
	Projects []string `json:"projects"`
	// Globs says that the policies mean further projects, which this command could not list: their sweeps come by themselves, each
	// within the interval of full sweeps.
	Globs bool `json:"globs"`
	// Suspended says that signing is paused everywhere.
	Suspended bool `json:"suspended"`
}

// Sweep asks for full sweeps, which signers do one after the other: also those of projects that are swept already begin anew. It
// returns when they are asked for, not when they are done. It is safe to repeat.
func Sweep(ctx context.Context, cfg *config.Receiver, o SweepOptions) (Sweeps, error) {
	suspended := o.All && !o.KeepSigning
	dial := Tool
	if suspended {
		dial = toolOfOwner // whether signing is paused is not a receiver's to say
	}
	client, closing, err := dial(ctx, cfg, o.As, o.Logger)
	if err != nil {
		return Sweeps{}, err
	}
	defer closing()
	if suspended {
		if err := suspend(ctx, client, o.Actor, o.Reason); err != nil {
			return Sweeps{}, err
		}
	}
	var asked Sweeps
	if o.All {
		asked, err = sweepAll(ctx, cfg, client)
	} else {
		asked, err = sweepSome(ctx, client, o.Projects)
	}
	asked.Suspended = suspended
	return asked, err
}

// suspend pauses signing everywhere until somebody has looked: `signer resume`. Requests wait meanwhile, and sweeps go on, so that
// the report shows what is unsigned. The reason of a pause that stands is kept.
func suspend(ctx context.Context, journal enroll.Journal, actor enroll.Actor, why string) error {
	reason := why + ": compare the policies with what they should be, then let signing go on (signer resume)"
	entry, err := journal.GetPolicy(ctx, book.Pause, "")
	if err != nil {
		return fmt.Errorf("suspending signing: %w", err)
	}
	if len(entry.Value) > 0 {
		before, err := policy.DecodePause(entry.Value)
		if err != nil {
			return fmt.Errorf("suspending signing: %w", err)
		}
		if joined := reason + "; it was paused before: " + before.Reason; before.Paused && len(joined) <= policy.MaxReason {
			reason = joined
		}
	}
	if err := enroll.SetPause(ctx, journal, actor, "", true, reason); err != nil {
		return fmt.Errorf("suspending signing: %w", err)
	}
	return nil
}

func sweepSome(ctx context.Context, client *queue.Client, projects []string) (Sweeps, error) {
	var asked Sweeps
	for _, project := range projects {
		if err := artifact.ValidateProject(project); err != nil {
			return asked, fmt.Errorf("--project: %w", err)
		}
		if _, err := client.Propose(ctx, reconcile.Full, project, reconcile.AdHoc(time.Now())); err != nil {
			return asked, fmt.Errorf("asking for a sweep of %s: %w", project, err)
		}
		asked.Projects = append(asked.Projects, project)
	}
	return asked, nil
}

// sweepAll asks for the sweeps of all projects that are enabled.
func sweepAll(ctx context.Context, cfg *config.Receiver, client *queue.Client) (Sweeps, error) {
	policies := book.New(policy.Terms{})
	if err := readPolicies(ctx, client, policies); err != nil {
		return Sweeps{}, err
	}
	_, globs, err := policies.Projects()
	if err != nil {
		return Sweeps{}, err
	}
	var listed []string
	if globs && cfg.Harbor.Managed() {
		// Without Harbor's list, what is named is swept at once, and the others when they are due.
		if listed, err = listProjects(ctx, cfg); err == nil {
			globs = false
		}
	}
	enabled, err := policies.Enabled(listed)
	asked, askErr := sweepSome(ctx, client, slices.DeleteFunc(enabled, func(name string) bool { return name == "" }))
	asked.Globs = globs
	return asked, errors.Join(err, askErr)
}

func readPolicies(ctx context.Context, client *queue.Client, into *book.Book) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	loaded := false
	err := client.WatchPolicies(ctx, into.Apply, func() {
		into.Loaded()
		loaded = true
		cancel()
	}, nil)
	if loaded {
		return nil
	}
	return fmt.Errorf("reading the policies: %w", err)
}

func listProjects(ctx context.Context, cfg *config.Receiver) ([]string, error) {
	dialer, err := egress.NewDialer(egress.Config{Resolver: cfg.Egress.Resolver})
	if err != nil {
		return nil, err
	}
	h := cfg.Harbor
	transport, err := egress.NewTransport(dialer, h.CAFile)
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	client, err := harbor.New(harbor.Config{
		URL: h.URL, Username: h.Username, SecretFile: h.SecretFile, Timeout: h.Timeout, Transport: transport,
	})
	if err != nil {
		return nil, err
	}
	projects, err := client.AllProjects(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(projects))
	for i, p := range projects {
		names[i] = p.Name
	}
	return names, nil
}
