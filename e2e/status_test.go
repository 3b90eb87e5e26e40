//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

const (
	// wakeWithin is how long after a signature those who wait for it hear of it.
	wakeWithin = time.Second
	// staleWithin is for how long something may be called signed that is not any more: pkg/status says so.
	staleWithin = 10 * time.Second
)

// standing is what the status says of an image.
type standing struct {
	Digest     string `json:"digest"`
	State      string `json:"state"`
	Reason     string `json:"reason"`
	WhatToDo   string `json:"what_to_do"`
	Signatures []struct {
		Digest string `json:"digest"`
	} `json:"signatures"`
	Children *struct {
		Total  int `json:"total"`
		Signed int `json:"signed"`
	} `json:"children"`
}

// later is an answer that comes when it comes.
type later struct {
	harness.Answer
	at  time.Time
	err error
}

// status asks how an image stands.
func (w *world) status(ctx context.Context, who harness.Credentials, query string) later {
	answer, err := w.Call(ctx, who, http.MethodGet, "/api/v1/status?"+query, nil, nil)
	return later{answer, time.Now(), err}
}

// stands asks how an image stands, and wants a status.
func (w *world) stands(t *testing.T, who harness.Credentials, query string, code int) standing {
	t.Helper()
	answer := w.status(t.Context(), who, query)
	if answer.err != nil {
		t.Fatal(answer.err)
	}
	return decoded[standing](t, must(t, "the status with "+query, answer.Answer, code))
}

// waiter asks for an image that is not signed yet, and returns when the receiver says that somebody waits.
func (w *world) waiter(t *testing.T, who harness.Credentials, query string) <-chan later {
	t.Helper()
	answer := make(chan later, 1)
	go func() { answer <- w.status(t.Context(), who, "wait=60s&"+query) }()
	w.awaitWaiter(t)
	return answer
}

// awaitWaiter waits until somebody waits.
func (w *world) awaitWaiter(t *testing.T) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		metrics, err := w.Metrics(ctx, w.Receiver)
		if err == nil && metrics.Sum("harborseal_status_waiting") != 1 {
			err = fmt.Errorf("%v wait, want one", metrics.Sum("harborseal_status_waiting"))
		}
		return err
	})
}

func (w *world) tagged(p harness.Pushed) string {
	return w.site.Harbor.Host + "/" + p.Repository + ":" + p.Tag
}

// statusCase is a system on a Harbor of its own, whose webhooks are all lost: nobody asks for an image but who asks how it stands.
type statusCase struct {
	*managed
	robot, stranger, reader harness.Credentials
	signed, other           string
}

// Whoever may pull an image is told whether it is signed, is woken when it is, and hears why it will not be.
func TestStatus(t *testing.T) {
	t.Parallel()
	h, names := newEmulator(t, ""), someProjects(2)
	c := &statusCase{managed: newManaged(t, h, names, func(o *harness.Options) { o.Format = "legacy" }), signed: names[0], other: names[1]}
	c.robot = c.site.Developer.Credentials()
	for who, rights := range map[*harness.Credentials]struct {
		project string
		rights  []string
	}{
		&c.stranger: {c.other, harness.DeveloperRights()},
		&c.reader:   {c.signed, []string{"repository:pull"}},
	} {
		robot, err := h.CreateRobot(t.Context(), harness.Random("status-"), rights.rights, rights.project)
		if err != nil {
			t.Fatal(err)
		}
		*who = robot.Credentials() // which ends with its Harbor
	}
	c.enable(t, c.signed, settings{"backfill": "none"})
	c.faults(t, harness.Faults{LoseWebhooks: true})
	t.Run("unknown to the ledger", c.unknown)
	t.Run("no right", c.noRight)
	t.Run("index", c.index)
	t.Run("woken", c.woken)
	t.Run("signature deleted", c.deleted)
	t.Run("tampered", c.tampered)
	t.Run("by hand", c.byHand)
	t.Run("given up", c.givenUp)
	t.Run("harbor is down", c.down)
	t.Run("shutdown", c.shutdown)
}

