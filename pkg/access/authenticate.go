package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const oidcMode = "oidc_auth"

// errWrong is all that is said about credentials that are not taken.
var errWrong = fmt.Errorf("%w: the credentials are not valid", ErrUnauthenticated)

// Authenticate says who makes a request. remote is the caller's address, with or without a port. The error wraps
// ErrUnauthenticated, is a [*ThrottledError], or is a transient fault: Harbor cannot be asked at the moment.
//
// Credentials that Harbor has taken are remembered for a minute. What was begun with Harbor is finished though ctx ends:
// Harbor computes anyway, and an attempt that somebody broke off counts.
func (a *Access) Authenticate(ctx context.Context, header http.Header, remote string) (Caller, error) {
	cred, err := parseCredentials(header)
	if err != nil {
		a.metrics.login(schemeNone, err)
		return Caller{}, err
	}
	if cred.account != "" {
		caller, err := a.withPassword(ctx, cred, remote)
		a.metrics.login(schemeBasic, err)
		return caller, err
	}
	grant, err := a.tokens.find(cred.token)
	if err != nil || grant != nil || strings.HasPrefix(cred.token, tokenPrefix) {
		caller, err := withToken(grant, err)
		a.metrics.login(schemeToken, err)
		return caller, err
	}
	caller, err := a.withIDToken(ctx, cred, remote)
	a.metrics.login(schemeIDToken, err)
	return caller, err
}

func withToken(g *grant, err error) (Caller, error) {
	switch {
	case err != nil:
		return Caller{}, err
	case g == nil:
		return Caller{}, errWrong
	default:
		return Caller{Name: g.name, Kind: Token, grant: g}, nil
	}
}

func (a *Access) withPassword(ctx context.Context, cred *credentials, remote string) (Caller, error) {
	if a.harbor == nil {
		return Caller{}, fmt.Errorf("%w: accounts of Harbor are not taken here, because harbor.url is not configured: use an API token", ErrUnauthenticated)
	}
	// A directory behind Harbor may take a name in any case, and with blanks around it, for the same account.
	return a.withHarbor(ctx, cred, strings.ToLower(strings.TrimSpace(cred.account)), remote)
}

// withIDToken knows no account before Harbor has looked at the token: each token is one.
func (a *Access) withIDToken(ctx context.Context, cred *credentials, remote string) (Caller, error) {
	if a.harbor == nil {
		return Caller{}, errWrong
	}
	oidc, err := a.oidc(ctx)
	switch {
	case err != nil:
		return Caller{}, err
	case !oidc:
		return Caller{}, errWrong
	}
	return a.withHarbor(ctx, cred, cred.authorization, remote)
}

func (a *Access) withHarbor(ctx context.Context, cred *credentials, account, remote string) (Caller, error) {
	remote = addressOf(remote)
	who, err := a.account(ctx, cred, attempt{
		account: a.keys.of("account", account, remote), address: a.keys.of("address", remote), remote: remote,
	})
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{Name: who.Name, Kind: User, SystemAdmin: who.SystemAdmin, credentials: cred}
	if who.Robot {
		caller.Kind, caller.SystemAdmin = Robot, false
	} else {
		caller.Auditor = slices.Contains(a.auditors, who.Name)
	}
	return caller, nil
}

// attempt is who is slowed down if it is wrong.
type attempt struct {
	account, address key
	remote           string
}

// account gives the account of the credentials, as remembered or as Harbor says.
func (a *Access) account(ctx context.Context, cred *credentials, by attempt) (artifact.Account, error) {
	// Before the memory is looked at: it must not answer who is being slowed down.
	if err := a.throttle.check(by.account, by.address); err != nil {
		return artifact.Account{}, err
	}
	k := a.keys.of("credentials", cred.authorization)
	return a.accounts.get(ctx, k, func() (artifact.Account, error) { return a.verify(ctx, cred, by) })
}

// verify asks Harbor, and counts the attempt.
func (a *Access) verify(ctx context.Context, cred *credentials, by attempt) (who artifact.Account, err error) {
	leave, err := a.strangers.enter()
	if err != nil {
		return artifact.Account{}, err
	}
	defer leave()
	settle, err := a.throttle.begin(by.account, by.address)
	if err != nil {
		return artifact.Account{}, err
	}
	how := unknown
	defer func() {
		if delay := settle(how); how == wrong && delay > 0 {
			// Without the account: people type their password into the field of the name.
			a.logger.Warn().Str("address", by.remote).Dur("delay", delay).Msg("wrong attempts at Harbor accounts are slowed down")
		}
	}()
	ctx, cancel := a.unbroken(ctx)
	defer cancel()
	who, err = a.ask(ctx, cred)
	switch {
	case err == nil:
		how = right
	case errors.Is(err, ErrUnauthenticated):
		how = wrong
	}
	return who, err
}

// unbroken gives a context that does not end with the request's, but in time.
func (a *Access) unbroken(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
}

// ask finds out who holds the credentials.
//
// SPEC: Harbor, src/server/middleware/security: the CLI secret of an OIDC user does not open /users/current, but the list of
// projects. Who holds a wrong one is nobody, and sees the public projects without a role: a role proves the secret.
func (a *Access) ask(ctx context.Context, cred *credentials) (artifact.Account, error) {
	harbor := a.harbor.As(cred.authorization)
	who, err := harbor.CurrentAccount(ctx)
	switch {
	case err == nil && who.Name == "":
		return artifact.Account{}, fault.Newf(fault.Transient, fault.BadAnswer, "asking Harbor who this is: the account has no name")
	case err == nil:
		return who, nil
	case !refused(err):
		return artifact.Account{}, unavailable("asking Harbor who this is", err)
	case cred.account == "":
		return artifact.Account{}, errWrong
	}
	oidc, err := a.oidc(ctx)
	switch {
	case err != nil:
		return artifact.Account{}, err
	case !oidc:
		return artifact.Account{}, errWrong
	}
	roles, err := harbor.Roles(ctx)
	switch {
	case err != nil && !refused(err):
		return artifact.Account{}, unavailable("asking Harbor for the account's projects", err)
	case err != nil || len(membership(roles)) == 0:
		return artifact.Account{}, errWrong
	}
	return artifact.Account{Name: cred.account}, nil
}

// oidc says whether Harbor logs people in by OIDC.
func (a *Access) oidc(ctx context.Context) (bool, error) {
	mode, err := a.modes.get(ctx, key{}, func() (string, error) {
		ctx, cancel := a.unbroken(ctx)
		defer cancel()
		info, err := a.harbor.System(ctx)
		if err != nil {
			return "", unavailable("asking Harbor how it logs people in", err)
		}
		return info.AuthMode, nil
	})
	return mode == oidcMode, err
}
