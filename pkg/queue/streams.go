package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// stream is one stream and what this program wants of it. A setting that apply does not touch stays as it is, so that an
// operator may add one.
type stream struct {
	name  string
	apply func(*jetstream.StreamConfig)
	// consumers are those that are there from the beginning.
	consumers []func(*jetstream.ConsumerConfig)
}

func (c *Client) streams() []stream {
	var sign []func(*jetstream.ConsumerConfig)
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		for part := range Partitions {
			sign = append(sign, c.applySignConsumer(lane, part))
		}
	}
	return []stream{
		{streamSign, c.applySign, sign},
		{streamDebt, c.applyDebt, []func(*jetstream.ConsumerConfig){c.applyDebtConsumer}},
		{streamLedger, c.applyLedger, nil},
		{streamDead, c.applyDead, nil},
		{streamScan, c.applyScan, []func(*jetstream.ConsumerConfig){c.applyReceiverTicks}},
		{streamKept, c.applyKept, nil},
		{streamPolicy, c.applyPolicy, nil},
		{streamSweep, c.applySweep, nil},
	}
}

// applyCommon sets what all streams share. Replicas are never reduced: another program may know of a larger cluster.
func (c *Client) applyCommon(cfg *jetstream.StreamConfig, subject string) {
	cfg.Subjects = []string{subject}
	cfg.Storage = jetstream.FileStorage
	cfg.Replicas = max(cfg.Replicas, c.cfg.Replicas)
	cfg.Metadata = withSchema(cfg.Metadata)
}

// applySign makes the stream refuse a second request of a subject. It sets no limit on messages or bytes, because the
// answer would have the same error code as that of a duplicate: the server's limit is the store's.
func (c *Client) applySign(cfg *jetstream.StreamConfig) {
	c.applyCommon(cfg, "sign.>")
	cfg.Description = "requests to sign a digest, one per digest and lane"
	cfg.Retention = jetstream.WorkQueuePolicy
	cfg.MaxMsgsPerSubject = 1
	cfg.Discard = jetstream.DiscardNew
	cfg.DiscardNewPerSubject = true
}

// applyDebt is like applySign.
func (c *Client) applyDebt(cfg *jetstream.StreamConfig) {
	c.applyCommon(cfg, "debt.>")
	cfg.Description = "signatures whose entry in a transparency log is still to be made, one per digest"
	cfg.Retention = jetstream.WorkQueuePolicy
	cfg.MaxMsgsPerSubject = 1
	cfg.Discard = jetstream.DiscardNew
	cfg.DiscardNewPerSubject = true
}

// applyLedger never shortens the age: that would delete events, which nothing else can.
func (c *Client) applyLedger(cfg *jetstream.StreamConfig) {
	existed := cfg.Name != ""
	c.applyCommon(cfg, ledgerSubjects)
	cfg.Description = "what happened to each digest; append-only"
	cfg.Retention = jetstream.LimitsPolicy
	cfg.Discard = jetstream.DiscardNew
	if limit := c.cfg.Limits.LedgerMaxBytes; limit != 0 || !existed {
		cfg.MaxBytes = orDefault(limit, -1)
	}
	cfg.MaxAge = ageOf(existed, cfg.MaxAge, c.cfg.Limits.LedgerMaxAge, defaultLedgerMaxAge)
	cfg.Metadata = withLongestAge(cfg.Metadata, cfg.MaxAge)
	// Both would drop events.
	cfg.MaxMsgs, cfg.MaxMsgsPerSubject = -1, -1
	cfg.Duplicates = ledgerDuplicates
	// Compressed blocks are lost when a server is killed at the wrong moment; see docs/decisions/0012. A server that compressed
	// goes on doing so until it is started again.
	cfg.Compression = jetstream.NoCompression
	cfg.DenyDelete = true
	cfg.DenyPurge = true
	// How programs read it that may make no consumer; see pages. What has to be the newest is asked of the leader all the same.
	cfg.AllowDirect = true
	cfg.RePublish = &jetstream.RePublish{Source: ledgerSubjects, Destination: storedPrefix + ledgerSubjects, HeadersOnly: true}
}

