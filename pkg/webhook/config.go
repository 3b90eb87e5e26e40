package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Defaults and limits.
const (
	defaultPublishTimeout = 2 * time.Second
	maxPublishTimeout     = 2 * time.Second
	defaultMaxBody        = 256 << 10
	// bodyTimeout and maxPublishTimeout together stay below the 3 s that Harbor waits. A body comes in the packet of its
	// header, or just behind it.
	bodyTimeout = 800 * time.Millisecond
	// retryAfter is what a 503 asks for, in seconds. Harbor does not read it and waits 16 s at least; others do.
	retryAfter = "5"
)

// Policies tells what a project asks for. It must be safe for concurrent use and return when ctx ends.
type Policies interface {
	// Policy gives the project's policy as it is known now. A project that nobody enabled has a policy that is not enabled;
	// an error means that the policies are not known, and Harbor is told to try again. Nothing is written.
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// Queue takes what follows from a push. Both methods make one attempt, must be safe for concurrent use and return when ctx
// ends. They return without an error only after what they were given is stored durably. After an error it may be stored or
// not: Harbor repeats the delivery, which repeats both calls.
type Queue interface {
	// Record appends an event to the ledger and gives its sequence there. An event whose id the ledger has already may be
	// dropped; the sequence is then one at which the ledger holds the event.
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
	// Enqueue asks for one manifest. duplicate says that a request for the same manifest waits or is in work already, which
	// is as good.
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
}

// Config is what a handler needs. Fields without a default in their comment are required.
type Config struct {
	// SecretFiles name the files that each hold one value of the Authorization header that lets a delivery in. They are read
	// again when they change.
	SecretFiles []string
	// OwnOperators are the names of the signer's robot accounts as they stand in events, such as "robot$harborseal". What
	// they push by digest is taken for a signature.
	OwnOperators []string
	// HarborName names the Harbor in event ids; it must never change for one Harbor.
	HarborName string
	Policies   Policies
	Queue      Queue
	// Lane chooses the lane of a project's next push; it must be quick and safe for concurrent use. Default: always live.
	Lane func(project string) artifact.Lane
	// PublishTimeout bounds everything that is asked of Policies and Queue for one delivery. At most 2 s, which is the
	// default.
	PublishTimeout time.Duration
	// MaxBody is the largest body in bytes. Default: 256 KiB.
	MaxBody int64
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger gets one line for each decision. The zero value drops it.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Lane == nil {
		c.Lane = func(string) artifact.Lane { return artifact.Live }
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = defaultPublishTimeout
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.HarborName == "" {
		errs = append(errs, errors.New("the Harbor has no name"))
	}
	if c.Policies == nil {
		errs = append(errs, errors.New("no policies"))
	}
	if c.Queue == nil {
		errs = append(errs, errors.New("no queue"))
	}
	if c.PublishTimeout < 0 || c.PublishTimeout > maxPublishTimeout {
		errs = append(errs, fmt.Errorf("publish timeout %s: want more than 0 and at most %s, because Harbor waits 3s in all", c.PublishTimeout, maxPublishTimeout))
	}
	if c.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("largest body %d: want a positive number of bytes", c.MaxBody))
	}
	for i, name := range c.OwnOperators {
		if name == "" || bounded(name, maxPusher) != name {
			errs = append(errs, fmt.Errorf("own operator %d: %.64q is not the name of an account", i, name))
		}
	}
	return errors.Join(errs...)
}
