package queue

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// Partitions is the number of partitions of each lane. It is part of the subjects by which duplicates are found: two
// programs with different numbers would sign the same digest side by side, so it never changes.
const Partitions = 16

// maxHarbor is the longest harbor name, in bytes.
const maxHarbor = 32

// ValidateHarbor checks the name under which one Harbor is known in subjects: 1 to 32 of a-z, 0-9, - and _.
func ValidateHarbor(name string) error {
	if name == "" || len(name) > maxHarbor {
		return fmt.Errorf("harbor name has %d bytes, want 1 to %d", len(name), maxHarbor)
	}
	if i := strings.IndexFunc(name, notTokenRune); i >= 0 {
		return fmt.Errorf("harbor name %q: only a-z, 0-9, - and _ are allowed", name)
	}
	return nil
}

func notTokenRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// EncodeToken makes one subject token of any text: base32 in lower case without padding. Project names contain dots,
// which separate tokens, and an empty token is not allowed: the empty text becomes "-".
func EncodeToken(text string) string {
	if text == "" {
		return "-"
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(text)))
}

// DecodeToken reads what EncodeToken wrote, and refuses everything else.
func DecodeToken(token string) (string, error) {
	if token == "-" {
		return "", nil
	}
	text, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(token))
	if err != nil {
		return "", fmt.Errorf("decoding a subject token: %w", err)
	}
	// Base32 ignores the last bits of some lengths, and upper case: a token has exactly one spelling.
	if len(text) == 0 || EncodeToken(string(text)) != token {
		return "", errors.New("decoding a subject token: not in its canonical form")
	}
	return string(text), nil
}

// Partition gives the partition of a project, 0 to [Partitions]-1.
func Partition(project string) int {
	sum := sha256.Sum256([]byte(project))
	return int(binary.BigEndian.Uint64(sum[:8]) % Partitions)
}

// refToken identifies a reference within a subject: 128 bits of its SHA-256.
func refToken(ref artifact.Ref) string {
	sum := sha256.Sum256([]byte(ref.String()))
	return hex.EncodeToString(sum[:16])
}

// SignSubject is where a request is published: sign.v1.<harbor>.<lane>.<part>.<base32 of project>.<hash of the reference>.
func SignSubject(harbor string, lane artifact.Lane, ref artifact.Ref) string {
	return strings.Join([]string{
		"sign.v1", harbor, string(lane), strconv.Itoa(Partition(ref.Project())), EncodeToken(ref.Project()), refToken(ref),
	}, ".")
}

// signFilter is the subject filter of one partition's consumer.
func signFilter(harbor string, lane artifact.Lane, part int) string {
	return fmt.Sprintf("sign.v1.%s.%s.%d.>", harbor, lane, part)
}

// laneFilter is the subject filter of a whole lane.
func laneFilter(harbor string, lane artifact.Lane) string {
	return "sign.v1." + harbor + "." + string(lane) + ".>"
}

// DebtSubject is where a debt is published: debt.v1.<harbor>.<base32 of project>.<hash of the reference>.
func DebtSubject(harbor string, ref artifact.Ref) string {
	return strings.Join([]string{"debt.v1", harbor, EncodeToken(ref.Project()), refToken(ref)}, ".")
}

// debtFilter is the subject filter of the consumer of debts.
func debtFilter(harbor string) string { return "debt.v1." + harbor + ".>" }

// LedgerSubject is where an event is published: ledger.v1.<harbor>.<kind>.<base32 of project>.<hash of the reference>. In
// events about a project, or about all ("-"), the last token is the event's own: its id where that is one of
// [artifact.EventID], else a hash of it.
func LedgerSubject(harbor string, e artifact.Event) string {
	project, last := e.Ref.Project(), refToken(e.Ref)
	if e.Kind.OfProject() {
		project, last = e.Project, idToken(e.ID)
	}
	return strings.Join([]string{"ledger.v1", harbor, string(e.Kind), EncodeToken(project), last}, ".")
}

