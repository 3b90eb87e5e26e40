// Package queue is the adapter to NATS JetStream: the ledger of what happened, the work queues of requests and of log entries
// that are owed, the dead letters, the ticks of recurring work and how far it has come, the signatures that are about to be attached, and the
// policies of projects. Beside JetStream, it lets programs ask each other and count each other. It is the only package that
// knows NATS, as a client and as the embedded server.
//
// It guarantees:
//   - What a publishing method reports as done is stored: synced to disk by the embedded server, held by a majority of the
//     replicas in a cluster whose servers sync.
//   - A request waits at most once: as long as one of the same reference, harbor and lane is stored, whether it waits, is
//     worked on or waits to be tried again, another is reported as a duplicate.
//   - A request is handed out again until it was acknowledged by [Delivery.Done] or moved to the dead letters by
//     [Delivery.Bury]. It may be handed out twice, even to two programs at once: whoever works on it must be idempotent.
//   - The ledger is append-only: the server refuses deletes and purges, and a full ledger refuses new events instead of
//     dropping old ones. Its age limit alone removes events.
//   - A policy, and a state of recurring work, is changed only by who knows its last revision. Whoever watches the policies
//     ends with those that are stored, whatever happened to the connection or the server meanwhile.
//   - A project with a cap never has more requests in work in one program, and holds up nobody else while it waits, as
//     long as no more than a thousand of its requests wait in front of them in their partition.
//   - A request that steps aside ([Delivery.Aside]) holds no slot and keeps its deadline; there are never more requests in
//     work than slots and places aside, and none of them waits for ever for another one.
//   - Of all signatures that [Client.Keep] was given for one digest, format, key and stage within two hours, it gives out one.
//
// It assumes that NATS accepts its account and rights, that all programs of an installation use the same harbor name, and
// that the number of partitions never changes: it is part of the key by which duplicates are found.
//
// Questions and answers, and the count of the programs that are there, are not stored: a question may get no answer, and the
// count is right within seconds.
//
// It does not retry a publish or decide what a failure means for a request, and records no events on its own, except that
// a request was given up that it cannot read. Errors of the methods that publish or ask carry a fault.
package queue

// The streams. Their names and subjects are the same for every installation; the harbor is a token of the subject.
const (
	streamSign   = "SIGN"
	streamDebt   = "DEBT"
	streamLedger = "LEDGER"
	streamDead   = "DEAD"
	streamScan   = "SCAN"
	streamKept   = "KV_SIGNATURES"
	streamPolicy = "KV_POLICIES"
	streamSweep  = "KV_SWEEPS"
)

// schemaVersion is the version of subjects, envelopes and stream settings that this program knows.
const schemaVersion = 1

// schemaKey is the key of the schema version in the metadata of streams and consumers.
const schemaKey = "harborseal_schema"
