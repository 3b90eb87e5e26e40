package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
)

// Options are what a system is made of. Programs, Dir, Site and Enabled are required.
type Options struct {
	Programs Programs
	// Dir is a folder for everything that the system writes; it is made.
	Dir  string
	Site *Site
	// Enabled are the projects, or globs, that are signed.
	Enabled []string
	// Managed lets the receiver see to webhooks and Harbor's accounts use the API: projects are enabled with API calls.
	Managed bool
	// Signers is how many signers there are; 0 means one.
	Signers int
	// NATS are the servers that hold the queue; nil means the receiver's embedded one.
	NATS *NATS
	// Receivers is how many receivers there are, behind one address; 0 means one. Several need NATS.
	Receivers int
	// Policies are entries of the receiver's policies that come before the one for Enabled.
	Policies []Config
	// AckWait, Sweep: see the keys of the configuration; Sweep is that of full ones. 0 means 3 s, and a month: no sweep but the
	// first.
	AckWait, Sweep time.Duration
	// Probe is the interval in which the programs ask what they depend on: theirs if it is 0. It is for tests that count requests.
	Probe time.Duration
	// Format is the signer's sign.format; empty leaves it out: one signature in each format where Harbor takes both.
	Format string
	// Keys are keys from elsewhere; none stands for a file that is made. The first one signs.
	Keys []Key
	// Queue is the address of a queue elsewhere, which the edited configurations name; empty for the embedded one.
	Queue string
	// Also are further destinations (host:port) that the edited configurations name.
	Also []string
	// Proxy is the proxy that all programs are told to use; nil for none.
	Proxy *Proxy
	// Older leaves out what receivers of before do not know: the ledger key.
	Older bool
	// Advertise is the origin by which Harbor reaches the receiver; empty means the loopback interface.
	Advertise string
	// EditReceiver and EditSigner change the configurations before they are written.
	EditReceiver, EditSigner func(Config)
}

// Program is a program of the system, whether it runs at the moment or not.
type Program struct {
	Name string
	// Ops is the address of the listener for health and metrics, Listen that of the receiver's other one.
	Ops, Listen string
	// Process is the last one that was started; nil if none was.
	Process *Process
	// Door is how the program reaches the servers of Options.NATS; nil without them.
	Door *Door
	path string
}

// Use makes the next start of the program one of another build.
func (p *Program) Use(path string) { p.path = path }

// System is its receivers, with an embedded queue or servers elsewhere, and its signers. It is for one goroutine, but for what
// only asks.
type System struct {
	// Receiver is the first of Receivers, of which URL, report and API are; Harbor's webhooks go to all in turn.
	Receiver  *Program
	Receivers []*Program
	Signers   []*Program
	// Keys are the files of the key that signs; Public alone if Options.Keys are given.
	Keys Keys
	// URL is the receiver's origin as this process reaches it; Token opens the report.
	URL, Token string
	// WebhookAuth is what Harbor must send as its Authorization header.
	WebhookAuth string

	options Options
	keys    []Key
	nats    string
	// front is where Harbor reaches several receivers; empty for one.
	front   string
	balance balancer
	client  *http.Client
	// report is how the report is asked for; nil means plainly.
	report http.RoundTripper
	// ended says that nothing may start any more.
	ended atomic.Bool
}

// NewSystem writes keys, secrets and configurations, and starts nothing.
func NewSystem(ctx context.Context, o Options) (*System, error) {
	o.Signers, o.Receivers = max(o.Signers, 1), max(o.Receivers, 1)
	if o.Receivers > 1 && o.NATS == nil {
		return nil, errors.New("several receivers need a queue that none of them embeds")
	}
	if o.AckWait == 0 {
		o.AckWait = 3 * time.Second
	}
	if o.Sweep == 0 {
		o.Sweep = 31 * 24 * time.Hour
	}
	s := &System{options: o, client: &http.Client{Transport: &http.Transport{}, Timeout: 15 * time.Second}}
	if err := s.place(ctx); err != nil {
		return nil, err
	}
	return s, s.prepare(ctx)
}

