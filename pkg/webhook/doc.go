// Package webhook takes Harbor's reports of pushes over HTTP and hands them to the queue.
//
// It guarantees that
//   - nothing of a request's body is read before its Authorization header was accepted, for the project of the path;
//   - 202 is answered only after the queue has acknowledged all that follows from the delivery, or if nothing follows from
//     it, and then with the reason;
//   - a repeated delivery, in either of Harbor's formats, has the same event id as the first, so that repeating is harmless;
//   - a project's pushes beyond its budget wait in the bulk lane, so that a flood delays nobody but its own project;
//   - what is in hand is bounded, in all and for each project, but ten deliveries of each project are taken whatever the others
//     do; a bounded number of others waits, for 1.5 s at most, and projects take turns;
//   - a queue that failed is asked by one delivery at a time, and the others are refused at once, until the first success;
//   - every answer is given within 3 s, which is as long as Harbor waits, provided that the queue and the policies keep to
//     the deadline of their contexts.
//
// What follows from a delivery goes through a [Door], which others share who ask by the API: with the same policies, budgets, records
// and queue.
//
// It assumes that Harbor repeats what is not answered with 2xx (three attempts in all), and that a sweep finds what Harbor
// gives up on: nothing is kept here. It does not believe a delivery beyond its repository and digest, which it validates;
// tag, pusher and time are notes for the ledger, and resource_url is never read, let alone dialled.
package webhook
