package sigstore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	entryNote       = "dev.sigstore.cosign/bundle"
	timestampNote   = "dev.sigstore.cosign/rfc3161timestamp"
	certificateNote = "dev.sigstore.cosign/certificate"
)

// layersOf gives the layers of a manifest as they are written.
func layersOf(tb testing.TB, m artifact.Manifest) []json.RawMessage {
	tb.Helper()
	return parse(tb, m.Raw).Layers
}

// TestAppendCompletes: our layer, and only it, gets what it lacks; everything else stays, byte for byte.
func TestAppendCompletes(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	full := d.sign(t, "p256", artifact.Legacy, "one", true)
	strip := func(entry, stamp bool) artifact.Signature {
		s := full
		if !entry {
			s.Entry = nil
		}
		if !stamp {
			s.Timestamp = nil
		}
		return s
	}
	for name, tt := range map[string]struct{ have, add artifact.Signature }{
		"nothing, then both":              {strip(false, false), full},
		"nothing, then an entry":          {strip(false, false), strip(true, false)},
		"nothing, then a timestamp":       {strip(false, false), strip(false, true)},
		"a timestamp, then an entry":      {strip(false, true), strip(true, false)},
		"an entry, then a timestamp":      {strip(true, false), strip(false, true)},
		"a timestamp, then both":          {strip(false, true), full},
		"both, then nothing":              {full, strip(false, false)},
		"both, then both":                 {full, full},
		"an entry, then the same and one": {strip(true, false), full},
	} {
		for _, indent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, indented %v", name, indent), func(t *testing.T) {
				t.Parallel()
				// Between two of others, whose layers and unknown fields are to stay.
				before := manifestOf(t, foreign(1, map[string]string{"z": "<&>"}), layersOf(t, d.attach(t, tt.have).m)[0], with(foreign(2, nil), "urls", []any{"u"}))
				if indent {
					before.Raw = indented(t, before.Raw)
					before.Digest = artifact.DigestOf(before.Raw)
				}
				after, pieces, err := d.legacy.Append(&before, tt.add)
				if err != nil || len(pieces) != 0 {
					t.Fatalf("Append() = %d blobs, %v, want none: the registry has what the layer refers to", len(pieces), err)
				}
				checkOthersStay(t, before.Raw, after.Raw, 1)
				if after.Digest != artifact.DigestOf(after.Raw) || after.MediaType != before.MediaType {
					t.Errorf("the manifest says digest %s and type %s of itself", after.Digest, after.MediaType)
				}
				got, err := d.legacy.Verify(t.Context(), after, claim(), anyKey, noFetch(t))
				if err != nil || len(got) != 1 {
					t.Fatalf("Verify() = %d signatures, %v, want 1", len(got), err)
				}
				entry, stamped := tt.have.Entry != nil || tt.add.Entry != nil, tt.have.Timestamp != nil || tt.add.Timestamp != nil
				checkMaterial(t, "Verify()", got[0], full, "one", entry, stamped, d.within())
				again, pieces, err := d.legacy.Append(&after, tt.add)
				if err != nil || !bytes.Equal(again.Raw, after.Raw) || pieces != nil {
					t.Errorf("appending twice gives\n%s, %d blobs, %v, want\n%s", again.Raw, len(pieces), err, after.Raw)
				}
			})
		}
	}
}

// checkOthersStay checks that after is before but for insertions into one layer.
func checkOthersStay(tb testing.TB, before, after []byte, layer int) {
	tb.Helper()
	was, is := parse(tb, before).Layers, parse(tb, after).Layers
	if len(was) != len(is) {
		tb.Fatalf("%d layers became %d, want as many:\n%s", len(was), len(is), after)
	}
	from := bytes.Index(before, was[layer])
	to := len(before) - from - len(was[layer])
	if !bytes.HasPrefix(after, before[:from]) || !bytes.HasSuffix(after, before[len(before)-to:]) {
		tb.Errorf("before:\n%s\nafter:\n%s\nwant a change in layer %d alone", before, after, layer)
	}
	// The layer itself only has something put in.
	rest := is[layer]
	for len(rest) > 0 && len(was[layer]) > 0 && rest[0] == was[layer][0] {
		rest, was[layer] = rest[1:], was[layer][1:]
	}
	if !bytes.HasSuffix(rest, was[layer]) {
		tb.Errorf("the layer became\n%s, want an insertion at one place", is[layer])
	}
}

