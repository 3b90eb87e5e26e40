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
	// answerTimeout is when all that a delivery waits for has to end, after its header: a bit below the 3 s that Harbor waits.
	answerTimeout = 2900 * time.Millisecond
	// Within it, secrets, which are known in memory, a place, and a body, which comes in the packet of its header or just
	// behind it, have to come so early that a queue that is well has the time to publish.
	secretsTimeout = 100 * time.Millisecond
	maxWait        = 1500 * time.Millisecond
	bodyTimeout    = 800 * time.Millisecond
	// lateBodyTimeout is for a body that had all the time of the waiting to come, and for what nobody wants any more, of which
	// maxDiscarded bytes are read at most.
	lateBodyTimeout = 50 * time.Millisecond
	maxDiscarded    = 16 << 10
	// defaultPerSecond and defaultBurst are a project's budget in the live lane: far above what a team pushes by hand, far
	// below the 600 pushes at once of a pipeline that went wrong.
	defaultPerSecond = 5
	defaultBurst     = 50
	// harborWorkers is how many deliveries one Harbor makes at once: its job service has ten workers. As many of each project
	// are never refused for what else is in hand.
	harborWorkers = 10
	// defaultMaxInHand and defaultMaxPerProject keep a synced store busy: it is no faster with more at once. They are few enough
	// for each to be answered in time by one that takes 100 pushes a second.
	defaultMaxInHand     = 128
	defaultMaxPerProject = 64
	// defaultMaxWaiting and defaultMaxWaitingPerProject are the waiting room: a store that takes 2,000 pushes a second serves
	// all of one project within maxWait, and a place for others is left.
	defaultMaxWaiting           = 4096
	defaultMaxWaitingPerProject = 3072
	// maxStrangers is how many secrets are looked at at once.
	maxStrangers = 32
	// What a 503 asks for, in seconds. Harbor reads none of them and waits 16 s at least; others do. A crowd passes within a
	// second, a leader is back within ten, and room is made by people, or by the signers as they go.
	retryBusy = "1"
	retryAway = "5"
	retryFull = "30"
)

// Policies tells what a project asks for. It must be safe for concurrent use and return when ctx ends.
type Policies interface {
	// Policy gives the project's policy as it is known now. A project that nobody enabled has a policy that is not enabled;
	// an error means that the policies are not known, and Harbor is told to try again. Nothing is written.
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// Secrets knows the secrets that belong to one project each. It must be safe for concurrent use, return when ctx ends, and
// tell by neither answer nor time whether a project is unknown or the value is wrong.
type Secrets interface {
	// Accepts says whether the value of an Authorization header is a secret of the project. An error means that it is not
	// known at the moment, and Harbor is told to try again; it holds no part of the value. Nothing is written.
	Accepts(ctx context.Context, project, authorization string) (bool, error)
	// Has says whether the project has a secret of its own: then no other one counts for it. The error is as that of Accepts.
	Has(ctx context.Context, project string) (bool, error)
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
	// SecretFiles name the files that each hold one value of the Authorization header that lets deliveries of any project in that
	// has no secret of its own: whoever may see one project's webhooks in Harbor knows it.
	// They are read again when they change. There may be none where Secrets is set.
	SecretFiles []string
	// Secrets knows what lets deliveries of one project in, at that project's address alone. It is asked after the files. Nil
	// leaves the files alone.
	Secrets Secrets
	// OwnOperators are the names of the signer's robot accounts as they stand in events, such as "robot$harborseal". What
	// they push by digest is taken for a signature.
	OwnOperators []string
	// HarborName names the Harbor in event ids; it must never change for one Harbor.
	HarborName string
	Policies   Policies
	Queue      Queue
	// Rate is the budget of each project's pushes in the live lane, where its policy names none: what goes beyond it waits in
	// the bulk lane. Default: 5 a second, 50 at once.
	Rate policy.Rate
	// PublishTimeout bounds everything that is asked of Policies and Queue for one delivery. At most 2 s, which is the
	// default.
	PublishTimeout time.Duration
	// MaxBody is the largest body in bytes. Default: 256 KiB.
	MaxBody int64
	// MaxInHand is how many deliveries are in hand at once; what comes beyond it waits. The first ten of each project, which is
	// what one Harbor sends at once, are taken all the same. Default: 128.
	MaxInHand int
	// MaxPerProject is the same for the deliveries of one project, at least 10. Default: 64.
	MaxPerProject int
	// MaxWaiting is how many deliveries wait at once to be taken in hand; what comes beyond it is answered with 503 at once, and
	// so is who has waited for 1.5 s. Default: 4,096.
	MaxWaiting int
	// MaxWaitingPerProject is the same for the deliveries of one project. Default: 3,072.
	MaxWaitingPerProject int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger gets one line for each decision. The zero value drops it.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Rate.PerSecond == 0 {
		c.Rate.PerSecond = defaultPerSecond
	}
	if c.Rate.Burst == 0 {
		c.Rate.Burst = defaultBurst
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = defaultPublishTimeout
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.MaxInHand == 0 {
		c.MaxInHand = defaultMaxInHand
	}
	if c.MaxPerProject == 0 {
		c.MaxPerProject = defaultMaxPerProject
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = defaultMaxWaiting
	}
	if c.MaxWaitingPerProject == 0 {
		c.MaxWaitingPerProject = defaultMaxWaitingPerProject
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
	if c.Rate.PerSecond < 0 || c.Rate.Burst < 0 {
		errs = append(errs, errors.New("rate: want positive numbers"))
	}
	if c.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("largest body %d: want a positive number of bytes", c.MaxBody))
	}
	if c.MaxInHand < 0 {
		errs = append(errs, fmt.Errorf("deliveries in hand %d: want a positive number", c.MaxInHand))
	}
	if c.MaxPerProject < harborWorkers {
		errs = append(errs, fmt.Errorf("deliveries of one project in hand %d: want at least %d, which is what Harbor sends at once", c.MaxPerProject, harborWorkers))
	}
	if c.MaxWaiting < 0 || c.MaxWaitingPerProject < 0 {
		errs = append(errs, fmt.Errorf("waiting deliveries %d, of one project %d: want positive numbers", c.MaxWaiting, c.MaxWaitingPerProject))
	}
	for i, name := range c.OwnOperators {
		if name == "" || bounded(name, maxPusher) != name {
			errs = append(errs, fmt.Errorf("own operator %d: %.64q is not the name of an account", i, name))
		}
	}
	return errors.Join(errs...)
}
