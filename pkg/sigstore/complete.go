package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// completions says which notes which layers of a manifest get, by their index.
type completions map[int]map[string]string

// add adds the notes that a layer has not.
func (c completions) add(at int, layer descriptor, notes map[string]string) {
	for name, text := range notes {
		if _, has := layer.Annotations[name]; has {
			continue
		}
		if c[at] == nil {
			c[at] = make(map[string]string)
		}
		c[at][name] = text
	}
}

// completable says which layers of a manifest that was parsed can get further notes.
func completable(raw []byte) map[int]bool {
	can := make(map[int]bool)
	ends, err := noteEnds(raw)
	if err != nil {
		return can
	}
	for i, end := range ends {
		can[i] = end > 0
	}
	return can
}

// complete gives a manifest whose layers have further notes. Nothing else changes, byte for byte.
func (p imageManifest) complete(raw []byte, more completions) ([]byte, error) {
	if len(more) == 0 {
		return raw, nil
	}
	ends, err := noteEnds(raw)
	if err != nil {
		return nil, malformed(err)
	}
	var parts [][]byte
	done, size := 0, len(raw)
	for _, i := range slices.Sorted(maps.Keys(more)) {
		if i >= len(ends) || ends[i] == 0 {
			return nil, malformed(fmt.Errorf("layer %d has no annotations", i))
		}
		added, err := encodeNotes(more[i])
		if err != nil {
			return nil, err
		}
		// Before it is made: a long note for many layers would not fit into memory either.
		if size += len(added); size > artifact.MaxManifest {
			return nil, fault.Newf(fault.Permanent, fault.TooLarge,
				"with its log entries and timestamps the signature manifest has more than %d bytes, which are not allowed: delete it and sign again",
				artifact.MaxManifest)
		}
		parts = append(parts, raw[done:ends[i]], added)
		done = ends[i]
	}
	return slices.Concat(append(parts, raw[done:])...), nil
}

// encodeNotes gives members of an object as they follow another one, in the order of their names.
func encodeNotes(notes map[string]string) ([]byte, error) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		for i, text := range []string{name, notes[name]} {
			raw, err := json.Marshal(text)
			if err != nil {
				return nil, fmt.Errorf("writing an annotation: %w", err)
			}
			b.WriteByte(",:"[i])
			b.Write(raw)
		}
	}
	return b.Bytes(), nil
}

// noteEnds finds, for each layer of a manifest that was parsed, the offset behind the last one of its annotations; 0 for a
// layer that has none, or whose annotations could be read in two ways.
func noteEnds(raw []byte) ([]int, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := expect(d, '{'); err != nil {
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		if name != "layers" {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return nil, err
			}
			continue
		}
		if err := expect(d, '['); err != nil {
			return nil, err
		}
		var ends []int
		for d.More() {
			var layer json.RawMessage
			if err := d.Decode(&layer); err != nil {
				return nil, err
			}
			end := noteEnd(layer)
			if end > 0 {
				end += int(d.InputOffset()) - len(layer)
			}
			ends = append(ends, end)
		}
		return ends, nil
	}
	return nil, errors.New("it has no layers")
}

// noteEnd is noteEnds of one layer.
func noteEnd(layer []byte) int {
	d := json.NewDecoder(bytes.NewReader(layer))
	if expect(d, '{') != nil {
		return 0
	}
	end := 0
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return 0
		}
		if !strings.EqualFold(name, "annotations") {
			var skipped json.RawMessage
			if d.Decode(&skipped) != nil {
				return 0
			}
			continue
		}
		if end > 0 || name != "annotations" {
			return 0
		}
		if end = skipMembers(d); end == 0 {
			return 0
		}
	}
	return end
}

// skipMembers reads an object of strings and gives the offset behind its last member; 0 if it has none, or one twice.
func skipMembers(d *json.Decoder) int {
	if expect(d, '{') != nil {
		return 0
	}
	end, seen := 0, make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok || seen[name] {
			return 0
		}
		seen[name] = true
		var text string
		if d.Decode(&text) != nil {
			return 0
		}
		end = int(d.InputOffset())
	}
	if expect(d, '}') != nil {
		return 0
	}
	return end
}

// materialOf is how much material a layer has.
func materialOf(layer descriptor) int {
	n := 0
	for _, name := range materialNotes() {
		if isMaterial(name, layer.Annotations[name]) {
			n++
		}
	}
	return n
}

// offer adds a layer's material to notes, but for the kinds that are there already.
func offer(notes map[string]string, from descriptor) {
	for _, name := range materialNotes() {
		if _, there := notes[name]; !there && isMaterial(name, from.Annotations[name]) {
			notes[name] = from.Annotations[name]
		}
	}
}