// What stands in the place of an entry and is not proven must not keep the proven one out, and is not ours to remove.
func TestAppendBesideWhatIsNotProven(t *testing.T) {
	t.Parallel()
	d, stranger := newDeployment(t), newDeployment(t)
	full := d.sign(t, "p256", artifact.Legacy, "one", true)
	wrong := stranger.signLike(t, full, "one")
	for name, have := range map[string]string{
		"entry of another log": string(layersOf(t, d.attach(t, wrong).m)[0]),
		"entry that is none":   strings.Replace(string(layersOf(t, d.attach(t, full).m)[0]), `{\"SignedEntryTimestamp`, `{\"X`, 1),
		"annotations twice":    strings.Replace(string(layersOf(t, d.attach(t, plainly(full)).m)[0]), `"annotations"`, `"Annotations":{"a":"b"},"annotations"`, 1),
		"a note twice":         strings.Replace(string(layersOf(t, d.attach(t, plainly(full)).m)[0]), `"annotations":{`, `"annotations":{"a":"1","a":"2",`, 1),
	} {
		before := manifestOf(t, json.RawMessage(have))
		after, pieces, err := d.legacy.Append(&before, full)
		if err != nil || len(pieces) == 0 {
			t.Fatalf("%s: Append() = %d blobs, %v, want the payload", name, len(pieces), err)
		}
		checkInserted(t, before.Raw, after.Raw)
		got, err := d.legacy.Verify(t.Context(), after, claim(), anyKey, noFetch(t))
		if err != nil || !slices.ContainsFunc(got, artifact.Signature.Logged) {
			t.Errorf("%s: Verify() = %+v, %v, want the logged signature among them", name, got, err)
		}
		again, _, err := d.legacy.Append(&after, full)
		if err != nil || !bytes.Equal(again.Raw, after.Raw) {
			t.Errorf("%s: appending twice gives\n%s, %v, want\n%s", name, again.Raw, err, after.Raw)
		}
	}
}

func plainly(s artifact.Signature) artifact.Signature {
	s.Entry, s.Timestamp = nil, nil
	return s
}

// Another proof of the same is as good: a log signs its promise anew each time that it is asked.
func TestAppendKeepsWhatIsProven(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for _, key := range []string{"p256", "keyless"} {
		first := d.sign(t, key, artifact.Legacy, "one", true)
		later := d.signLike(t, first, "one")
		later.Timestamp = d.authority.stamp(t, later.Bytes, d.within().Add(1e9))
		before := d.attach(t, first).m
		after, pieces, err := d.legacy.Append(&before, later)
		if err != nil || pieces != nil || !bytes.Equal(after.Raw, before.Raw) {
			t.Errorf("%s: Append() = %d blobs, %v, manifest\n%s, want it as it is\n%s", key, len(pieces), err, after.Raw, before.Raw)
		}
	}
}

func TestAppendCompletesKeyless(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	stamped := d.sign(t, "keyless", artifact.Legacy, "", true)
	both := d.signLike(t, stamped, "one")
	before := d.attach(t, stamped).m
	after, _, err := d.legacy.Append(&before, both)
	if err != nil {
		t.Fatal(err)
	}
	checkOthersStay(t, before.Raw, after.Raw, 0)
	got, err := d.legacy.Verify(t.Context(), after, claim(), anyKey, noFetch(t))
	if err != nil || len(got) != 1 || !got[0].Logged() || len(got[0].Certificates) != 3 {
		t.Errorf("Verify() = %+v, %v, want the logged signature with its chain", got, err)
	}
}

func TestAppendCompletesWithinLimits(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	full := d.sign(t, "p256", artifact.Legacy, "one", true)
	plain := layersOf(t, d.attach(t, plainly(full)).m)[0]
	short := manifestOf(t, plain, foreign(1, map[string]string{"x": ""}))
	wide := manifestOf(t, plain, foreign(1, map[string]string{"x": strings.Repeat("x", artifact.MaxManifest-len(short.Raw))}))
	_, _, err := d.legacy.Append(&wide, full)
	if f := fault.Of(orNone(err)); f.Kind != fault.Permanent || f.Reason != fault.TooLarge {
		t.Errorf("Append() to %d bytes = %v, want a permanent fault, too_large", len(wide.Raw), err)
	}
	// A manifest that is full of signatures can be completed all the same.
	crowd := manifestOf(t, append(manyLayers(999), plain)...)
	after, _, err := d.legacy.Append(&crowd, full)
	if err != nil {
		t.Fatal(err)
	}
	checkOthersStay(t, crowd.Raw, after.Raw, 999)
}

