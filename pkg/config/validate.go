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
	p.harborName("harbor.name", c.Harbor.Name)
	if p.required("harbor.public_host", c.Harbor.PublicHost) {
		p.host("harbor.public_host", c.Harbor.PublicHost)
	}
	p.projects("projects", c.Projects)
	c.HTTP.check(p)
	p.nonEmptyList("webhook.secret_files", c.Webhook.SecretFiles)
	p.texts("webhook.own_operators", c.Webhook.OwnOperators)
	checkPublicKeys(c.Keys, p)
	c.Queue.check(p)
	p.path("ledger.sqlite.path", c.Ledger.SQLite.Path)
	p.between("ledger.max_age", c.Ledger.MaxAge, time.Hour, 100*365*24*time.Hour)
	if c.Queue.Embedded.Enabled && c.Ledger.MaxBytes > c.Queue.Embedded.MaxStore {
		p.add("ledger.max_bytes", "want no more than queue.embedded.max_store")
	}
	c.Shutdown.check(p)
}

// complete implements load's last step.
func (c *Signer) complete(given map[string]any, p *problems) {
	c.Log.check(p)
	p.listen("ops.listen", c.Ops.Listen)
	c.Harbor.complete(p)
	p.projects("projects", c.Projects)
	active := c.completeKeys(given, p)
	c.completeTerms(active, p)
	p.count("sign.concurrency", c.Sign.Concurrency, 1, 1024)
	p.between("sign.max_age", c.Sign.MaxAge, time.Minute, 30*24*time.Hour)
	p.between("sweep.interval", c.Sweep.Interval, time.Second, 24*time.Hour)
	p.count("sweep.page_size", c.Sweep.PageSize, 1, 100)
	if len(c.Queue.URLs) == 0 {
		p.add("queue.urls", "is required")
	}
	c.Queue.check(p)
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
	if strings.ContainsFunc(h.UserAgent, func(r rune) bool { return r < ' ' || r > '~' }) {
		p.add("harbor.user_agent", "want printable ASCII")
	}
	p.between("harbor.timeout", h.Timeout, time.Second, 10*time.Minute)
}

func (h HTTP) check(p *problems) {
	p.listen("http.listen", h.Listen)
	p.pair("http.tls", "cert_file", h.TLS.CertFile, "key_file", h.TLS.KeyFile)
	if !h.TLS.Enabled() && h.TLS.KeyFile == "" && !h.AllowPlainHTTP {
		p.add("http.tls", "cert_file and key_file are required, unless http.allow_plain_http is true")
	}
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
	if !e.Enabled {
		return
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
	names := make(map[string]bool)
	for i, user := range e.Users {
		at := entry("queue.embedded.users", i)
		p.unique(at+".name", user.Name, names)
		p.required(at+".password_file", user.PasswordFile)
	}
	if len(e.Users) == 0 {
		p.add("queue.embedded.users", "want at least one, for the signers")
	}
}

func (p *problems) projects(path string, patterns []string) {
	for i, pattern := range patterns {
		if _, err := policy.NewSet(policy.SetConfig{Projects: []string{pattern}}); err != nil {
			p.add(entry(path, i), "want the name of a Harbor project, or a glob such as team-*")
		}
	}
}
