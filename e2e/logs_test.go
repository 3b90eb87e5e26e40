//go:build e2e

package e2e_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// wish is what a project asks of a log.
type wish struct {
	log, transparency, format string
}

func (w wish) String() string { return fmt.Sprintf("%s %s %s", w.log, w.transparency, w.format) }

// wishes are all that can be verified.
func wishes() []wish {
	return []wish{
		{"rekor-v1", "required", "legacy"},
		{"rekor-v1", "required", "bundle"},
		{"rekor-v1", "required", "both"},
		{"rekor-v1", "deferred", "legacy"},
		{"rekor-v1", "deferred", "bundle"},
		{"rekor-v1", "deferred", "both"},
		{"rekor-v2", "required", "bundle"},
		{"rekor-v2", "required", "both"},
		{"rekor-v2", "deferred", "bundle"},
		{"rekor-v2", "deferred", "both"},
	}
}

// wishing is a stage with a project for each wish, and one that asks for neither a log nor a timestamp.
type wishing struct {
	*stage
	proofs *proofs
	wishes []wish
	plain  string
}

func newWishing(t *testing.T) *wishing {
	t.Helper()
	w := &wishing{proofs: newProofs(t, "rekor-v1", "rekor-v2")}
	w.wishes = wishes()
	w.stage = newStage(t, env.harbor, len(w.wishes)+1, func(projects []string) option {
		w.plain = projects[len(w.wishes)]
		return func(o *harness.Options) {
			w.proofs.asked("off", "off")(o)
			for i, one := range w.wishes {
				o.Policies = append(o.Policies, harness.Config{
					"projects": []string{projects[i]}, "backfill": "all", "format": one.format,
					"transparency": one.transparency, "log": one.log, "timestamp": "required",
				})
			}
		}
	})
	w.proofs.judgedBy(t, w.world, checker.Asked{})
	return w
}

// formatsOf are those in which a wish is signed.
func (w wish) formats() []checker.Format {
	if w.format == "both" {
		return checker.Formats()
	}
	return []checker.Format{checker.Format(w.format)}
}

// carries says whether signatures in a format have a place for an entry of the log.
func (w wish) carries(format string) bool {
	return slices.Contains(w.formats(), checker.Format(format)) && (w.log == "rekor-v1" || format == "bundle")
}

// judgeWish looks from the outside: one signature in each format, with one entry wherever it has a place, and a timestamp, and
// the report says so.
func (w *wishing) judgeWish(t *testing.T, one wish, pushed harness.Pushed) {
	t.Helper()
	trust := w.proofs.trust(t)
	trust.Logs = slices.DeleteFunc(trust.Logs, func(l checker.Log) bool { return l.Name != one.log })
	w.judgeBy(t, trust, checker.Asked{Log: true, Timestamp: true}, one.formats(), pushed)
}

