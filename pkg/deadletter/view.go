package deadletter

import (
	"strings"
	"time"
	"unicode"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// View is a letter as people and their programs see it. Its text has no characters that a terminal would obey.
type View struct {
	// ID names this letter; a later one of the same manifest has another.
	ID uint64 `json:"id"`
	// Project, Repository (the full name) and Digest are empty if not even the manifest can be told.
	Project    string `json:"project"`
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	// Reason is from a closed set; LastError says what exactly failed.
	Reason    string `json:"reason"`
	LastError string `json:"last_error"`
	// Attempts is how often the request was handed out, between FirstAt and LastAt, when it was given up. Both are UTC.
	Attempts uint64    `json:"attempts"`
	FirstAt  time.Time `json:"first_at"`
	LastAt   time.Time `json:"last_at"`
	// Replayable says that the request can be read, so that it can be asked for again.
	Replayable bool `json:"replayable"`
	// Actor, Origin and Lane are who asked, for what cause, and in which lane; empty if that cannot be read.
	Actor         string          `json:"actor"`
	Origin        artifact.Origin `json:"origin"`
	Lane          artifact.Lane   `json:"lane"`
	CorrelationID string          `json:"correlation_id"`
	// Stored is the request as it was stored, in base64 in JSON. Listings leave it out.
	Stored []byte `json:"stored,omitempty"`
}

// ViewOf gives the view of a letter.
func ViewOf(l artifact.DeadLetter) View {
	v := View{
		ID: l.ID, Reason: printable(l.Reason), LastError: printable(l.LastError), Attempts: l.Attempts,
		FirstAt: sayable(l.FirstAt), LastAt: sayable(l.LastAt), Replayable: l.Request != nil, CorrelationID: printable(l.CorrelationID), Stored: l.Stored,
	}
	if !l.Ref.IsZero() {
		v.Project, v.Repository, v.Digest = l.Ref.Project(), l.Ref.Repository(), l.Ref.Digest()
	}
	if r := l.Request; r != nil {
		v.Actor, v.Origin, v.Lane = printable(r.Actor), artifact.Origin(printable(string(r.Origin))), r.Lane
	}
	return v
}

// Image is the reference, empty if it cannot be told.
func (v View) Image() string {
	if v.Repository == "" {
		return ""
	}
	return v.Repository + "@" + v.Digest
}

// printable takes out what would do something to a terminal, and keeps lines apart by a blank.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// sayable is a time that JSON can say; zero if it cannot.
func sayable(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
