package signing_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/signing"
)

// reasons are all that package fault declares, read from its source: nothing else knows one that was added today.
func reasons(t *testing.T) []fault.Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../fault/fault.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []fault.Reason
	for _, d := range file.Decls {
		group, isGroup := d.(*ast.GenDecl)
		if !isGroup || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value, isValue := spec.(*ast.ValueSpec)
			if !isValue {
				continue
			}
			if kind, named := value.Type.(*ast.Ident); !named || kind.Name != "Reason" {
				continue
			}
			literal, isLiteral := value.Values[0].(*ast.BasicLit)
			if !isLiteral {
				t.Fatalf("reason %s is no literal", value.Names[0])
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, fault.Reason(text))
		}
	}
	if len(found) < 30 {
		t.Fatalf("%d reasons were found in the source, want all", len(found))
	}
	return found
}

// fates are what becomes of a young request by the kind of the fault, then of one that has failed for more than a day.
func fates() map[fault.Reason][4]string {
	usual := [4]string{"retry", "dead", "dead too_old", "dead"}
	account := [4]string{"retry", "retry", "dead too_old", "dead too_old"}
	evidence := [4]string{"retry_always", "dead", "retry_always", "dead"}
	paused := [4]string{"wait", "wait", "wait", "wait"}
	return map[fault.Reason][4]string{
		fault.Unknown: usual, fault.Canceled: usual, fault.Unreachable: usual, fault.Timeout: usual, fault.Unavailable: usual,
		fault.RateLimited: usual, fault.BadAnswer: usual, fault.Rejected: usual, fault.QuotaExceeded: usual, fault.Immutable: usual,
		fault.NotFound: usual, fault.ForeignOrigin: usual, fault.TooLarge: usual, fault.TooManyChildren: usual, fault.TooDeep: usual,
		fault.DigestMismatch: usual, fault.Malformed: usual, fault.NewerVersion: usual, fault.PolicyUnreadable: usual,
		fault.QueueFull: usual, fault.QueueUnavailable: usual, fault.KeyUnavailable: usual, fault.VerificationFailed: usual,
		fault.TooOld: {"retry", "dead", "dead", "dead"}, fault.BlobUnknown: usual, fault.ConcurrentWriter: usual, fault.StorageUnavailable: usual,
		fault.UnsupportedManifest: usual, fault.UnsupportedFormat: usual,
		fault.Unauthorized: account, fault.Denied: account, fault.PullPolicy: account,
		fault.LogUnavailable: evidence, fault.ProofInvalid: evidence, fault.TimestampMissing: evidence, fault.IdentityMissing: evidence,
		fault.Unverifiable: evidence, fault.DependencyDown: evidence,
		fault.Paused: paused,
	}
}

// TestEachReasonHasItsAction is the table, reason by reason. A reason without an entry in it, or here, fails.
func TestEachReasonHasItsAction(t *testing.T) {
	s, _ := newService(t, newWorld(t, "demo"))
	all, want := reasons(t), fates()
	if len(all) != len(want) || signing.Actions() != len(all) {
		t.Errorf("%d reasons, %d wanted and %d actions: want as many of each", len(all), len(want), signing.Actions())
	}
	const young, old = time.Hour, 24*time.Hour + time.Second
	for _, reason := range all {
		fate, known := want[reason]
		if !known || !signing.HasAction(reason) {
			t.Errorf("%s: expected here: %t, has an action: %t; want both", reason, known, signing.HasAction(reason))
			continue
		}
		for i, tt := range []struct {
			kind fault.Kind
			age  time.Duration
		}{{fault.Transient, young}, {fault.Permanent, young}, {fault.Transient, old}, {fault.Permanent, old}} {
			got, told := s.Judge(signing.Failure{Fault: fault.Error{Kind: tt.kind, Reason: reason, Err: errInjected}, Age: tt.age, Tries: 10})
			if account := fate[1] == "retry"; account && told.Kind != fault.Transient {
				t.Errorf("%s, %s: told as %s, want transient: it is the account's", reason, tt.kind, told.Kind)
			}
			if told.Reason != reason {
				got += " " + string(told.Reason)
			}
			if got != fate[i] {
				t.Errorf("%s, %s, after %s: %q, want %q", reason, tt.kind, tt.age, got, fate[i])
			}
		}
		gone, _ := s.Judge(signing.Failure{Fault: fault.Error{Kind: fault.Gone, Reason: reason, Err: errInjected}, Age: young, Tries: 10})
		if transient := fate[0]; gone != transient {
			t.Errorf("%s, gone: %q, want as if it were transient: %q", reason, gone, transient)
		}
	}
}

