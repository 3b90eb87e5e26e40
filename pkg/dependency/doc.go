// Package dependency watches what a program depends on, keeps work away from what does not answer, and records each outage.
//
// A [Monitor] guarantees that a dependency that stops answering is seen within one interval and one timeout, 25 s by default: each
// probe resolves the name anew, connects anew, and makes a real call, however many pooled connections still work. One failed probe
// is an outage. Its record is made at once, and a second one when the dependency has answered twice in a row; both are repeated
// until the ledger takes them, in their order. A [Breaker] guarantees that a dependency that fails again and again is asked by one
// request at a time, at intervals, until one succeeds, or a probe does.
//
// It assumes that calls end when their context does, and that their errors hold no secret. It decides nothing about a digest, and
// restarts nothing. An outage that a killed program has seen has no second record; records that the ledger has not taken when the
// program ends are lost.
package dependency
