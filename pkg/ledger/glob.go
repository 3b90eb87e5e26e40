package ledger

import (
	"regexp"
	"strings"
)

// maxGlob is the longest glob: as long as the longest name of a repository.
const maxGlob = 512

// wantGlob says what a glob is.
const wantGlob = "want a glob of full names, such as demo/team/** or demo/*-{api,web}: * and ? stay within one part of a name, ** does not, " +
	"[abc] and [^abc] are one character, {a,b} is either and is not nested"

// Glob is a pattern of repositories' full names, with the syntax of policies (doublestar): * and ? match within one part of a name,
// ** also slashes, [a-c] and [^a-c] one character, {a,b} either; "a/**/b" matches "a/b", too. Matching takes a time that is linear in the
// length of the name, whatever the pattern.
type Glob struct {
	text   string
	prefix string
	match  *regexp.Regexp
}

// IsGlob says whether a text has characters that make it a glob: no name of a repository has one of them.
func IsGlob(text string) bool { return strings.ContainsAny(text, `*?[]{}\`) }

// NewGlob reads a glob. The error is an [*InvalidQueryError] about the repository.
func NewGlob(text string) (*Glob, error) {
	if len(text) > maxGlob {
		return nil, invalid("repository", wantGlob)
	}
	var b strings.Builder
	b.WriteString("^")
	braces := false
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		switch c := text[i]; {
		case strings.HasPrefix(rest, "/**/") && !braces:
			b.WriteString("/(?:.*/)?")
			i += len("/**/") - 1
		case strings.HasPrefix(rest, "**/") && i == 0:
			b.WriteString("(?:.*/)?")
			i += len("**/") - 1
		case strings.HasPrefix(rest, "**"):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '[':
			class, size := class(rest)
			if size == 0 {
				return nil, invalid("repository", wantGlob)
			}
			b.WriteString(class)
			i += size - 1
		case c == '{' && !braces:
			b.WriteString("(?:")
			braces = true
		case c == '}' && braces:
			b.WriteString(")")
			braces = false
		case c == ',' && braces:
			b.WriteString("|")
		case isNameByte(c):
			b.WriteString(regexp.QuoteMeta(string(c)))
		default:
			return nil, invalid("repository", wantGlob)
		}
	}
	b.WriteString("$")
	match, err := regexp.Compile(b.String())
	if braces || err != nil {
		return nil, invalid("repository", wantGlob)
	}
	return &Glob{text: text, prefix: text[:strings.IndexAny(text+"*", `*?[{`)], match: match}, nil
}

// class translates the class of characters that begins a text, and says how long it is: 0 if it is none.
func class(text string) (expression string, size int) {
	inner, _, closed := strings.Cut(text[1:], "]")
	chars := strings.TrimPrefix(inner, "^")
	if !closed || chars == "" {
		return "", 0
	}
	for i := range len(chars) {
		if !isNameByte(chars[i]) || chars[i] == '/' {
			return "", 0
		}
	}
	if len(inner) > len(chars) {
		chars = "^/" + chars
	}
	return "[" + chars + "]", len(inner) + len("[]")
}

// isNameByte says whether the name of a repository may have it.
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("._-/", c) >= 0
}

// String gives the glob as it was written.
func (g *Glob) String() string { return g.text }

// Prefix is what all names that match begin with.
func (g *Glob) Prefix() string { return g.prefix }

// Matches says whether a repository's full name matches.
func (g *Glob) Matches(repository string) bool { return g.match.MatchString(repository) }