func (c *statusCase) faults(t *testing.T, f harness.Faults) {
	t.Helper()
	if err := c.site.Harbor.SetFaults(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// signedImage pushes an image that is signed because somebody asked how it stands.
func (c *statusCase) signedImage(t *testing.T, name string) harness.Pushed {
	t.Helper()
	p := c.pushAside(t, c.signed+"/"+name, "v1")
	c.stands(t, c.robot, "wait=10s&image="+c.image(p), http.StatusOK)
	return p
}

func (c *statusCase) unknown(t *testing.T) {
	p := c.pushInto(t, c.signed+"/unknown", "v1")
	first := c.stands(t, c.robot, "image="+c.tagged(p), http.StatusAccepted)
	if first.Reason != "asked" || first.Digest != p.Digest {
		t.Errorf("at first it stands so: %+v, want that it was asked for", first)
	}
	for _, image := range []string{c.tagged(p), c.image(p)} {
		got := c.stands(t, c.reader, "wait=10s&image="+image, http.StatusOK)
		if got.State != "signed" || got.Digest != p.Digest || len(got.Signatures) != 1 {
			t.Errorf("%s stands so: %+v, want its digest, signed once", image, got)
		}
	}
	// A wrong host is refused before anything is asked.
	c.refusedHost(t, "other.example.com/"+p.Repository+":v1")
}

func (c *statusCase) refusedHost(t *testing.T, image string) {
	t.Helper()
	want(t, "an image of another host", c.call(t, c.robot, http.MethodGet, "status?image="+image, nil, nil), http.StatusBadRequest)
}

// noRight compares what is there, without a right, with what is not.
func (c *statusCase) noRight(t *testing.T) {
	p := c.signedImage(t, "secret")
	there := c.call(t, c.stranger, http.MethodGet, "status?image="+c.tagged(p), nil, nil)
	want(t, "without a right", there, http.StatusNotFound)
	for _, repository := range []string{c.signed + "/missing", harness.Random("e2e-") + "/app"} {
		missing := c.call(t, c.stranger, http.MethodGet, "status?image="+c.site.Harbor.Host+"/"+repository+":v1", nil, nil)
		if missing.Status != there.Status || string(missing.Body) != string(there.Body) {
			t.Errorf("what is not there is answered with %d %s, and what is there with %s", missing.Status, missing.Body, there.Body)
		}
	}
	want(t, "what is not there, with the right", c.call(t, c.robot, http.MethodGet, "status?image="+c.site.Harbor.Host+"/"+p.Repository+":v2", nil, nil), http.StatusNotFound)
	want(t, "nobody", c.call(t, harness.Credentials{}, http.MethodGet, "status?image="+c.tagged(p), nil, nil), http.StatusUnauthorized)
}

func (c *statusCase) index(t *testing.T) {
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	p := c.pushTo(t, c.signed+"/index", "v1", index, err)
	c.pushed = append(c.pushed, p.All()...)
	got := c.stands(t, c.robot, "wait=10s&image="+c.tagged(p), http.StatusOK)
	if got.Children == nil || got.Children.Total != len(p.Children) || got.Children.Signed != len(p.Children) {
		t.Errorf("the children are %+v, want %d, all signed", got.Children, len(p.Children))
	}
}

// woken has somebody wait while there is no signer.
func (c *statusCase) woken(t *testing.T) {
	p := c.pushInto(t, c.signed+"/woken", "v1")
	signer := c.Signers[0]
	if err := signer.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	answer := c.waiter(t, c.robot, "image="+c.tagged(p))
	want(t, "without waiting, for curl", c.call(t, c.robot, http.MethodGet, "status?pending=503&image="+c.image(p), nil, nil), http.StatusServiceUnavailable)
	if err := c.StartProgram(t.Context(), signer); err != nil {
		t.Fatal(err)
	}
	got := <-answer
	if got.err != nil {
		t.Fatal(got.err)
	}
	want(t, "who waited", got.Answer, http.StatusOK)
	ledger, err := c.OpenLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	events, err := ledger.Events(t.Context(), "signed")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range events {
		if e.Ref != p.Repository+"@"+p.Digest {
			continue
		}
		found = true
		if after := got.at.Sub(e.Time); after < 0 || after > wakeWithin {
			t.Errorf("the answer came %s after the signature, want within %s", after, wakeWithin)
		}
	}
	if !found {
		t.Error("the ledger does not say when it was signed")
	}
}

// deleted takes the signature away, which Harbor tells nobody.
func (c *statusCase) deleted(t *testing.T) {
	p := c.signedImage(t, "deleted")
	before := c.stands(t, c.robot, "image="+c.image(p), http.StatusOK)
	if err := c.site.Harbor.DeleteArtifact(t.Context(), p.Repository, before.Signatures[0].Digest); err != nil {
		t.Fatal(err)
	}
	gone := time.Now() // from here on nothing but the status asks for it
	c.untilTrue(t, func() error {
		answer := c.status(t.Context(), c.robot, "image="+c.image(p))
		if answer.err != nil {
			return answer.err
		}
		switch {
		case answer.Status == http.StatusAccepted && strings.Contains(string(answer.Body), "signature_missing"):
			return nil
		case answer.at.Sub(gone) > staleWithin+wakeWithin:
			t.Fatalf("%s after its signature was deleted the answer is %d %s, want that it is missing", answer.at.Sub(gone), answer.Status, answer.Body)
		}
		return fmt.Errorf("the answer is %d %s, want that the signature is missing", answer.Status, answer.Body)
	})
	// It was asked for by that, and is there again.
	c.stands(t, c.robot, "wait=10s&image="+c.image(p), http.StatusOK)
	layers, err := c.legacyLayers(t.Context(), t, p)
	if err != nil || len(layers) != 1 {
		t.Errorf("in the registry are the signatures %v, %v, want one", layers, err)
	}
}

// tampered puts the signature of another image in the place of the right one: the ledger knows nothing of it, a live look does.
func (c *statusCase) tampered(t *testing.T) {
	good, p := c.signedImage(t, "good"), c.signedImage(t, "tampered")
	verified := func(p harness.Pushed) bool {
		t.Helper()
		answer := c.call(t, c.reader, http.MethodPost, "verify", map[string]string{"image": c.tagged(p)}, nil)
		return decoded[struct {
			Verified bool `json:"verified"`
		}](t, must(t, "verifying", answer, http.StatusOK)).Verified
	}
	if !verified(good) || !verified(p) {
		t.Error("what is signed is not verified")
	}
	layers, err := c.legacyLayers(t.Context(), t, good)
	if err != nil {
		t.Fatal(err)
	}
	payload := replaceOnce(t, c.blob(t, good.Repository, layers[0].Digest), good.Digest, p.Digest)
	c.put(t, p.Repository, checker.SignatureTag(p.Digest), manifestOf(describeBlob(simpleSigning, payload, layers[0].Annotations)), payload, emptyConfig())
	if row := c.audit(t.Context(), t, p); row.State != "signed" {
		t.Errorf("the report says %q: this test tests nothing", row.State)
	}
	if verified(p) {
		t.Error("a signature over something else is called verified")
	}
	want(t, "verifying without a right", c.call(t, c.stranger, http.MethodPost, "verify", map[string]string{"image": c.tagged(p)}, nil), http.StatusNotFound)
}

// byHand asks for a signature, which needs the right to push.
func (c *statusCase) byHand(t *testing.T) {
	p := c.pushInto(t, c.signed+"/hand", "v1")
	body := map[string]string{"image": c.tagged(p)}
	want(t, "asking as who may pull", c.call(t, c.reader, http.MethodPost, "sign", body, nil), http.StatusForbidden)
	want(t, "asking as a stranger", c.call(t, c.stranger, http.MethodPost, "sign", body, nil), http.StatusNotFound)
	c.unsigned(t, p)
	answer := must(t, "asking as who may push", c.call(t, c.robot, http.MethodPost, "sign", body, nil), http.StatusAccepted)
	if got := decoded[struct{ Digest, Status string }](t, answer); got.Digest != p.Digest || got.Status != "queued" {
		t.Errorf("the answer is %s, want its digest, queued", answer.Body)
	}
	c.stands(t, c.robot, "wait=10s&image="+c.image(p), http.StatusOK)
	e := c.received(t, p)
	if e.Actor != c.robot.Name {
		t.Errorf("%q has asked for it, want %q", e.Actor, c.robot.Name)
	}
}

// received gives the event of an image that was asked for.
func (c *statusCase) received(t *testing.T, p harness.Pushed) harness.Event {
	t.Helper()
	ledger, err := c.OpenLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	events, err := ledger.Events(t.Context(), "received")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Ref == p.Repository+"@"+p.Digest {
			return e
		}
	}
	t.Fatalf("the ledger does not say that %s was asked for", p.Digest)
	return harness.Event{}
}

// givenUp says what to do about what cannot be signed, and about what nobody wants signed.
func (c *statusCase) givenUp(t *testing.T) {
	p := c.pushAside(t, c.signed+"/full", "v1")
	limit := c.quota(t, c.signed)
	limit(1)
	got := c.stands(t, c.robot, "wait=10s&image="+c.image(p), http.StatusConflict)
	if got.State != "dead" || got.Reason != "quota_exceeded" || !strings.Contains(got.WhatToDo, "replay") {
		t.Errorf("it stands so: %+v, want that it was given up, why, and what to do", got)
	}
	limit(-1)
	got = c.stands(t, c.robot, "wait=10s&image="+c.image(c.pushAside(t, c.other+"/app", "v1")), http.StatusConflict)
	if got.Reason != "project_not_enabled" || got.WhatToDo == "" {
		t.Errorf("where nothing is enabled it stands so: %+v, want why, and what to do", got)
	}
}

// down has the registry answer nothing but errors: then nothing is known, and an image is called neither signed nor missing.
func (c *statusCase) down(t *testing.T) {
	p := c.signedImage(t, "down")
	c.faults(t, harness.Faults{Status: http.StatusServiceUnavailable})
	defer c.faults(t, harness.Faults{LoseWebhooks: true})
	for name, who := range map[string]harness.Credentials{"a token": {Token: c.Token}, "a robot": c.reader} {
		answer := c.call(t, who, http.MethodGet, "status?image="+c.tagged(p), nil, nil)
		want(t, name, answer, http.StatusServiceUnavailable)
		if answer.Header.Get("Retry-After") == "" {
			t.Errorf("%s: the answer does not say when to come again", name)
		}
	}
}

// shutdown ends the receiver under somebody who waits. It comes last.
func (c *statusCase) shutdown(t *testing.T) {
	c.untilTrue(t, func() error { // the breaker of Harbor closes first
		answer := c.status(t.Context(), c.robot, "image="+c.site.Harbor.Host+"/"+c.signed+"/down:v1")
		if answer.err == nil && answer.Status != http.StatusOK {
			answer.err = fmt.Errorf("Harbor is back, and the answer is %d %s", answer.Status, answer.Body)
		}
		return answer.err
	})
	c.settled(t)
	signer := c.Signers[0]
	if err := signer.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	p := c.pushInto(t, c.signed+"/shutdown", "v1")
	answer := c.waiter(t, c.robot, "image="+c.image(p))
	began := time.Now()
	if err := c.Receiver.Process.Stop(); err != nil {
		t.Error(err)
	}
	got := <-answer
	if got.err != nil || got.Status != http.StatusAccepted || got.at.Sub(began) > 2*time.Second {
		t.Errorf("when the receiver ends, who waits hears %d %s, %v after %s; want 202 at once", got.Status, got.Body, got.err, got.at.Sub(began))
	}
	for _, program := range []*harness.Program{c.Receiver, signer} {
		if err := c.StartProgram(t.Context(), program); err != nil {
			t.Fatal(err)
		}
	}
	c.awaitSigned(t, c.pushed...)
}

// A receiver without an account in Harbor asks signers what a tag names, and whether the signatures are there.
func TestStatusWithoutAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := harness.Credentials{Token: w.Token}
	p := w.pushImage(t, "app", "v1")
	for _, image := range []string{w.image(p), w.tagged(p)} {
		got := w.stands(t, token, "wait=10s&image="+image, http.StatusOK)
		if got.State != "signed" || got.Digest != p.Digest || len(got.Signatures) == 0 {
			t.Errorf("%s stands so: %+v, want its digest, signed", image, got)
		}
	}
	missing := w.status(t.Context(), token, "image="+w.site.Harbor.Host+"/"+p.Repository+":v2")
	if missing.err != nil || missing.Status != http.StatusNotFound || !json.Valid(missing.Body) {
		t.Errorf("a tag that is not there: %d %s, %v, want 404", missing.Status, missing.Body, missing.err)
	}
	w.awaitAll(t)
}
