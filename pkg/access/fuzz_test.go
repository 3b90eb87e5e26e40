package access_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
)

// FuzzHeader sends any header. What is handed on to Harbor is one well-formed header of the same credentials, and who is not
// known there is not let in.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"", "Basic", "Basic ", "Bearer ", "Basic YW5uOnA=", "basic  YW5uOnA= ", "Basic YW5uOg==", "Basic OnA=", "Basic YW5u", "Basic YW5uOnB\nOg==",
		"Bearer hs_0", "Bearer e.y.J", "BEARER e.y.J", "Bearer a b", "Bearer \x00", "Bearer é", "Digest x", "Basic YW5uOnANCg==", "Basic YTpiOmM=",
	} {
		f.Add(seed, here)
	}
	f.Add("Basic YW5uOnA=", "[fe80::1%eth0]:1")
	f.Add("Basic YW5uOnA=", "::ffff:192.0.2.1")
	f.Fuzz(func(t *testing.T, value, remote string) {
		harbor := newHarbor()
		harbor.mode = "oidc_auth"
		a, err := access.New(access.Config{Harbor: harbor, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.Authenticate(t.Context(), http.Header{"Authorization": {value}}, remote)
		for header := range harbor.as {
			scheme, rest, _ := strings.Cut(header, " ")
			given := strings.TrimSpace(value[min(len(value), len(scheme)):])
			if strings.ContainsFunc(header, unicode.IsControl) || strings.Contains(rest, " ") || (scheme != "Basic" && scheme != "Bearer") {
				t.Fatalf("%q: %q was handed on", value, header)
			}
			if scheme == "Bearer" && rest != given {
				t.Fatalf("%q: %q was handed on, another token", value, header)
			}
			if plain, err := base64.StdEncoding.DecodeString(rest); scheme == "Basic" && (err != nil || base64.StdEncoding.EncodeToString(plain) != rest || strings.HasSuffix(string(plain), ":") && strings.Count(string(plain), ":") == 1) {
				t.Fatalf("%q: %q was handed on, %v", value, header, err)
			}
			if known := harbor.logins[header]; (known.account.Name != "" && (!known.cli || len(known.roles) > 0)) != (err == nil) {
				t.Fatalf("%q: let in is %t, Harbor knows %+v", value, err == nil, known.account)
			}
		}
		switch {
		case err == nil && (len(harbor.as) == 0 || c.Name == "" || c.Kind == access.Token):
			t.Fatalf("%q: %+v was let in without Harbor", value, c)
		case err != nil && (!errors.Is(err, access.ErrUnauthenticated) || c != (access.Caller{})):
			t.Fatalf("%q: %v and %+v, want ErrUnauthenticated and nobody", value, err, c)
		case err != nil && len(value) > 20 && strings.Contains(err.Error(), value):
			t.Fatalf("%q: the error %v repeats it", value, err)
		}
	})
}

// FuzzTokensFile reads any file of tokens: it is taken or refused, never repeated in the error, and never lets in a token
// that nobody has hashed, nor one further than its line says.
func FuzzTokensFile(f *testing.F) {
	for _, seed := range []string{
		"", "ann:" + hashed("x"), "# c\n\nann:" + hashed("x") + "\r\nbob:" + hashed("y"), "ann:", ":", "a:b:c", "\x00",
		"a:" + hashed(token) + ":read", "a:" + hashed(token) + ":change:demo|team-*:2999-01-31", "a:" + hashed(token) + ":read:*:2001-01-31T00:00:00Z",
		"a:" + hashed(token) + ":read:[a-z]*", "a:" + hashed(token) + ":change:\\*",
	} {
		f.Add([]byte(seed))
	}
	path := f.TempDir() + "/tokens"
	f.Fuzz(func(t *testing.T, content []byte) {
		write(t, path, string(content))
		a, err := access.New(access.Config{TokensFile: path, Logger: zerolog.Nop()})
		if err != nil {
			for line := range strings.Lines(string(content)) {
				if line = strings.TrimSpace(line); len(line) > 30 && strings.Contains(err.Error(), line) {
					t.Fatalf("the error %v repeats %q", err, line)
				}
			}
			return
		}
		c, err := a.Authenticate(t.Context(), bearer(token), here)
		text := strings.ToLower(string(content))
		if err == nil && (!strings.Contains(text, hashed(token)) || c.Kind != access.Token) {
			t.Fatalf("%+v was let in", c)
		}
		for _, project := range []string{"demo", ""} {
			read, err1 := a.Can(t.Context(), c, access.Read, project)
			change, err2 := a.Can(t.Context(), c, access.Change, project)
			if err := errors.Join(err1, err2); err != nil || change && (!read || !strings.Contains(text, ":change")) || read && c.Kind != access.Token {
				t.Fatalf("%+v may read %t and change %t of %q, %v", c, read, change, project, err)
			}
		}
		visible, all, err := a.Visible(t.Context(), c)
		if err != nil || all != (visible == nil) {
			t.Fatalf("Visible: %q, %t, %v", visible, all, err)
		}
		for _, project := range visible {
			if artifact.ValidateProject(project) != nil {
				t.Fatalf("Visible gives %q, which no project can be named", project)
			}
		}
	})
}
