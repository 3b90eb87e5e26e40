package harness

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Config is a configuration file of a program, as nested mappings.
type Config = map[string]any

// Set puts a value into nested mappings, which are made where they are missing.
func Set(c Config, value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		below, ok := c[key].(Config)
		if !ok {
			below = Config{}
			c[key] = below
		}
		c = below
	}
	c[path[len(path)-1]] = value
}

// secret writes a new secret into a file that only its owner can read.
func (s *System) secret(name string) (path, value string, err error) {
	path, value = s.path(name), rand.Text()
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		return "", "", fmt.Errorf("writing a secret: %w", err)
	}
	return path, value, nil
}

func (s *System) path(name string) string { return filepath.Join(s.options.Dir, name) }

// write puts a configuration into a file. JSON is YAML, too.
func write(path string, c Config) error {
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// prepare makes all files of a system.
func (s *System) prepare(ctx context.Context) error {
	if err := os.MkdirAll(s.options.Dir, 0o700); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	var err error
	if s.keys = s.options.Keys; len(s.keys) > 0 {
		s.Keys = Keys{Public: s.keys[0].Public}
	} else {
		if s.Keys, err = GenerateKeys(ctx, s.options.Programs, s.options.Dir, "image"); err != nil {
			return err
		}
		s.keys = []Key{s.Keys.Entry("image")}
	}
	webhookFile, webhookSecret, err := s.secret("webhook.secret")
	if err != nil {
		return err
	}
	s.WebhookAuth = webhookSecret
	natsFile, _, err := s.secret("queue.password")
	if err != nil {
		return err
	}
	s.Token = rand.Text()
	sum := sha256.Sum256([]byte(s.Token))
	tokens := s.path("api.tokens")
	if err := os.WriteFile(tokens, []byte("auditor:"+hex.EncodeToString(sum[:])+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the tokens: %w", err)
	}
	robotFile := s.path("robot.secret")
	if err := os.WriteFile(robotFile, []byte(s.options.Site.Signer.Secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing a secret: %w", err)
	}
	master, err := s.masterSecret()
	if err != nil {
		return err
	}
	if err := writeLedgerKey(s.LedgerKey()); err != nil {
		return err
	}
	for _, p := range s.Receivers {
		receiver := s.receiverConfig(p, webhookFile, natsFile, tokens)
		if s.options.Managed {
			s.manage(receiver, master)
		}
		if s.options.EditReceiver != nil {
			s.options.EditReceiver(receiver)
		}
		if err := write(s.path(p.Name+".yaml"), receiver); err != nil {
			return err
		}
	}
	for i := range s.Signers {
		if err := write(s.path(s.Signers[i].Name+".yaml"), s.signerConfig(s.Signers[i], robotFile, natsFile)); err != nil {
			return err
		}
	}
	return nil
}

func (s *System) receiverConfig(receiver *Program, webhookFile, natsFile, tokens string) Config {
	o := s.options
	c := Config{
		"log":     Config{"format": "json", "level": "debug"},
		"ops":     Config{"listen": receiver.Ops},
		"harbor":  Config{"public_host": o.Site.Harbor.Host},
		"http":    Config{"listen": receiver.Listen, "allow_plain_http": true},
		"webhook": Config{"secret_files": []string{webhookFile}, "own_operators": []string{o.Site.Signer.Name}},
		"api":     Config{"tokens_file": tokens},
		"keys":    publicKeys(s.keys),
		"queue": Config{
			"ack_wait": o.AckWait.String(),
			"embedded": Config{
				"store_dir": s.path("nats"), "listen": s.nats, "max_store": "256MiB",
				"users": []Config{{"name": "signer", "password_file": natsFile}},
			},
		},
		"ledger":   Config{"sqlite": Config{"path": s.LedgerOf(receiver)}},
		"egress":   Config{"record_file": s.egress(receiver.Name)},
		"shutdown": Config{"drain": "10s"},
	}
	if !o.Older {
		Set(c, Config{"key_file": s.LedgerKey(), "file": s.Checkpoints(), "interval": "5s"}, "ledger", "checkpoint")
	}
	if o.NATS != nil {
		Set(c, s.queueElsewhere(receiver, natsReceiver), "queue")
	}
	if o.Probe != 0 {
		Set(c, o.Probe.String(), "probe", "interval")
	}
	if len(o.Enabled) > 0 {
		Set(c, append(o.Policies, Config{"projects": o.Enabled, "backfill": "all"}), "policies")
	}
	return c
}

// masterSecret writes the secrets that only receivers with an account in Harbor have, and gives the path of the master secret.
func (s *System) masterSecret() (string, error) {
	master := s.path("webhook-master.secret")
	if !s.options.Managed {
		return "", nil
	}
	if err := os.WriteFile(s.path("receiver-robot.secret"), []byte(s.options.Site.Receiver.Secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing a secret: %w", err)
	}
	if err := os.WriteFile(master, []byte(rand.Text()+rand.Text()+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing a secret: %w", err)
	}
	return master, nil
}

// manage gives a receiver an account in Harbor and a master secret in place of a secret for all projects.
func (s *System) manage(c Config, master string) {
	Set(c, s.options.Site.Harbor.URL, "harbor", "url")
	Set(c, s.options.Site.Receiver.Name, "harbor", "username")
	Set(c, s.path("receiver-robot.secret"), "harbor", "secret_file")
	Set(c, s.origin(), "webhook", "url")
	Set(c, []string{master}, "webhook", "master_secret_files")
	Set(c, []string{}, "webhook", "secret_files")
}

func (s *System) signerConfig(signer *Program, robotFile, natsFile string) Config {
	o := s.options
	c := Config{
		"log": Config{"format": "json", "level": "debug"},
		"ops": Config{"listen": signer.Ops},
		"harbor": Config{
			"url": o.Site.Harbor.URL, "public_host": o.Site.Harbor.Host,
			"username": o.Site.Signer.Name, "secret_file": robotFile,
		},
		"keys": signingKeys(s.keys),
		// Incremental sweeps would find what tests want a full one to find.
		"sweep": Config{"incremental": "1h", "full": o.Sweep.String(), "requests_per_second": 0},
		"queue": Config{
			"urls": []string{"nats://" + s.nats}, "username": "signer", "password_file": natsFile, "ack_wait": o.AckWait.String(),
		},
		"egress":   Config{"record_file": s.egress(signer.Name)},
		"shutdown": Config{"drain": "10s"},
	}
	if o.NATS != nil {
		Set(c, s.queueElsewhere(signer, natsOwner), "queue")
	}
	if o.Format != "" {
		Set(c, o.Format, "sign", "format")
	}
	if o.Probe != 0 {
		Set(c, o.Probe.String(), "probe", "interval")
	}
	if len(s.keys) > 1 {
		Set(c, s.keys[0].Name, "sign", "key")
	}
	if o.EditSigner != nil {
		o.EditSigner(c)
	}
	return c
}
