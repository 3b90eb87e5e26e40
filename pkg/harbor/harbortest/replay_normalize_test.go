package harbortest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// recordedHost is the address that the recorded Harbor had.
const recordedHost = "127.0.0.1:18080"

// normalizer masks what may differ between two Harbors: times (a zero time stays one), ids, secrets, tokens, the
// address, and content digests, which are numbered by their first appearance, so that "the same digest again" must
// stay the same.
type normalizer struct {
	host    string
	digests map[string]string
	hex     *regexp.Regexp
	time    *regexp.Regexp
}

func newNormalizer(host string) *normalizer {
	return &normalizer{
		host: host, digests: make(map[string]string), hex: regexp.MustCompile(`\b[0-9a-f]{64}\b`),
		time: regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?`),
	}
}

func (n *normalizer) text(s string) string {
	s = strings.ReplaceAll(s, n.host, "HOST")
	s = n.hex.ReplaceAllStringFunc(s, func(hex string) string {
		if n.digests[hex] == "" {
			n.digests[hex] = fmt.Sprintf("digest-%d", len(n.digests)+1)
		}
		return n.digests[hex]
	})
	return n.time.ReplaceAllStringFunc(s, func(at string) string {
		layout := regexp.MustCompile(`\d`).ReplaceAllString(at, "0")
		if strings.HasPrefix(at, "0001-") {
			return "ZERO " + layout
		}
		return "TIME " + layout
	})
}

// value masks a decoded JSON value. Object keys are walked in order, so that digests are numbered alike on both sides.
func (n *normalizer) value(t *testing.T, key string, value any) any {
	t.Helper()
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out[k] = n.value(t, k, v[k])
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = n.value(t, key, item)
		}
		return out
	case string:
		switch key {
		case "icon":
			return v // Harbor's own constants.
		case "secret":
			return fmt.Sprintf("SECRET of %d", len(v))
		case "token":
			return n.token(t, v)
		case "payload":
			var inner any
			if err := json.Unmarshal([]byte(v), &inner); err != nil {
				t.Fatalf("decoding the payload %q: %v", v, err)
			}
			return n.value(t, "", inner)
		default:
			return n.text(v)
		}
	case float64:
		return n.number(key, v)
	default:
		return v
	}
}

func (n *normalizer) number(key string, v float64) any {
	switch key {
	case "id", "artifact_id", "child_id", "parent_id", "project_id", "repository_id", "subject_artifact_id",
		"execution_id", "vendor_id":
		return "ID"
	case "occur_at", "date_created", "exp", "nbf", "iat":
		return "UNIX TIME"
	case "expires_at":
		if v > 0 {
			return "UNIX TIME"
		}
	}
	return v
}

// token shows what a registry token says.
func (n *normalizer) token(t *testing.T, raw string) any {
	t.Helper()
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		t.Fatalf("token %q: got %d parts, want 3", raw, len(parts))
	}
	var out []any
	for _, part := range parts[:2] {
		decoded, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatalf("decoding the token: %v", err)
		}
		var fields map[string]any
		if err := json.Unmarshal(decoded, &fields); err != nil {
			t.Fatalf("decoding the token: %v", err)
		}
		if fields["exp"] != nil {
			expires, _ := fields["exp"].(float64)
			issued, _ := fields["iat"].(float64)
			fields["life"] = fmt.Sprint(expires - issued)
		}
		for _, secret := range []string{"kid", "jti"} {
			if _, ok := fields[secret]; ok {
				fields[secret] = "MASKED"
			}
		}
		out = append(out, n.value(t, "", fields))
	}
	return out
}

// render prints a body for comparison: JSON normalised and indented, anything else as masked text.
func (n *normalizer) render(t *testing.T, body []byte) string {
	t.Helper()
	var decoded any
	if err := json.Unmarshal(body, &decoded); err != nil {
		return n.text(string(body))
	}
	if s, ok := decoded.(string); ok {
		return n.text(s)
	}
	out, err := json.MarshalIndent(n.value(t, "", decoded), "", " ")
	if err != nil {
		t.Fatalf("encoding: %v", err)
	}
	return string(out)
}

// firstDifference points at the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		line := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(end)"
		}
		if line(g) != line(w) {
			from := max(0, i-6)
			return fmt.Sprintf("line %d:\n got: %s\nwant: %s\nafter:\n%s", i+1, line(g), line(w),
				strings.Join(w[from:min(i, len(w))], "\n"))
		}
	}
	return ""
}
