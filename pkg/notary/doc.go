// Package notary makes the ledger tamper evident: its events are the leaves of a Merkle log, whose checkpoints are signed with the
// ledger key, recorded in the ledger itself, and sent to a second place.
//
// # The log
//
// The leaves are all events of one harbor, readable or not, in the order of the stream, hashed as RFC 6962 says. A checkpoint covers
// all of them up to a sequence. The logs of one ledger are numbered: a ledger that was restored, made anew, or that has gone back
// begins another epoch with a signed event, whose log begins right behind the last checkpoint that this ledger still holds.
//
// # What it guarantees
//
//   - An event that was changed, removed, inserted or moved after a checkpoint covered it is found by [Verify], by whoever holds the
//     public key: with its sequence where the leaves are kept in a database, else between which checkpoints.
//   - A ledger that went back is found by whoever knows a later checkpoint: the database, the second place, or a file.
//   - A [Notary] signs only a tree that extends the newest checkpoint that it knows of, from any of these.
//   - Several receivers agree without an election: who comes second in a slot of time records nothing.
//   - A crash at any point costs at most the checkpoint of one slot.
//
// # What it does not do
//
// Events of the last slot are covered by no checkpoint yet. Who has the ledger key, the stream, and every other place can write
// history anew: keep the second place out of their reach. Events that have expired cannot be verified: the first checkpoint that
// is left is the base for the ones behind it, and whether old events expired or were removed cannot be told apart.
package notary
