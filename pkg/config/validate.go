package config

import (
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
)

// complete implements load's last step.
func (c *Receiver) complete(given map[string]any, p *problems) {
	if !isGiven(given, "queue", "embedded", "enabled") {
		c.Queue.Embedded.Enabled = len(c.Queue.URLs) == 0
	}
	c.Log.check(p)
	p.listen("ops.listen", c.Ops.Listen)
	c.Harbor.complete(p)
	checkPublicKeys(c.Keys, p)
	c.checkPolicies(p)
	p.between("drift.interval", c.Drift.Interval, time.Second, 24*time.Hour)
	c.HTTP.check(p)
	c.Webhook.check(c.Harbor.Managed(), p)
	p.texts("api.auditors", c.API.Auditors)
	c.Queue.check(p)
	p.count("api.max_waiting", c.API.MaxWaiting, 1, 100_000)
	c.Ledger.check(p)
	if c.Queue.Embedded.Enabled && c.Ledger.MaxBytes > c.Queue.Embedded.MaxStore {
		p.add("ledger.max_bytes", "want no more than queue.embedded.max_store")
	}
	c.Probe.check(p)
	c.Egress.check(p)
	c.Shutdown.check(p)
}

// complete implements load's last step.
func (c *Signer) complete(given map[string]any, p *problems) {
	c.Log.check(p)
	p.listen("ops.listen", c.Ops.Listen)
	c.Harbor.complete(p)
	seen := make(names)
	activeKeys := c.completeKeys(seen, given, p)
	activeLogs := c.checkLogs(seen, p)
	c.checkAuthorities(seen, p)
	c.completeSign(activeKeys, activeLogs, p)
	p.count("sign.concurrency", c.Sign.Concurrency, 1, 1024)
	p.count("sign.max_in_flight", c.Sign.MaxInFlight, 1, 1024)
	p.count("sign.log_concurrency", c.Sign.LogConcurrency, 1, 10_000)
	p.between("sign.max_age", c.Sign.MaxAge, time.Minute, 30*24*time.Hour)
	p.between("sweep.incremental", c.Sweep.Incremental, time.Second, time.Hour)
	p.between("sweep.full", c.Sweep.Full, time.Second, 31*24*time.Hour)
	p.count("sweep.page_size", c.Sweep.PageSize, 1, 100)
	p.count("sweep.requests_per_second", c.Sweep.RequestsPerSecond, 0, 10_000)
	c.Canary.check(c.Harbor.Username, p)
	if len(c.Queue.URLs) == 0 {
		p.add("queue.urls", "is required")
	}
	c.Queue.check(p)
	c.Probe.check(p)
	c.Egress.check(p)
	c.Shutdown.check(p)
}

// isGiven says whether the file or a variable has a value at the path.
func isGiven(tree map[string]any, path ...string) bool {
	var value any = tree
	for _, key := range path {
		mapping, ok := value.(map[string]any)
		if !ok {
			return false
		}
		value = mapping[key]
	}
	return value != nil
}

// givenEntry gives what the file and the variables say of one entry of a list; nil if that is no mapping.
func givenEntry(tree map[string]any, list string, i int) map[string]any {
	entries, _ := tree[list].([]any)
	if i >= len(entries) {
		return nil
	}
	mapping, _ := entries[i].(map[string]any)
	return mapping
}

func (l Log) check(p *problems) {
	p.oneOf("log.level", l.Level, "trace", "debug", "info", "warn", "error")
	p.oneOf("log.format", l.Format, "auto", "json", "console")
}

// check takes the account that signs.
func (c Canary) check(signs string, p *problems) {
	p.pair("canary", "username", c.Username, "secret_file", c.SecretFile)
	if c.Enabled() && c.Username == signs {
		p.add("canary.username", "want another account than harbor.username, whose own pushes sweeps look past")
	}
	p.between("canary.interval", c.Interval, 10*time.Second, 24*time.Hour)
}

func (c Probe) check(p *problems) {
	p.between("probe.interval", c.Interval, time.Second, 5*time.Minute)
}

func (e Egress) check(p *problems) {
	p.resolver("egress.resolver", e.Resolver)
}

func (s Shutdown) check(p *problems) {
	p.between("shutdown.drain", s.Drain, time.Second, 10*time.Minute)
}

func (h *Harbor) complete(p *problems) {
	p.harborName("harbor.name", h.Name)
	if p.required("harbor.url", h.URL) {
		host, ok := p.origin("harbor.url", h.URL)
		if ok && h.PublicHost == "" {
			h.PublicHost = host
		}
	}
	if h.PublicHost != "" {
		p.host("harbor.public_host", h.PublicHost)
	}
	for i, storage := range h.StorageOrigins {
		p.origin(entry("harbor.storage_origins", i), storage)
	}
	p.required("harbor.username", h.Username)
	p.required("harbor.secret_file", h.SecretFile)
	if h.UserAgent != "" && !strings.Contains(h.UserAgent, "cosign") {
		p.add("harbor.user_agent", `want the word "cosign" in it: Harbor's pull policy lets nobody else read what is not signed yet`)
	}
	if !isPrintable(h.UserAgent) {
		p.add("harbor.user_agent", "want printable ASCII")
	}
	p.between("harbor.timeout", h.Timeout, time.Second, 10*time.Minute)
}

