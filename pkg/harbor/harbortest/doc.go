// Package harbortest is a Harbor registry in memory, for tests, demonstrations and benchmarks.
//
// It is a real HTTP server (loopback, any free port) that answers as a recorded Harbor v2.15.2 does: the REST API
// under /api/v2.0, the token service under /service/token, the OCI registry under /v2, and webhooks that are delivered
// with Harbor's payloads, its ten workers, its polling delays and its three attempts. What Harbor's own API can do is
// set up through that API: projects, members, robots, webhook policies, immutability rules, quotas. Only what no Harbor
// has, injected faults, counters and another version while it runs, has a control surface of its own: SetFaults, Stats
// and SetVersion, or over HTTP under /_emulator/.
//
// Older versions of Harbor (Config.Version) differ in this, and in nothing else: before 2.15 a sigstore bundle is an
// accessory of the type subject.accessory, which does not count as a signature; before 2.13 there is no audit feed under
// auditlog-exts; before 2.12 there is no listing of a whole project's artifacts. These have no recordings: they come
// from Harbor's code and release notes.
//
// It guarantees that each recording under testdata is answered as the real Harbor answered it, times, ids, secrets and
// content digests apart; the recordings that it does not answer are listed, with the reason, in
// testdata/not-replayed.txt, and a test counts both.
//
// It assumes a trusted caller on the loopback interface: it is no secure registry, it keeps all content in memory and
// passwords in clear text.
//
// It does not do: proxy caches, replication, scanning, retention, garbage collection, labels, OIDC and LDAP, and events
// other than PUSH_ARTIFACT (policies for the others are accepted and stay silent).
// Where Harbor does something some seconds later in the background (pull counts and pull times), the emulator does it
// at once.
package harbortest
