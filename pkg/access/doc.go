// Package access is the only place that decides who may do what.
//
// People and robots come with what they have in Harbor, and Harbor decides what it is worth: a header with Basic
// credentials, or with the id token of a Harbor that logs in by OIDC, is handed on to it. Automation comes with API tokens,
// whose hashes are in a file: see [New].
//
//	who                                     Read                   Change
//	a member of a project, with any role    that project           a project admin: that project
//	a system admin                          everything             everything
//	an auditor of the configuration         everything             what the account's role allows
//	an API token                            the projects it names  with the scope "change": the same
//	a robot                                 nothing, but [Access.CanPull], [Access.CanPush]
//
// It guarantees that credentials are never stored, logged or part of an error: memories know them by an HMAC under a key
// that this process made and nobody else has, for at most a minute, and [Caller] holds them for one request. It guarantees
// that who may not see a project learns nothing about it: a project that does not exist and one of others get the same
// answer, after the same question to Harbor. Harbor being away is a transient fault, and never a refusal.
//
// Guesses are slowed down: after 3 wrong attempts at an account from an address the next ones are refused, for 1 s, 2 s, 4 s
// and so on up to 5 minutes, and after 30 from an address all from there are; Harbor is not asked meanwhile. A right password
// is refused during a delay too, even a remembered one, or the memory could be asked as often as one likes. Somebody at
// another address has no delay. Addresses of IPv6 count by their /64. Harbor computes 0.5 s for each password, right or
// wrong: one header is verified once at a time, at most 16 headers at once, and at most 8 for one address.
//
// It assumes that the caller's address is true: behind a proxy that is not configured as trusted all callers have one
// address, and share its delay. It assumes that Harbor's robots and tokens are random, that nobody else can make an account
// with the name of an auditor (an auditor's account must exist before it is configured where people may register
// themselves), and TLS.
//
// It does not: keep sessions, hold rights of its own in Harbor, or know what a project is beyond its name.
package access
