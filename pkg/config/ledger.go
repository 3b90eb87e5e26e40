package config

import (
	"net/url"
	"regexp"
	"time"
)

// leastRetention is a year.
//
// SPEC: PCI DSS 4.0, 10.5.1: audit logs are kept for at least 12 months.
const leastRetention = 365 * 24 * time.Hour

func (l Ledger) check(p *problems) {
	p.oneOf("ledger.database", string(l.Database), string(DatabaseSQLite), string(DatabasePostgres))
	switch l.Database {
	case DatabasePostgres:
		l.Postgres.check(p)
	default:
		p.path("ledger.sqlite.path", l.SQLite.Path)
		if l.Postgres.Address != "" {
			p.add("ledger.database", "want postgres beside ledger.postgres.address")
		}
	}
	p.between("ledger.max_age", l.MaxAge, time.Hour, 100*365*24*time.Hour)
	if l.MaxAge >= time.Hour && l.MaxAge < leastRetention && !l.AllowShortRetention {
		p.add("ledger.max_age", "want at least 8760h (365 days), for which audit logs are to be kept (PCI DSS 10.5.1), "+
			"or ledger.allow_short_retention: true beside less")
	}
	l.Checkpoint.check(p)
}

func (d Postgres) check(p *problems) {
	if p.required("ledger.postgres.address", d.Address) {
		p.host("ledger.postgres.address", d.Address)
	}
	p.required("ledger.postgres.name", d.Name)
	p.required("ledger.postgres.username", d.Username)
	// It becomes part of statements, as names cannot be parameters.
	if !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`).MatchString(d.Schema) {
		p.add("ledger.postgres.schema", "want 1 to 40 of a-z, 0-9 and _, and no digit first")
	}
	p.count("ledger.postgres.max_connections", d.MaxConnections, 2, 1000)
	p.pair("ledger.postgres.tls", "cert_file", d.TLS.CertFile, "key_file", d.TLS.KeyFile)
	if d.AllowPlaintext && d.TLS.Enabled() {
		p.add("ledger.postgres.allow_plaintext", "exclude ledger.postgres.tls: set one of them")
	}
}

func (c Checkpoint) check(p *problems) {
	p.between("ledger.checkpoint.interval", c.Interval, time.Second, time.Hour)
	p.between("ledger.checkpoint.verify_interval", c.VerifyInterval, time.Minute, 31*24*time.Hour)
	p.texts("ledger.checkpoint.verifier_keys", c.VerifierKeys)
	if !c.Enabled() && (c.File != "" || c.Webhook.URL != "") {
		p.add("ledger.checkpoint.key_file", "is required beside file and webhook: `receiver ledger new-key` makes one")
	}
	if c.Webhook.URL == "" {
		if c.Webhook.SecretFile != "" || c.Webhook.CAFile != "" {
			p.add("ledger.checkpoint.webhook.url", "is required beside secret_file and ca_file")
		}
		return
	}
	if u, err := url.Parse(c.Webhook.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		p.add("ledger.checkpoint.webhook.url", "want the address of a web page without credentials, such as https://vault.example.com/checkpoints")
	}
	p.required("ledger.checkpoint.webhook.secret_file", c.Webhook.SecretFile)
}