// complete wants all that is needed to reach Harbor, or nothing of it.
func (h *ReceiverHarbor) complete(p *problems) {
	p.harborName("harbor.name", h.Name)
	if h.URL == "" {
		for key, value := range map[string]string{"username": h.Username, "secret_file": h.SecretFile, "ca_file": h.CAFile} {
			if value != "" {
				p.add("harbor.url", "is required beside %s", key)
			}
		}
		p.required("harbor.public_host", h.PublicHost)
	} else {
		host, ok := p.origin("harbor.url", h.URL)
		if ok && h.PublicHost == "" {
			h.PublicHost = host
		}
		p.required("harbor.username", h.Username)
		p.required("harbor.secret_file", h.SecretFile)
	}
	if h.PublicHost != "" {
		p.host("harbor.public_host", h.PublicHost)
	}
	p.between("harbor.timeout", h.Timeout, time.Second, 10*time.Minute)
}

// check wants a secret of one kind or of the other.
func (w Webhook) check(managed bool, p *problems) {
	p.texts("webhook.secret_files", w.SecretFiles)
	p.texts("webhook.own_operators", w.OwnOperators)
	if managed {
		p.nonEmptyList("webhook.master_secret_files", w.MasterSecretFiles)
		if p.required("webhook.url", w.URL) {
			p.origin("webhook.url", w.URL)
		}
	} else {
		p.nonEmptyList("webhook.secret_files", w.SecretFiles)
		if len(w.MasterSecretFiles) > 0 || w.URL != "" {
			p.add("harbor.url", "is required beside webhook.master_secret_files and webhook.url")
		}
	}
	if !(w.Rate.PerSecond > 0 && w.Rate.PerSecond <= 10_000) { // written so that NaN is none
		p.add("webhook.rate.per_second", "want more than 0 and at most 10000")
	}
	p.count("webhook.rate.burst", w.Rate.Burst, 1, 100_000)
}

func (h HTTP) check(p *problems) {
	p.listen("http.listen", h.Listen)
	p.pair("http.tls", "cert_file", h.TLS.CertFile, "key_file", h.TLS.KeyFile)
	if !h.TLS.Enabled() && h.TLS.KeyFile == "" && !h.AllowPlainHTTP {
		p.add("http.tls", "cert_file and key_file are required, unless http.allow_plain_http is true")
	}
	p.count("http.max_connections", h.MaxConnections, 64, 100_000)
	p.networks("http.trusted_proxies", h.TrustedProxies)
}

// check is for what both programs have.
func (q Queue) check(p *problems) {
	p.natsURLs("queue.urls", q.URLs)
	if q.Username != "" && q.CredentialsFile != "" {
		p.add("queue.credentials_file", "exclude queue.username: set one of them")
	}
	p.pair("queue", "username", q.Username, "password_file", q.PasswordFile)
	p.pair("queue.tls", "cert_file", q.TLS.CertFile, "key_file", q.TLS.KeyFile)
	if q.Replicas != 1 && q.Replicas != 3 && q.Replicas != 5 {
		p.add("queue.replicas", "want 1, 3 or 5")
	}
	p.between("queue.ack_wait", q.AckWait, time.Second, time.Hour)
}

func (q ReceiverQueue) check(p *problems) {
	q.Queue.check(p)
	e := q.Embedded
	switch {
	case e.Enabled && len(q.URLs) > 0:
		p.add("queue.urls", "exclude queue.embedded.enabled: the receiver runs its own server, or uses others")
	case !e.Enabled && len(q.URLs) == 0:
		p.add("queue.urls", "is required where queue.embedded.enabled is false")
	}
	if q.Account != Owner && q.Account != Imported {
		p.add("queue.account", "want owner or imported")
	}
	if !e.Enabled {
		return
	}
	if q.Account == Imported && len(q.URLs) == 0 {
		p.add("queue.account", "want owner: the embedded server has one account")
	}
	if q.Replicas != 1 {
		p.add("queue.replicas", "want 1: the embedded server is alone")
	}
	p.path("queue.embedded.store_dir", e.StoreDir)
	p.listen("queue.embedded.listen", e.Listen)
	if e.MaxStore < 64<<20 {
		p.add("queue.embedded.max_store", "want at least 64MiB")
	}
	p.pair("queue.embedded.tls", "cert_file", e.TLS.CertFile, "key_file", e.TLS.KeyFile)
	if e.TLS.ClientCAFile != "" && !e.TLS.Enabled() {
		p.add("queue.embedded.tls.client_ca_file", "needs cert_file and key_file")
	}
	seen := make(names)
	for i, user := range e.Users {
		at := entry("queue.embedded.users", i)
		seen.take(p, at+".name", "queue.embedded.users", user.Name)
		p.required(at+".password_file", user.PasswordFile)
	}
	if len(e.Users) == 0 {
		p.add("queue.embedded.users", "want at least one, for the signers")
	}
}

func (p *problems) projects(path string, patterns []string) {
	for i, pattern := range patterns {
		if policy.ValidatePattern(pattern) != nil {
			p.add(entry(path, i), "want the name of a Harbor project, or a glob such as team-*")
		}
	}
}