// judgeBy judges images and their rows, with what is trusted and asked for.
func (w *world) judgeBy(t *testing.T, trust checker.Trust, asked checker.Asked, formats []checker.Format, pushed ...harness.Pushed) {
	t.Helper()
	judge, err := w.CheckerOf(w.Keys.Public, formats...)
	if err == nil {
		judge, err = judge.Trusting(trust, asked)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.judgeWith(t, judge, pushed...)
}

func (w *world) judgeWith(t *testing.T, judge *checker.Checker, pushed ...harness.Pushed) {
	t.Helper()
	var facts []checker.Fact
	var rows []checker.Row
	for _, p := range pushed {
		for _, one := range p.All() {
			evidence, violations, err := judge.Signed(t.Context(), one.Repository, one.Digest)
			if err != nil {
				t.Fatal(err)
			}
			complain(t, violations)
			facts = append(facts, checker.Fact{Repository: one.Repository, Digest: one.Digest, Evidence: evidence, Parent: one.Parent})
			rows = append(rows, w.audit(t.Context(), t, one))
		}
	}
	violations, err := judge.Compare(facts, rows)
	if err != nil {
		t.Fatal(err)
	}
	complain(t, violations)
}

// TestLogged signs with real logs and a real timestamp authority, as each policy asks for it. What is there afterwards is
// accepted by both cosign programs with the very lines that `signer trust-root` prints, and by sigstore-go; and by none of them
// where the log or its entry is another one.
func TestLogged(t *testing.T) {
	w := newWishing(t)
	pushed := make([]harness.Pushed, len(w.wishes))
	for i := range w.wishes {
		img, err := harness.NewImage(false)
		pushed[i] = w.pushTo(t, w.projects[i]+"/app", "v1", img, err)
	}
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	multi := w.pushTo(t, w.projects[0]+"/multi", "v1", index, err)
	img, err := harness.NewImage(false)
	plain := w.pushTo(t, w.plain+"/app", "v1", img, err)
	w.awaitLogged(t, append(slices.Clone(pushed), multi)...)
	w.awaitSigned(t, plain)
	w.settled(t)
	w.noDebt(t)

	v := w.newVerifiers(t)
	other := v.withOtherLogs(t)
	w.judgeWish(t, w.wishes[0], multi)
	w.judgeBy(t, checker.Trust{}, checker.Asked{}, checker.Formats(), plain)
	for i, one := range w.wishes {
		t.Run(one.String(), func(t *testing.T) {
			t.Parallel()
			w.judgeWish(t, one, pushed[i])
			v.acceptLogged(t, one, pushed[i], other)
		})
	}
	t.Run("without an entry", func(t *testing.T) {
		t.Parallel()
		v.refuseUnlogged(t, plain)
	})
}

// noDebt judges that nobody says that anything is owed.
func (w *world) noDebt(t *testing.T) {
	t.Helper()
	rows, err := w.Report().Rows(t.Context(), url.Values{"log_owed": {"true"}})
	if err != nil || len(rows) > 0 {
		t.Errorf("the report lists what is owed: %+v, %v, want nothing", rows, err)
	}
}

// acceptLogged tries all lines that a wish is for, and sigstore-go.
func (v *verifiers) acceptLogged(t *testing.T, one wish, p harness.Pushed, other *verifiers) {
	t.Helper()
	tried := make(map[string]bool)
	for _, c := range v.document.Commands {
		carried := slices.Contains(one.formats(), checker.Format(c.Format))
		if !carried || c.Log != "" && c.Log != one.log {
			continue
		}
		for _, program := range c.Programs {
			// The same line stands there for each log.
			attempt := fmt.Sprint(program, c.Line, c.Log != "")
			if tried[attempt] {
				continue
			}
			tried[attempt] = true
			if out, err := v.run(t, program, c.Line, p); err != nil {
				t.Errorf("cosign %s, %s: %v\n%s", program, c.Title, err, out)
			}
			if c.Log == "" {
				continue
			}
			if out, err := other.run(t, program, c.Line, p); err == nil {
				t.Errorf("cosign %s, %s accepts another log's key\n%s", program, c.Title, out)
			}
		}
	}
	if len(tried) == 0 {
		t.Error("signer trust-root has no line for it")
	}
	for _, format := range one.formats() {
		args := []string{"-key", v.file("image.pub"), "-trusted-root", v.file("trusted_root.json"), "-format", string(format), "-timestamp"}
		if one.carries(string(format)) {
			args = append(args, "-log")
			wrong := []string{"-key", v.file("image.pub"), "-trusted-root", other.file("trusted_root.json"), "-format", string(format), "-log", v.image(p)}
			if other.sigstoreGo(t, wrong...) == nil {
				t.Errorf("sigstore-go accepts another log's key in the format %s", format)
			}
		}
		if err := v.sigstoreGo(t, append(args, v.image(p))...); err != nil {
			t.Errorf("format %s: %v", format, err)
		}
	}
}

// refuseUnlogged tries all lines on what has neither an entry nor a timestamp.
func (v *verifiers) refuseUnlogged(t *testing.T, p harness.Pushed) {
	t.Helper()
	tried := make(map[string]bool)
	for _, c := range v.document.Commands {
		for _, program := range c.Programs {
			wanted := c.Log == "" && c.Authority == ""
			attempt := fmt.Sprint(program, c.Line, wanted)
			if tried[attempt] {
				continue
			}
			tried[attempt] = true
			if out, err := v.run(t, program, c.Line, p); (err == nil) != wanted {
				t.Errorf("cosign %s, %s: %v, want success: %v\n%s", program, c.Title, err, wanted, out)
			}
		}
	}
	for _, format := range formats()[:2] {
		args := []string{"-key", v.file("image.pub"), "-trusted-root", v.file("trusted_root.json"), "-format", format}
		for flag, wanted := range map[string]bool{"": true, "-log": false, "-timestamp": false} {
			asked := slices.DeleteFunc(append(slices.Clone(args), flag, v.image(p)), func(arg string) bool { return arg == "" })
			if err := v.sigstoreGo(t, asked...); (err == nil) != wanted {
				t.Errorf("sigstore-go, %s, asked for %q: %v, want success: %v", format, flag, err, wanted)
			}
		}
	}
}