// Start starts all programs and waits until they are ready.
func (s *System) Start(ctx context.Context) error {
	if s.options.NATS == nil {
		for _, p := range s.all() {
			if err := s.StartProgram(ctx, p); err != nil {
				return err
			}
		}
		return nil
	}
	// Receivers may have to wait for what signers set up on the servers, and signers for what receivers declare.
	for _, p := range s.all() {
		if err := s.LaunchProgram(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range s.all() {
		if err := s.AwaitReady(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// StartProgram starts one program, with further variables, and waits until it is ready.
func (s *System) StartProgram(ctx context.Context, p *Program, env ...string) error {
	if err := s.LaunchProgram(ctx, p, env...); err != nil {
		return err
	}
	return s.AwaitReady(ctx, p)
}

// LaunchProgram starts one program and does not wait.
func (s *System) LaunchProgram(ctx context.Context, p *Program, env ...string) error {
	if s.ended.Load() {
		return fmt.Errorf("%w: the system was killed", errHopeless)
	}
	if err := s.startBalancer(ctx); err != nil {
		return err
	}
	base := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.options.Dir, "TMPDIR=" + os.Getenv("TMPDIR")}
	if s.options.Proxy != nil {
		// The one Harbor that is configured may be elsewhere; a loopback address never goes to a proxy.
		var hosts []string
		for _, address := range append([]string{hostOf(s.options.Site.Harbor.URL)}, s.options.Also...) {
			host, _, _ := net.SplitHostPort(address)
			hosts = append(hosts, host)
		}
		base = append(append(base, s.options.Proxy.Env()...), "NO_PROXY="+strings.Join(hosts, ","))
	}
	var err error
	p.Process, err = Launch(ctx, Command{
		Name: p.Name, Path: p.path, Args: []string{"--config", s.path(p.Name + ".yaml")},
		Env: append(base, env...), Log: s.path(p.Name + ".log"),
	})
	return err
}

// CheckConfig runs a program's check of its configuration, with further variables, and gives what it says.
func (s *System) CheckConfig(ctx context.Context, p *Program, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.path, "--check-config", "--config", s.path(p.Name+".yaml")) //nolint:gosec // a built program
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), wrap("checking the configuration", err)
}

// AwaitReady waits until a program says that it is ready.
func (s *System) AwaitReady(ctx context.Context, p *Program) error {
	limit := startLimit
	if s.options.NATS != nil {
		limit = healthLimit // Streams and consumers are made first, which takes a cluster some seconds, and many on a busy machine.
	}
	err := Until(ctx, limit, alive(p.Process, func(ctx context.Context) error {
		status, body, err := s.get(ctx, "http://"+p.Ops+"/readyz", "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s is not ready: %.300s", p.Name, body)
		}
		return err
	}))
	if err != nil {
		return fmt.Errorf("starting %s: %w\n%s", p.Name, err, p.Process.Tail())
	}
	return nil
}

// Stop ends all programs that run, signers first, and waits.
func (s *System) Stop() error {
	programs := s.all()
	slices.Reverse(programs)
	var errs []error
	for _, p := range programs {
		if p.Process != nil {
			errs = append(errs, p.Process.Stop())
		}
	}
	return errors.Join(append(errs, s.balance.close())...)
}

// Kill ends all programs that run, at once. It is for an interrupted run, beside whatever else uses the system.
func (s *System) Kill() {
	s.ended.Store(true)
	for _, p := range s.all() {
		if p.Process != nil {
			_ = p.Process.Kill()
		}
	}
	_ = s.balance.close()
}

func (s *System) all() []*Program { return slices.Concat(s.Receivers, s.Signers) }

// Tails gives the last lines of all programs' output.
func (s *System) Tails() string {
	var all strings.Builder
	for _, p := range s.all() {
		if p.Process != nil {
			all.WriteString(p.Process.Tail())
		}
	}
	return all.String()
}

// AddWebhook makes a project's webhook policy, in Harbor's format Default or CloudEvents.
func (s *System) AddWebhook(ctx context.Context, project, format string) (*Webhook, error) {
	w := &Webhook{
		Name: Random("harborseal-"), Project: project, Address: s.WebhookAddress(project), AuthHeader: s.WebhookAuth, Format: format,
	}
	return w, s.options.Site.Harbor.CreateWebhook(ctx, w)
}

// Report is the report of this system.
func (s *System) Report() checker.Report {
	return checker.Report{URL: s.URL, Token: s.Token, Transport: s.report}
}

// TrustTLS lets the report be asked for over TLS, with a certificate that the pool trusts.
func (s *System) TrustTLS(pool *x509.CertPool) {
	s.report = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
}

// Checker judges by the key and the formats in which this system signs, with the developer's credentials.
func (s *System) Checker(ctx context.Context) (*checker.Checker, error) {
	formats, err := s.Formats(ctx)
	if err != nil {
		return nil, err
	}
	return s.CheckerOf(s.Keys.Public, formats...)
}

// CheckerOf judges by any public key and any formats, none for all, with the developer's credentials.
func (s *System) CheckerOf(public string, formats ...checker.Format) (*checker.Checker, error) {
	text, err := os.ReadFile(public) //nolint:gosec // a key that the caller names
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	key, err := checker.ParseKey(text)
	if err != nil {
		return nil, err
	}
	site := s.options.Site
	access := checker.Access{URL: site.Harbor.URL, Username: site.Developer.Name, Password: site.Developer.Secret}
	return checker.New(checker.NewRegistry(access), site.Harbor.Host, key, formats...), nil
}

// Formats gives the formats in which this system signs what no policy of its own speaks of.
func (s *System) Formats(ctx context.Context) ([]checker.Format, error) {
	switch s.options.Format {
	case "", "auto":
		both, err := s.options.Site.Harbor.Bundles(ctx)
		if err != nil {
			return nil, err
		}
		if !both {
			return []checker.Format{checker.Legacy}, nil
		}
		return checker.Formats(), nil
	case "both":
		return checker.Formats(), nil
	default:
		return []checker.Format{checker.Format(s.options.Format)}, nil
	}
}

// QueueURL is where the queue listens; several addresses are separated by commas.
func (s *System) QueueURL() string {
	if s.options.NATS != nil {
		return s.options.NATS.URL()
	}
	return "nats://" + s.nats
}

// QueuePassword is the file with the password of the queue's user "signer".
func (s *System) QueuePassword() string {
	if s.options.NATS != nil {
		return s.options.NATS.PasswordFile(natsOwner)
	}
	return s.path("queue.password")
}

// StoreDir is the folder of the embedded queue.
func (s *System) StoreDir() string { return s.path("nats") }

// LedgerPath is the database of the first receiver's report.
func (s *System) LedgerPath() string { return s.path("ledger.db") }

// LedgerKey is the file of the ledger key, and Checkpoints the second place of the checkpoints.
func (s *System) LedgerKey() string { return s.path("ledger.pem") }

// Checkpoints is the file to which the receivers append their checkpoints.
func (s *System) Checkpoints() string { return s.path("checkpoints.jsonl") }

func (s *System) egress(program string) string { return s.path(program + ".egress") }

// Foreign gives the destinations that the system's programs dialled although they are not configured.
func (s *System) Foreign() ([]string, error) {
	configured := []string{hostOf(s.options.Site.Harbor.URL), s.nats}
	if s.options.Queue != "" {
		configured = append(configured, hostOf(s.options.Queue))
	}
	configured = append(configured, s.options.Also...)
	for _, p := range s.all() {
		configured = append(configured, p.Door.addresses()...)
	}
	for _, key := range s.keys {
		if key.Address != "" {
			configured = append(configured, key.Address)
		}
	}
	var foreign []string
	for _, p := range s.all() {
		some, err := Foreign(s.egress(p.Name), configured)
		if err != nil {
			return nil, err
		}
		foreign = append(foreign, some...)
	}
	return foreign, nil
}