func (c *Client) applyDead(cfg *jetstream.StreamConfig) {
	c.applyCommon(cfg, "dead.>")
	cfg.Description = "requests that were given up, the newest of each digest"
	cfg.Retention = jetstream.LimitsPolicy
	cfg.MaxMsgsPerSubject = 1
	cfg.Discard = jetstream.DiscardOld
}

func (c *Client) applyScan(cfg *jetstream.StreamConfig) {
	existed := cfg.Name != ""
	c.applyCommon(cfg, "scan.>")
	cfg.Description = "ticks of recurring work, each stored once"
	cfg.Retention = jetstream.LimitsPolicy
	cfg.MaxMsgsPerSubject = 1
	cfg.Discard = jetstream.DiscardNew
	cfg.DiscardNewPerSubject = true
	cfg.MaxAge = ageOf(existed, cfg.MaxAge, c.cfg.Limits.ScanMaxAge, defaultScanMaxAge)
}

// applyKept makes what NATS calls a key-value bucket, SIGNATURES, so that its tools show it. Reads go to the leader, not to
// any replica: who lost the race must see the winner's. Setup never shortens the age.
func (c *Client) applyKept(cfg *jetstream.StreamConfig) {
	existed := cfg.Name != ""
	c.applyCommon(cfg, "$KV.SIGNATURES.>")
	cfg.Description = "signatures before they are attached, the first of each digest, format and key"
	cfg.Retention = jetstream.LimitsPolicy
	cfg.MaxMsgsPerSubject = 1
	cfg.Discard = jetstream.DiscardNew
	cfg.MaxAge = ageOf(existed, cfg.MaxAge, keepAge, keepAge)
	cfg.AllowDirect = false
	cfg.AllowRollup = true
	cfg.DenyDelete = true
}

// policyHistory is how many values of an entry the bucket of policies keeps: the most that NATS allows.
const policyHistory = 64

// applyPolicy makes the key-value bucket POLICIES. Its values cannot be purged: they are part of what an auditor asks for.
func (c *Client) applyPolicy(cfg *jetstream.StreamConfig) {
	c.applyBucket(cfg, "POLICIES", policyHistory)
	cfg.Description = "policies of projects, as admins and the configuration file want them, and what the service keeps about them"
	cfg.DenyPurge = true
	cfg.RePublish = &jetstream.RePublish{
		Source: policyPrefix + ".>", Destination: storedPrefix + storedPolicies + ".>", HeadersOnly: true,
	}
}

// applySweep makes the key-value bucket SWEEPS.
func (c *Client) applySweep(cfg *jetstream.StreamConfig) {
	c.applyBucket(cfg, "SWEEPS", 1)
	cfg.Description = "how far recurring work has come, to go on from there"
}

// applyBucket sets what both buckets share. Their values have no age. Reads go to the leader: who was told of a conflict
// must see what it was.
//
// Revisions are the stream's sequences. A new stream counts from the time of its creation in milliseconds, so that a bucket
// that is made anew goes on above all revisions of the one before: no old revision ever fits a new value.
func (c *Client) applyBucket(cfg *jetstream.StreamConfig, bucket string, history int64) {
	if existed := cfg.Name != ""; !existed {
		cfg.FirstSeq = uint64(max(1, time.Now().UnixMilli()))
	}
	c.applyCommon(cfg, "$KV."+bucket+".>")
	cfg.Retention = jetstream.LimitsPolicy
	cfg.MaxMsgsPerSubject = history
	cfg.Discard = jetstream.DiscardNew
	cfg.AllowDirect = false
	cfg.DenyDelete = true
}