// TestWhatIsExemptFromAge, beside the reasons: what was tried too seldom, what is recorded, and what ended where it asked for evidence.
func TestWhatIsExemptFromAge(t *testing.T) {
	s, _ := newService(t, newWorld(t, "demo"), func(c *signing.Config) { c.MaxAge = time.Hour })
	for _, tt := range []struct {
		name    string
		failure signing.Failure
		reason  fault.Reason
		kind    fault.Kind
		want    string
	}{
		{"too old", signing.Failure{Age: time.Hour + 1, Tries: 10}, fault.Timeout, fault.Transient, "dead"},
		{"just not too old", signing.Failure{Age: time.Hour, Tries: 10}, fault.Timeout, fault.Transient, "retry"},
		{"tried nine times", signing.Failure{Age: 9 * time.Hour, Tries: 9}, fault.Timeout, fault.Transient, "retry"},
		{"recorded", signing.Failure{Age: 9 * time.Hour, Tries: 99, Recorded: true}, fault.Timeout, fault.Transient, "retry"},
		{"recorded, and then a permanent fault", signing.Failure{Age: 9 * time.Hour, Tries: 99, Recorded: true}, fault.TooLarge, fault.Permanent, "retry"},
		{"asking for evidence", signing.Failure{Age: 9 * time.Hour, Tries: 99, Unproven: true}, fault.Timeout, fault.Transient, "retry_always"},
		{"asking for evidence, as an account that is refused", signing.Failure{Age: 9 * time.Hour, Tries: 99, Unproven: true}, fault.Unauthorized, fault.Permanent, "retry_always"},
		{"evidence that is refused in so many words", signing.Failure{Age: 9 * time.Hour, Tries: 99, Unproven: true}, fault.Rejected, fault.Transient, "dead"},
		{"evidence that is refused for good", signing.Failure{Tries: 1, Unproven: true}, fault.Rejected, fault.Permanent, "dead"},
		{"a reason of a newer version", signing.Failure{Tries: 1}, "nobody_knows", fault.Permanent, "dead"},
	} {
		tt.failure.Fault = fault.Error{Kind: tt.kind, Reason: tt.reason, Err: errInjected}
		if got, _ := s.Judge(tt.failure); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestDelays(t *testing.T) {
	const hour = time.Hour
	for _, tt := range []struct {
		name        string
		failures    uint64
		retryAfter  time.Duration
		least, most time.Duration
	}{
		{"none, which cannot be", 0, 0, 500 * time.Millisecond, time.Second},
		{"first", 1, 0, 500 * time.Millisecond, time.Second},
		{"second", 2, 0, time.Second, 2 * time.Second},
		{"ninth", 9, 0, 128 * time.Second, 256 * time.Second},
		{"tenth", 10, 0, 150 * time.Second, 300 * time.Second},
		{"more than fits into a duration", 1 << 40, 0, 150 * time.Second, 300 * time.Second},
		{"asked for", 1, 7 * time.Second, 7 * time.Second, 7 * time.Second},
		{"asked for less than is due", 10, time.Second, 150 * time.Second, 300 * time.Second},
		{"asked for more than an hour", 1, 100 * hour, hour, hour},
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			got := signing.RetryDelay(tt.failures, fault.Error{Kind: fault.Transient, Reason: fault.RateLimited, RetryAfter: tt.retryAfter})
			if seen[got] = true; got < tt.least || got > tt.most {
				t.Fatalf("%s: the delay is %s, want %s to %s", tt.name, got, tt.least, tt.most)
			}
		}
		if varies := len(seen) > 100; varies != (tt.least != tt.most) {
			t.Errorf("%s: %d different delays of 200", tt.name, len(seen))
		}
	}
	for retryAfter, most := range map[time.Duration]time.Duration{0: 30 * time.Second, time.Minute: time.Minute, 9 * hour: hour} {
		if got := signing.PauseDelay(fault.Error{RetryAfter: retryAfter}); got > most || got < most/2 {
			t.Errorf("a pause that asks for %s: the delay is %s, want %s to %s", retryAfter, got, most/2, most)
		}
	}
}

// TestNoReasonGivesADebtUp, whatever the reason.
func TestNoReasonGivesADebtUp(t *testing.T) {
	s, _ := newService(t, newWorld(t, "demo"))
	accounts := []fault.Reason{fault.Unauthorized, fault.Denied, fault.PullPolicy}
	for _, reason := range reasons(t) {
		for _, kind := range []fault.Kind{fault.Transient, fault.Permanent} {
			want, least, most := "retry_always", 500*time.Millisecond, time.Second
			if kind == fault.Permanent {
				least, most = 45*time.Minute, time.Hour
			}
			for _, account := range accounts {
				if reason == account {
					least, most = 500*time.Millisecond, time.Second
				}
			}
			if reason == fault.Paused {
				want, least, most = "wait", 15*time.Second, 30*time.Second
			}
			if got, delay := s.JudgeDebt(fault.Error{Kind: kind, Reason: reason}, 1); got != want || delay < least || delay > most {
				t.Errorf("%s, %s: %s after %s, want %s after %s to %s", kind, reason, got, delay, want, least, most)
			}
		}
	}
}

// TestOperatorsReadTheSameTable: docs/operations.md names each reason in the row of its fate.
func TestOperatorsReadTheSameTable(t *testing.T) {
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(raw), "\n## What happens to a failure\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found {
		t.Fatal("docs/operations.md has no section on what happens to a failure")
	}
	want := map[string][4]string{}
	for reason, fate := range fates() {
		want["`"+string(reason)+"`"] = fate
	}
	named := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(strings.TrimSpace(line), "| `") || len(cells) != 4 {
			continue
		}
		for name := range strings.SplitSeq(cells[0], ",") {
			named++
			fate, known := want[strings.TrimSpace(name)]
			got := [3]string{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])}
			words := map[string]string{"retry": "repeated", "retry_always": "repeated", "wait": "waits", "dead": "dead letter"}
			tooOld := "never"
			if strings.HasPrefix(fate[2], "dead") {
				tooOld = "yes"
			}
			if wanted := [3]string{words[fate[0]], words[fate[1]], tooOld}; !known || got != wanted {
				t.Errorf("%s: the page says %v, the program %v (known: %t)", name, got, wanted, known)
			}
		}
	}
	if named != len(want) {
		t.Errorf("the page names %d reasons, the program has %d", named, len(want))
	}
}