// A writer that knew nothing of a log entry does not undo it, whatever the order.
func TestMergeCompletes(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	full := d.sign(t, "p256", artifact.Legacy, "one", true)
	logged, stamped := full, full
	logged.Timestamp, stamped.Entry = nil, nil
	plain, withEntry, withStamp := d.attach(t, plainly(full)).m, d.attach(t, logged).m, d.attach(t, stamped).m
	junk := manifestOf(t, json.RawMessage(strings.Replace(string(layersOf(t, plain)[0]), `"annotations":{`, `"annotations":{"`+entryNote+`":"junk","`+certificateNote+`":"junk",`, 1)))
	others := []artifact.Manifest{plain, withEntry, withStamp, junk}
	for name, current := range map[string]*artifact.Manifest{"plain": &plain, "logged": &withEntry, "stamped": &withStamp, "none": nil} {
		from := others
		if current == nil {
			from = others[:3] // what cannot be read as an entry would keep its place
		}
		m, err := d.legacy.Merge(current, from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.legacy.Verify(t.Context(), m, claim(), anyKey, noFetch(t))
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: Verify() = %d signatures, %v, want 1 in\n%s", name, len(got), err, m.Raw)
		}
		checkMaterial(t, name, got[0], full, "one", true, true, d.within())
		if current != nil {
			checkOthersStay(t, current.Raw, m.Raw, 0)
		}
	}
	// What is read is more than what is only noted.
	noted := manifestOf(t, json.RawMessage(strings.Replace(string(layersOf(t, plain)[0]), `"annotations":{`, `"annotations":{"a":"1","b":"2","c":"3",`, 1)))
	elsewhere := manifestOf(t, foreign(1, nil))
	for _, from := range [][]artifact.Manifest{{noted, withEntry}, {withEntry, noted}} {
		m, err := d.legacy.Merge(&elsewhere, from)
		if layers := layersOf(t, m); err != nil || len(layers) != 2 || !bytes.Equal(layers[1], layersOf(t, withEntry)[0]) {
			t.Errorf("Merge() gives %s, %v, want the layer with the entry", m.Raw, err)
		}
	}
	// Another one between: its layer stays as it is.
	current := manifestOf(t, foreign(1, nil), layersOf(t, plain)[0])
	m, err := d.legacy.Merge(&current, others)
	if err != nil {
		t.Fatal(err)
	}
	checkOthersStay(t, current.Raw, m.Raw, 1)
}

// Several layers are completed at once, each with its own.
func TestMergeCompletesSeveral(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, verifyOnly("second"))
	first := d.sign(t, "p256", artifact.Legacy, "one", true)
	second := d.signLike(t, sign(t, "second", artifact.Legacy, claim()), "one")
	current := manifestOf(t, layersOf(t, d.attach(t, plainly(first)).m)[0], foreign(1, nil), layersOf(t, d.attach(t, plainly(second)).m)[0])
	m, err := d.legacy.Merge(&current, []artifact.Manifest{d.attach(t, first).m, d.attach(t, second).m})
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.legacy.Verify(t.Context(), m, claim(), anyKey, noFetch(t))
	if err != nil || len(got) != 2 || !got[0].Logged() || !got[1].Logged() || len(layersOf(t, m)) != 3 {
		t.Errorf("Verify() = %+v, %v, want both signatures with their entries in\n%s", got, err, m.Raw)
	}
}

// Whoever completes and merges in whatever order, what was proven stays, nobody's layer goes, and it comes to an end.
func TestCompletingConverges(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	full := d.sign(t, "p256", artifact.Legacy, "one", true)
	rapid.Check(t, func(rt *rapid.T) {
		var history []artifact.Manifest
		var current *artifact.Manifest
		logged, stamped := false, false
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			s := full
			if !rapid.Bool().Draw(rt, "entry") {
				s.Entry = nil
			}
			if !rapid.Bool().Draw(rt, "timestamp") {
				s.Timestamp = nil
			}
			// A slow writer starts from what was there before.
			from := current
			if len(history) > 0 && rapid.Bool().Draw(rt, "slow") {
				from = &history[rapid.IntRange(0, len(history)-1).Draw(rt, "at")]
			}
			m, _, err := d.legacy.Append(from, s)
			if err != nil {
				rt.Fatal(err)
			}
			logged, stamped = logged || s.Entry != nil, stamped || s.Timestamp != nil
			if rapid.Bool().Draw(rt, "with another") {
				if m, _, err = d.legacy.Append(&m, sign(t, "second", artifact.Legacy, claim())); err != nil {
					rt.Fatal(err)
				}
			}
			history = append(history, m)
			merged, err := d.legacy.Merge(&m, history)
			if err != nil {
				rt.Fatal(err)
			}
			history = append(history, merged)
			current = &merged
		}
		got, err := d.legacy.Verify(t.Context(), *current, claim(), anyKey, noFetch(t))
		if err != nil || len(got) != 1 || got[0].Logged() != logged || (got[0].Timestamp != nil) != stamped {
			rt.Errorf("Verify() = %+v, %v, want one signature, logged: %v, with a timestamp: %v", got, err, logged, stamped)
		}
		again, err := d.legacy.Merge(current, rapid.Permutation(history).Draw(rt, "order"))
		if err != nil || !bytes.Equal(again.Raw, current.Raw) {
			rt.Errorf("merging again gives\n%s, %v, want\n%s", again.Raw, err, current.Raw)
		}
	})
}
