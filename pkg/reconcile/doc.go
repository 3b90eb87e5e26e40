// Package reconcile compares what Harbor's projects hold with what is signed, and asks for what is missing.
//
// It is the guarantee where webhooks are only the shortcut: Harbor loses webhooks. There are two kinds of work, each done by
// ticks that need no leader: every replica proposes each tick, the queue takes the first proposal and gives it to one worker.
//
//   - A full sweep lists all manifests of one project. Each ends in exactly one of: signed, asked for, waiting already, given
//     up (a dead letter), excluded, blocked, or unsigned and to be left so. It is due once in an interval, at a time of its own
//     that spreads projects over the interval; after a failure it is tried again at each of the 24 parts of the interval, and
//     so is one that somebody has asked for.
//   - A recent sweep looks at what was pushed since the last one, for the whole Harbor: in Harbor's feed of pushes where that
//     is to be had, else in each project's listing. It asks for what the ledger never heard of.
//
// # What it guarantees
//
// A sweep does not decide "signed" by the ledger's word. It recalls a check, made by the verifier that the signers use, only
// as long as Harbor lists the manifests that were checked then, the keys and formats still suffice, and nothing is listed
// beside them that was not looked at under the same keys. Else it checks for real and records the result, so that the next
// sweep need not. Without an answer of the ledger a sweep pauses: no answer never counts as "unknown".
//
// That a signature is gone is said only after Harbor was asked for that manifest once more, as of a place in the ledger from
// before: pages of the listing are older than what the ledger says. That a manifest is an accessory is what a signer has read:
// no tag and no account is believed, and what Harbor lists as an artifact is asked for once.
//
// Where Harbor's feed is to be had, recent sweeps record that Harbor itself tells of a push, and of who pushed: push_confirmed
// events, of those pushes for which the policy wants a signature. It is done last, asks Harbor nothing more unless a sweep before
// could not finish it, and no failure of it is one of the sweep.
//
// It writes changes only, and one summary. A sweep that is interrupted goes on at the page where it was. One worker that goes
// on itself has lost nothing; another one gives no digest of the population and looks for no manifests that are gone, and
// starts over where the policy's decisions depend on indexes that were seen before (tags, backfill). Whatever is repeated
// does no harm: requests are found to wait already, events have the same ids.
//
// A digest that is signed, and whose entry in a transparency log is still owed, is asked for among the debts at each full sweep:
// a debt that was lost is found again. The projects of canaries are not swept.
//
// A digest whose check fails, or panics, is asked for, and the signer looks for itself. Only failures that may be an outage
// end a sweep, after ten without an answer in between. Harbor's feed cannot be told from one that was switched off:
// therefore a sixtieth of the projects is listed at each recent sweep as well, an hour back, and if a push comes to light
// of which neither webhook nor feed has told, projects are listed at each recent sweep for an hour.
//
// # What it does not do
//
// It signs nothing. While signing is paused it goes on to look and to ask: requests wait in the queue. It does not look at
// Harbor's settings (package enroll does), nor for a signature manifest that Harbor lists, and that nothing refers to any
// more because somebody deleted its tag alone.
package reconcile
