// Package failpoint lets a test kill the real program between two steps.
//
// [Hit] marks the place. In an ordinary build it is empty and inlined away, and no variable has any effect. In a build
// with the tag "failpoints" it compares its name with the variable [EnvPoint]:
//
//	HARBORSEAL_FAILPOINT="signing/after-attach=kill"     SIGKILL to the own process at the first hit
//	HARBORSEAL_FAILPOINT="signing/after-attach@3=kill"   at the third hit of this process
//	HARBORSEAL_FAILPOINT="signing/after-attach=block"    the goroutine that hits it waits for ever
//
// Several, separated by commas, may be set at once. If [EnvOnce] names a file, it is created before anything happens, and
// nothing happens where it exists already: a program that is started again with the same variables goes on. A value that
// cannot be read, and a name that is not declared, panic at the first hit of any failpoint, so that a typing error fails
// the test instead of passing it.
//
// [Now] is the clock of both programs. In a build with the tag, the file that [EnvClock] names moves it: it holds a duration
// such as "-90s", is read again each second, and moves nothing while it does not exist. A file is replaced by renaming another
// one over it.
package failpoint

// The variables that builds with the tag "failpoints" read, once, at the first hit or question.
const (
	EnvPoint = "HARBORSEAL_FAILPOINT"
	EnvOnce  = "HARBORSEAL_FAILPOINT_ONCE"
	EnvClock = "HARBORSEAL_CLOCK_FILE"
)

// The failpoints of one request in the signer, in the order in which it passes them.
const (
	SigningReceived      = "signing/received"       // the request was delivered
	SigningAfterDecide   = "signing/after-decide"   // the policy says sign
	SigningAfterManifest = "signing/after-manifest" // the manifest is read and described
	SigningAfterChildren = "signing/after-children" // the children of an index are enqueued
	SigningAfterLookup   = "signing/after-lookup"   // no valid signature was found
	SigningAfterSign     = "signing/after-sign"     // the signature's bytes exist
	SigningAfterKeep     = "signing/after-keep"     // they are stored, for whoever signs the same digest
	// The next three are passed where the policy asks for a timestamp, for a log entry, and for either.
	SigningAfterTimestamp  = "signing/after-timestamp"   // the timestamp is verified
	SigningAfterLog        = "signing/after-log"         // the log's entry is verified
	SigningAfterFinishKeep = "signing/after-finish-keep" // the signature is stored with them
	SigningAfterPayload    = "signing/after-payload"     // the payload blob is pushed
	SigningAfterAttach     = "signing/after-attach"      // the signature's manifest is put
	SigningAfterVerify     = "signing/after-verify"      // the signature was read back and verifies
	SigningAfterEvent      = "signing/after-event"       // the ledger acknowledged the event
	SigningAfterDebt       = "signing/after-debt"        // the queue acknowledged the debt, where there is one
	SigningAfterAck        = "signing/after-ack"         // the request is acknowledged
)

// The failpoints of one debt in the signer, in the order in which it passes them.
const (
	DebtReceived    = "debt/received"     // the debt was delivered
	DebtAfterLog    = "debt/after-log"    // the log's entry is verified
	DebtAfterAttach = "debt/after-attach" // the manifest with the entry is put
	DebtAfterVerify = "debt/after-verify" // it was read back and verifies
	DebtAfterEvent  = "debt/after-event"  // the ledger acknowledged that the debt is paid
	DebtAfterAck    = "debt/after-ack"    // the debt is acknowledged
)

// The failpoints of one webhook in the receiver, in the order in which it passes them.
const (
	ReceiverAfterRecord  = "receiver/after-record"  // the ledger acknowledged the received event
	ReceiverAfterEnqueue = "receiver/after-enqueue" // the queue acknowledged the request; no answer is sent yet
)

// Names gives all failpoints that exist, those of one program in the order in which a request passes them.
func Names() []string {
	return []string{
		SigningReceived, SigningAfterDecide, SigningAfterManifest, SigningAfterChildren, SigningAfterLookup,
		SigningAfterSign, SigningAfterKeep, SigningAfterTimestamp, SigningAfterLog, SigningAfterFinishKeep,
		SigningAfterPayload, SigningAfterAttach, SigningAfterVerify, SigningAfterEvent, SigningAfterDebt, SigningAfterAck,
		DebtReceived, DebtAfterLog, DebtAfterAttach, DebtAfterVerify, DebtAfterEvent, DebtAfterAck,
		ReceiverAfterRecord, ReceiverAfterEnqueue,
	}
}
