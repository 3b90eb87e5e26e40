// Package harbortest is a Harbor registry in memory, for tests, demonstrations and benchmarks.
//
// It is a real HTTP server (loopback, any free port) that answers as a recorded Harbor v2.15.2 does: the REST API
// under /api/v2.0, the token service under /service/token, the OCI registry under /v2, and webhooks that are delivered
// with Harbor's payloads, its ten workers, its polling delays and its three attempts. What Harbor's own API can do is
// set up through that API: projects, members, robots, webhook policies, immutability rules, quotas. Only what no Harbor
// has stands on a control surface of its own, methods and the same over HTTP under /_emulator/: injected faults
// (SetFaults, SetFault), counters (Stats), another version while it runs (SetVersion), synthetic content by the million (Synthesize,
// Touch), logins of an identity provider (SetLogin) and the end of the audit log (PurgeAudit).
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
// There is no recording of the following, which was read in Harbor's code:
//
//   - ranges in q: both ends are cut to whole seconds (see parseQueryTime), and one of them may be open;
//   - sorting by push_time: PostgreSQL promises nothing about equal times, the emulator lists them by id, in the same
//     direction;
//   - proxy caches: who may make one, and how it refuses pushes;
//   - the logs of webhook tasks, conditions on executions, and that a policy with a running execution cannot be deleted;
//   - the roles of those who are no members, and what an id token or a CLI secret opens in OIDC mode;
//   - which settings keep what out of the audit log.
//
// It assumes a trusted caller on the loopback interface: it is no secure registry, it keeps all content in memory and
// passwords in clear text.
//
// It does not do: fetching through proxy caches, replication, scanning, retention, garbage collection, labels, LDAP, the
// browser's part of OIDC, and events other than PUSH_ARTIFACT (policies for the others are accepted and stay silent).
// Webhooks go to private addresses whatever a project says: that Harbor may once refuse them is an open change.
// Where Harbor does something some seconds later in the background (pull counts and pull times), the emulator does it
// at once.
package harbortest