// ageOf gives how long a stream keeps its messages: never for a shorter time than an existing one does, where 0 is for
// ever. A program that asks for nothing leaves an existing stream as it is.
func ageOf(existed bool, have, asked, fallback time.Duration) time.Duration {
	switch {
	case !existed:
		return orDefault(asked, fallback)
	case have == 0:
		return 0
	default:
		return max(have, asked)
	}
}

// signConsumer names the durable of one partition.
func signConsumer(harbor string, lane artifact.Lane, part int) string {
	return fmt.Sprintf("sign-%s-%s-%02d", harbor, lane, part)
}

// scanConsumer names the durable of one kind of ticks.
func scanConsumer(harbor, kind string) string { return "scan-" + harbor + "-" + kind }

// applySignConsumer makes the server hand a request out until it is acknowledged. Attempts and pending acknowledgements
// are not limited: an exhausted request would stay, invisible, and swallow every later one of its digest, and requests
// that wait to be tried again count as pending, so that one project's failures would stop its whole partition.
func (c *Client) applySignConsumer(lane artifact.Lane, part int) func(*jetstream.ConsumerConfig) {
	return func(cfg *jetstream.ConsumerConfig) {
		c.applyConsumer(cfg, signConsumer(c.cfg.Harbor, lane, part), signFilter(c.cfg.Harbor, lane, part), -1)
	}
}

// debtConsumer names the durable of all debts of a harbor.
func debtConsumer(harbor string) string { return "debt-" + harbor }

// applyDebtConsumer is like applySignConsumer, for all debts: nobody waits for one of them.
func (c *Client) applyDebtConsumer(cfg *jetstream.ConsumerConfig) {
	c.applyConsumer(cfg, debtConsumer(c.cfg.Harbor), debtFilter(c.cfg.Harbor), -1)
}

// applyScanConsumer makes the server hand out so many ticks at once, over all programs.
func (c *Client) applyScanConsumer(kind string, atOnce int) func(*jetstream.ConsumerConfig) {
	return func(cfg *jetstream.ConsumerConfig) {
		filter := fmt.Sprintf("scan.v1.%s.%s.>", c.cfg.Harbor, kind)
		c.applyConsumer(cfg, scanConsumer(c.cfg.Harbor, kind), filter, atOnce)
	}
}

// applyReceiverTicks makes the consumer of the ticks that receivers work on, because they may make none where they have an
// account of their own. How many may be out at once is left to receivers that may change it.
func (c *Client) applyReceiverTicks(cfg *jetstream.ConsumerConfig) {
	c.applyScanConsumer(receiverTicks, orDefault(cfg.MaxAckPending, receiverTicksAtOnce))(cfg)
}

func (c *Client) applyConsumer(cfg *jetstream.ConsumerConfig, name, filter string, maxAckPending int) {
	cfg.Name, cfg.Durable = name, name
	cfg.FilterSubject = filter
	cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	cfg.AckPolicy = jetstream.AckExplicitPolicy
	cfg.AckWait = c.cfg.AckWait
	cfg.MaxDeliver = -1
	cfg.MaxAckPending = maxAckPending
	cfg.MaxWaiting = orDefault(cfg.MaxWaiting, 512)
	cfg.InactiveThreshold = time.Duration(0)
	cfg.BackOff = nil
	cfg.Metadata = withSchema(cfg.Metadata)
}

func withSchema(metadata map[string]string) map[string]string {
	merged := map[string]string{schemaKey: strconv.Itoa(schemaVersion)}
	for key, value := range metadata {
		if key != schemaKey {
			merged[key] = value
		}
	}
	return merged
}

// isNewer says whether metadata was written by a newer program. An unreadable version counts as newer: it is not ours.
func isNewer(metadata map[string]string) bool {
	value, found := metadata[schemaKey]
	if !found {
		return false
	}
	version, err := strconv.Atoi(value)
	return err != nil || version > schemaVersion
}
