// Package enroll enables projects for signing, and keeps true in Harbor what their policies say. It runs in the receiver.
//
// A change of a policy takes several steps, of which the first decides: the policy's document is put with compare-and-set.
// All that follows (the event, the state, Harbor's webhook, the full sweep) can be derived from it, is safe to repeat, and
// is done by whoever comes next: the repetition of the call, or the drift check, which compares Harbor with the policies
// every few minutes. So a crash between any two steps loses nothing; [Service.Put] says what it means at each of them.
//
// It guarantees that
//   - every change of a policy becomes exactly one event with who, when, before, after and from where: the bucket's history
//     is the journal from which a missing event is recorded later, under the same id;
//   - of two changes at the same time one is refused;
//   - a project has one webhook of ours, and the webhooks of others are never touched. Ours is the one whose id the state
//     holds, or that has our name and our address;
//   - a webhook's secret counts before Harbor is told it, so that no delivery is refused for a secret that is right;
//   - nothing is concluded while Harbor does not answer.
//
// It assumes that the caller has checked who may ask (package access), and that the bucket keeps the documents' history: of
// changes that no receiver was up to record, those of the last 64 of a project become events.
//
// It does not sign, sweep or decide about an image: signers read the same policies, and act on them whether a receiver runs
// or not.
package enroll

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// Defaults.
const (
	defaultInterval = 5 * time.Minute
	// thoroughEvery is how many drift checks of a project pass for one that asks for all rights, which takes more requests
	// than everything else.
	defaultThoroughEvery = 12
)

// Config is what a Service needs. Fields without a default in their comment are required.
type Config struct {
	// HarborName names the Harbor; it is a part of every webhook secret.
	HarborName string
	// Harbor, with the receiver's robot account. Nil if the receiver has none: then nothing is enabled through the API, and
	// webhooks are nobody's business here.
	Harbor Harbor
	// As gives Harbor with the credentials of a caller. Required with Harbor.
	As func(authorization string) Caller
	// Account is the name of the receiver's robot account, for people.
	Account string
	Queue   Queue
	// Book is the live view of the policies' bucket.
	Book *book.Book
	// WebhookURL is the origin by which Harbor reaches the receiver, such as https://harborseal.example.com. Required with
	// Harbor.
	WebhookURL string
	// MasterFiles hold one master secret each, of at least 32 bytes, from which the webhooks' secrets are derived: new ones
	// from the first, and those from all of them count. At least one with Harbor. They are read at New.
	MasterFiles []string
	// Interval is the time between two drift checks of a project. Default: 5 min.
	Interval time.Duration
	// ThoroughEvery is how many drift checks of a project pass for one that asks for all rights. Default: 12.
	ThoroughEvery int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger gets one line for each change and each drift. The zero value drops it.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Service does it. It is safe for concurrent use, also by several programs on one bucket.
type Service struct {
	cfg     Config
	masters []master
	address string // of webhooks, without the project

	// declared are the policies of the configuration file; nil before they were declared.
	declared atomic.Pointer[policy.Declared]
	// hurry says that the next round of drift checks is due at once.
	hurry atomic.Bool

	listing listing
	limits  sweepLimits

	mu       sync.Mutex
	recorded map[string]uint64 // guarded by mu; by project, the revision up to which all changes are in the ledger
	listed   []string          // guarded by mu; the projects that were looked at in the last round
}

// New validates cfg and reads the master secrets. It connects to nothing and starts nothing.
func New(cfg Config) (*Service, error) {
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.ThoroughEvery == 0 {
		cfg.ThoroughEvery = defaultThoroughEvery
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	masters, err := readMasters(cfg.MasterFiles)
	if err := errors.Join(cfg.validate(), err); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	s := &Service{
		cfg: cfg, masters: masters, address: strings.TrimRight(cfg.WebhookURL, "/") + "/webhooks/harbor/",
		recorded: map[string]uint64{}, listing: listing{turn: make(chan struct{}, 1)},
		limits: sweepLimits{ofProject: map[string]*rate.Limiter{}},
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(newProblemCollector(s)); err != nil {
			return nil, fmt.Errorf("enroll: registering the metrics: %w", err)
		}
	}
	return s, nil
}

func (c Config) validate() error {
	var errs []error
	if c.HarborName == "" {
		errs = append(errs, errors.New("the Harbor has no name"))
	}
	if c.Queue == nil || c.Book == nil {
		errs = append(errs, errors.New("queue and book are required"))
	}
	if c.Interval < 0 || c.ThoroughEvery < 0 {
		errs = append(errs, errors.New("interval and thorough checks: want positive numbers"))
	}
	if c.Harbor == nil {
		return errors.Join(errs...)
	}
	if c.As == nil {
		errs = append(errs, errors.New("Harbor with a caller's credentials is missing"))
	}
	if len(c.MasterFiles) == 0 {
		errs = append(errs, errors.New("no file with a master secret for webhooks is configured"))
	}
	u, err := url.Parse(c.WebhookURL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.RawQuery != "" || u.User != nil {
		errs = append(errs, errors.New("webhook url: want https://host[:port] by which Harbor reaches this receiver"))
	}
	return errors.Join(errs...)
}