// idToken makes a subject token of an event's id: the first 32 hexadecimal digits of one that has them.
func idToken(id string) string {
	if len(id) >= 32 && strings.Trim(id[:32], "0123456789abcdef") == "" {
		return id[:32]
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// PolicySubject is where an entry of the bucket of policies is kept: $KV.POLICIES.v1.<harbor>.<kind>.<base32 of project>.
func PolicySubject(harbor string, kind book.Kind, project string) string {
	return strings.Join([]string{policyPrefix, harbor, string(kind), EncodeToken(project)}, ".")
}

// policyPrefix is what all subjects of the bucket of policies begin with; a harbor follows.
const policyPrefix = "$KV.POLICIES.v1"

// parsePolicySubject reads what PolicySubject wrote. The kind may be one that this program does not know.
func parsePolicySubject(subject string) (kind book.Kind, project string, err error) {
	rest, found := strings.CutPrefix(subject, policyPrefix+".")
	tokens := strings.Split(rest, ".")
	if !found || len(tokens) != 3 {
		return "", "", errors.New("subject is not that of a policy")
	}
	project, err = DecodeToken(tokens[2])
	return book.Kind(tokens[1]), project, err
}

// stateSubject is where a state of recurring work is kept: $KV.SWEEPS.v1.<harbor>.<kind>.<base32 of key>.
func stateSubject(harbor, kind, key string) string {
	return strings.Join([]string{"$KV.SWEEPS.v1", harbor, kind, EncodeToken(key)}, ".")
}

// DeadSubject is where a dead letter is kept: dead.v1.<harbor>.<base32 of project>.<hash of the reference>.
func DeadSubject(harbor string, ref artifact.Ref) string {
	return strings.Join([]string{"dead.v1", harbor, EncodeToken(ref.Project()), refToken(ref)}, ".")
}

// deadSubjectOf gives the place of the dead letter of an undecodable request or debt from the subject that it came on, so that
// it and its dead letter share their last two tokens.
func deadSubjectOf(harbor, subject string) string {
	tokens := strings.Split(subject, ".")
	if last := len(tokens) - 1; tokens[0] == "sign" && last == 6 || tokens[0] == "debt" && last == 4 {
		return "dead.v1." + harbor + "." + tokens[last-1] + "." + tokens[last]
	}
	sum := sha256.Sum256([]byte(subject))
	return "dead.v1." + harbor + ".-." + hex.EncodeToString(sum[:16])
}

// ScanSubject is where a tick is proposed: scan.v1.<harbor>.<kind>.<base32 of key>.<slot>.
func ScanSubject(harbor, kind, key string, slot int64) string {
	return strings.Join([]string{"scan.v1", harbor, kind, EncodeToken(key), strconv.FormatInt(slot, 10)}, ".")
}

// KeptSubject is where a signature is kept: $KV.SIGNATURES.v1.<harbor>.<base32 of project>.<hash of the
// reference>.<format>.<key id>, and one token more if it has a timestamp (timestamped), a log entry (logged) or both
// (logged-timestamped). What follows the bucket is a valid key of one.
func KeptSubject(harbor string, ref artifact.Ref, s artifact.Signature) string {
	tokens := []string{"$KV.SIGNATURES.v1", harbor, EncodeToken(ref.Project()), refToken(ref), string(s.Format), s.KeyID}
	if stage := stageOf(s); stage != "" {
		tokens = append(tokens, stage)
	}
	return strings.Join(tokens, ".")
}

// stageOf names what a signature has beside its bytes; empty for nothing.
func stageOf(s artifact.Signature) string {
	switch logged, stamped := s.Entry != nil, len(s.Timestamp) > 0; {
	case logged && stamped:
		return "logged-timestamped"
	case logged:
		return "logged"
	case stamped:
		return "timestamped"
	default:
		return ""
	}
}

// parseScanSubject reads what ScanSubject wrote.
func parseScanSubject(subject string) (Tick, error) {
	tokens := strings.Split(subject, ".")
	if len(tokens) != 6 || tokens[0] != "scan" || tokens[1] != "v1" {
		return Tick{}, errors.New("subject is not that of a tick")
	}
	key, err := DecodeToken(tokens[4])
	if err != nil {
		return Tick{}, err
	}
	slot, err := strconv.ParseInt(tokens[5], 10, 64)
	if err != nil {
		return Tick{}, fmt.Errorf("slot of a tick: %w", err)
	}
	return Tick{Kind: tokens[3], Key: key, Slot: slot}, nil
}

// validateKind checks the kind of a tick, which is a subject token and part of a consumer's name.
func validateKind(kind string) error { return validateToken("kind of a tick", kind) }

// validateToken checks a name that becomes a subject token as it is.
func validateToken(what, name string) error {
	if name == "" || len(name) > maxHarbor || strings.IndexFunc(name, notTokenRune) >= 0 {
		return fmt.Errorf("%s %.40q: want 1 to %d of a-z, 0-9, - and _", what, name, maxHarbor)
	}
	return nil
}
