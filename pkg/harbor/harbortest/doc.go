// Package harbortest is a Harbor registry in memory, for tests, demonstrations and benchmarks.
//
// It is a real HTTP server (loopback, any free port) that answers as a recorded Harbor v2.15.2 does: the REST API
// under /api/v2.0, the token service under /service/token, the OCI registry under /v2, and webhooks that are delivered
// with Harbor's payloads, its ten workers, its polling delays and its three attempts. What Harbor's own API can do is
// set up through that API: projects, members, robots, webhook policies. Only what no Harbor has, injected faults and
// counters, has a control surface of its own: SetFaults and Stats, or over HTTP under /_emulator/.
//
// It guarantees that each recording under testdata is answered as the real Harbor answered it, times, ids, secrets and
// content digests apart; the recordings that it does not answer are listed, with the reason, in
// testdata/not-replayed.txt, and a test counts both.
//
// It assumes a trusted caller on the loopback interface: it is no secure registry, it keeps all content in memory and
// passwords in clear text.
//
// It does not do: immutability rules, quotas, proxy caches, replication, scanning, retention, garbage collection,
// labels, OIDC and LDAP, and events other than PUSH_ARTIFACT (policies for the others are accepted and stay silent).
// Where Harbor does something some seconds later in the background (pull counts and pull times), the emulator does it
// at once.
package harbortest
