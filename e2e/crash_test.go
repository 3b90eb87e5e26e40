//go:build e2e

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/failpoint"
)

// breakableWorld prepares a system whose programs have failpoints.
func breakableWorld(t *testing.T) *world {
	t.Helper()
	programs, err := env.breakable()
	if err != nil {
		t.Fatal(err)
	}
	return prepareWorld(t, func(o *harness.Options) {
		o.Programs = programs
		o.AckWait = time.Second
	})
}

// kill -9 of the signer between any two steps leaves one signature for each manifest, and the right record.
func TestSignerKilledAtEachStep(t *testing.T) {
	w := breakableWorld(t)
	if err := w.StartProgram(t.Context(), w.Receiver); err != nil {
		t.Fatal(err)
	}
	signer := w.Signers[0]
	for _, point := range pointsOf(t, "signing/") {
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
