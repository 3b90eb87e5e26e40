//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/failpoint"
)

// breakableWorld prepares a system whose programs have failpoints.
func breakableWorld(t *testing.T, options ...option) *world {
	t.Helper()
	programs, err := env.breakable()
	if err != nil {
		t.Fatal(err)
	}
	return prepareWorld(t, append(options, func(o *harness.Options) {
		o.Programs = programs
		o.AckWait = time.Second
	})...)
}

// startSwept starts the receiver, and the signer for as long as the first sweeps take: what a killed signer leaves of them would be
// worked on by a later one, at a time that nobody knows. It gives the signer, which does not run.
func (w *world) startSwept(t *testing.T) *harness.Program {
	t.Helper()
	signer := w.Signers[0]
	for _, p := range []*harness.Program{w.Receiver, signer} {
		if err := w.StartProgram(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	w.firstSweeps(t)
	if err := signer.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	return signer
}

// pointsOfLogs are those that only a request passes which needs a log or a timestamp.
func pointsOfLogs() []string {
	return []string{
		failpoint.SigningAfterTimestamp, failpoint.SigningAfterLog, failpoint.SigningAfterFinishKeep, failpoint.SigningAfterDebt,
	}
}

// kill -9 of the signer between any two steps leaves one signature for each manifest, and the right record.
func TestSignerKilledAtEachStep(t *testing.T) {
	w := breakableWorld(t)
	signer := w.startSwept(t)
	for _, point := range pointsOf(t, "signing/") {
		if slices.Contains(pointsOfLogs(), point) {
			continue // TestSignerKilledWithALog passes them
		}
		t.Run(strings.TrimPrefix(point, "signing/"), func(t *testing.T) {
			if err := w.StartProgram(t.Context(), signer, failpoint.EnvPoint+"="+point+"=kill"); err != nil {
				t.Fatal(err)
			}
			// An index and its manifests pass every step that there is.
			index, err := harness.NewIndex("linux/amd64")
			w.push(t, "app", harness.Random("v"), index, err)
			w.awaitKilled(t, signer)
			if err := w.StartProgram(t.Context(), signer); err != nil {
				t.Fatal(err)
			}
			w.awaitAll(t)
			if err := signer.Process.Stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// With two formats to sign in, kill -9 between the two signatures of one manifest leaves the first one, and the next attempt
// adds the second.
func TestSignerKilledBetweenFormats(t *testing.T) {
	w := breakableWorld(t)
	if formats, err := w.Formats(t.Context()); err != nil || len(formats) != 2 {
		t.Fatalf("the formats are %q, %v, want two: a Harbor before 2.15 has no bundles", formats, err)
	}
	signer := w.startSwept(t)
	legacy, both := []checker.Format{checker.Legacy}, checker.Formats()
	for _, tt := range []struct {
		point string
		// left is in which formats the image is signed when the signer is dead.
		left []checker.Format
		// how is what the report says then of the signature.
		how string
	}{
		{failpoint.SigningAfterVerify, legacy, "made"},
		{failpoint.SigningAfterSign + "@2", legacy, "made"},
		{failpoint.SigningAfterKeep + "@2", legacy, "made"},
		{failpoint.SigningAfterPayload + "@2", legacy, "made"},
		{failpoint.SigningAfterAttach + "@2", both, "found"},
		{failpoint.SigningAfterVerify + "@2", both, "found"},
	} {
		t.Run(strings.TrimPrefix(tt.point, "signing/"), func(t *testing.T) {
			if err := w.StartProgram(t.Context(), signer, failpoint.EnvPoint+"="+tt.point+"=kill"); err != nil {
				t.Fatal(err)
			}
			// A single manifest passes the steps in their order.
			p := w.pushImage(t, "app", harness.Random("v"))
			w.awaitKilled(t, signer)
			found, err := w.checker.Look(t.Context(), p.Repository, p.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if got := found.Formats(); !slices.Equal(got, tt.left) {
				t.Errorf("the dead signer has left signatures in the formats %q, want %q", got, tt.left)
			}
			if err := w.StartProgram(t.Context(), signer); err != nil {
				t.Fatal(err)
			}
			w.awaitAll(t)
			if row := w.awaitState(t, p, "signed"); row.How != tt.how {
				t.Errorf("the report says that the signature was %q, want %q", row.How, tt.how)
			}
			if err := signer.Process.Stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A key that never makes the same signature twice, as in a KMS, makes one that counts all the same: what was made before a
// crash is kept, and whoever comes next attaches that and not its own.
func TestKeptSignatures(t *testing.T) {
	dir := t.TempDir()
	vault, err := harness.StartVault(t.Context(), dir, "randomised")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vault.Close(); err != nil {
			t.Error(err)
		}
	})
	w := breakableWorld(t, func(o *harness.Options) { o.Keys = []harness.Key{vault.Key} })
	signer := w.startSwept(t)
	for _, tt := range []struct {
		point string
		// repeated is the format whose signature was kept and not attached.
		repeated checker.Format
	}{
		{failpoint.SigningAfterKeep, checker.Legacy},
		{failpoint.SigningAfterKeep + "@2", checker.Bundle},
		{failpoint.SigningAfterPayload, checker.Legacy},
		{failpoint.SigningAfterPayload + "@2", checker.Bundle},
	} {
		t.Run(strings.TrimPrefix(tt.point, "signing/"), func(t *testing.T) {
			if err := w.StartProgram(t.Context(), signer, failpoint.EnvPoint+"="+tt.point+"=kill"); err != nil {
				t.Fatal(err)
			}
			p := w.pushImage(t, "app", harness.Random("v"))
			w.awaitKilled(t, signer)
			if err := w.StartProgram(t.Context(), signer); err != nil {
				t.Fatal(err)
			}
			w.awaitAll(t)
			found, err := w.checker.Look(t.Context(), p.Repository, p.Digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range found.Valid() {
				raw := []byte(s.Bytes)
				if s.Format == checker.Legacy {
					if raw, err = base64.StdEncoding.DecodeString(s.Bytes); err != nil {
						t.Fatal(err)
					}
				}
				made, want := vault.Alike(raw), 1
				if s.Format == tt.repeated {
					want = 2 // before the crash and after it
				}
				if len(made) != want || !bytes.Equal(made[0], raw) {
					t.Errorf("in the format %s %d signatures were made, want %d, and the first one attached", s.Format, len(made), want)
				}
			}
			if err := signer.Process.Stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// kill -9 of the receiver between any two steps loses nothing: Harbor was not answered, and tries again.
func TestReceiverKilledAtEachStep(t *testing.T) {
	w := breakableWorld(t)
	for i, point := range pointsOf(t, "receiver/") {
		t.Run(strings.TrimPrefix(point, "receiver/"), func(t *testing.T) {
			if err := w.StartProgram(t.Context(), w.Receiver, failpoint.EnvPoint+"="+point+"=kill"); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if err := w.StartProgram(t.Context(), w.Signers[0]); err != nil {
					t.Fatal(err)
				}
			}
			w.pushImage(t, "app", harness.Random("v"))
			w.awaitKilled(t, w.Receiver)
			if err := w.StartProgram(t.Context(), w.Receiver); err != nil {
				t.Fatal(err)
			}
			w.awaitAll(t)
			for _, p := range w.pushed {
				if row := w.awaitState(t, p, "signed"); row.ReceivedAt == nil {
					t.Errorf("%s has no webhook in the report", p.Digest)
				}
			}
			if err := w.Receiver.Process.Stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// pointsOf gives the failpoints of one program.
func pointsOf(t *testing.T, prefix string) []string {
	t.Helper()
	var points []string
	for _, point := range failpoint.Names() {
		if strings.HasPrefix(point, prefix) {
			points = append(points, point)
		}
	}
	if len(points) == 0 {
		t.Fatalf("there are no failpoints %s…", prefix)
	}
	return points
}
