package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Limits of one delivery. Harbor sends exactly one resource.
const (
	maxResources = 16
	maxPusher    = 255 // bytes, as long as an account name can be in Harbor
	maxType      = 128 // bytes
)

// Format is one of the two shapes in which Harbor sends events.
type Format string

const (
	// Default is Harbor's own format, of media type application/json.
	Default Format = "default"
	// CloudEvents is the structured mode of CloudEvents 1.0, of media type application/cloudevents+json.
	CloudEvents Format = "cloudevents"
)

// Delivery is what one webhook request reports.
type Delivery struct {
	// Type is the event's type as the format spells it, at most 128 bytes of it.
	Type string
	// Project is the Harbor project of a push; empty for events of other types.
	Project string
	// Pushes has at least one entry if the event is a push, and is nil otherwise.
	Pushes []Push
}

// Push is one manifest that was pushed.
type Push struct {
	Ref artifact.Ref
	// Tag is empty for a push by digest, which Harbor reports with the digest as its tag.
	Tag string
	// Pusher is the account that pushed, for people and for comparison, at most 255 bytes of UTF-8. Control characters and
	// invalid bytes are replaced by U+FFFD and what is longer is cut: a strange account name is no reason to leave an image
	// unsigned.
	Pusher string
	// PushedAt is Harbor's time of the push in UTC, in whole seconds.
	PushedAt time.Time
}

// FieldError says which field of a delivery is wrong. It quotes at most a short part of a value.
type FieldError struct {
	// Field is the path in the JSON document, such as event_data.resources[0].digest; empty for the document itself.
	Field string
	// Problem says what is wrong and what is wanted.
	Problem string
}

// Error implements error.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return e.Field + ": " + e.Problem
}

// Decode reads and validates the body of a delivery. It is pure. Unknown fields are ignored; of an event that is no push
// nothing but its type is read. The error is a *FieldError.
func Decode(format Format, body []byte) (Delivery, error) {
	var e event
	var err error
	switch format {
	case CloudEvents:
		e, err = readCloudEvents(body)
	default:
		e, err = readDefault(body)
	}
	if err != nil {
		return Delivery{}, err
	}
	if !e.push {
		return Delivery{Type: e.kind}, nil
	}
	return e.delivery()
}

// event is what both formats have in common, before validation. dataPath says where data stood.
type event struct {
	kind     string
	push     bool
	operator field[string]
	pushedAt time.Time
	data     *data
	dataPath string
}

// data is the same in both formats.
type data struct {
	Resources  []field[resource]  `json:"resources"`
	Repository *repositoryPayload `json:"repository"`
}

type resource struct {
	Digest field[string] `json:"digest"`
	Tag    field[string] `json:"tag"`
}

type repositoryPayload struct {
	Namespace    field[string] `json:"namespace"`
	RepoFullName field[string] `json:"repo_full_name"`
}

func readDefault(body []byte) (event, error) {
	var head struct {
		Type      field[string]   `json:"type"`
		OccurAt   field[int64]    `json:"occur_at"`
		Operator  field[string]   `json:"operator"`
		EventData json.RawMessage `json:"event_data"`
	}
	if err := unmarshal("", body, &head); err != nil {
		return event{}, err
	}
	kind, err := head.Type.required("type", "text")
	if err != nil || kind != "PUSH_ARTIFACT" {
		return event{kind: bounded(kind, maxType)}, err
	}
	seconds, err := head.OccurAt.required("occur_at", "a whole number of seconds since 1970")
	if err != nil {
		return event{}, err
	}
	pushedAt, err := saneTime("occur_at", time.Unix(seconds, 0))
	if err != nil {
		return event{}, err
	}
	e := event{kind: kind, push: true, operator: head.Operator, pushedAt: pushedAt, dataPath: "event_data"}
	return e, unmarshal("event_data", head.EventData, &e.data)
}

// SPEC: CloudEvents 1.0.2, JSON event format, section 3. In structured mode the attributes are members of the object, and
// data stands beside them as JSON.
func readCloudEvents(body []byte) (event, error) {
	var head struct {
		SpecVersion field[string]   `json:"specversion"`
		Type        field[string]   `json:"type"`
		Time        field[string]   `json:"time"`
		Operator    field[string]   `json:"operator"`
		Data        json.RawMessage `json:"data"`
	}
	if err := unmarshal("", body, &head); err != nil {
		return event{}, err
	}
	version, err := head.SpecVersion.required("specversion", "text")
	if err != nil {
		return event{}, err
	}
	if major, _, _ := strings.Cut(version, "."); major != "1" {
		return event{}, &FieldError{Field: "specversion", Problem: fmt.Sprintf("%.16q is not a version that can be read: want 1.0", version)}
	}
	kind, err := head.Type.required("type", "text")
	if err != nil || kind != "harbor.artifact.pushed" {
		return event{kind: bounded(kind, maxType)}, err
	}
	text, err := head.Time.required("time", "text")
	if err != nil {
		return event{}, err
	}
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return event{}, &FieldError{Field: "time", Problem: fmt.Sprintf("%.40q is not a time as in RFC 3339", text)}
	}
	pushedAt, err := saneTime("time", parsed)
	if err != nil {
		return event{}, err
	}
	e := event{kind: kind, push: true, operator: head.Operator, pushedAt: pushedAt, dataPath: "data"}
	return e, unmarshal("data", head.Data, &e.data)
}

func (e event) delivery() (Delivery, error) {
	if e.data == nil {
		return Delivery{}, missing(e.dataPath)
	}
	repositoryPath := e.dataPath + ".repository"
	if e.data.Repository == nil {
		return Delivery{}, missing(repositoryPath)
	}
	operator, err := e.operator.required("operator", "text")
	if err != nil {
		return Delivery{}, err
	}
	namespace, err := e.data.Repository.Namespace.required(repositoryPath+".namespace", "text")
	if err != nil {
		return Delivery{}, err
	}
	repository, err := e.data.Repository.RepoFullName.required(repositoryPath+".repo_full_name", "text")
	if err != nil {
		return Delivery{}, err
	}
	if err := artifact.ValidateRepository(repository); err != nil {
		return Delivery{}, &FieldError{Field: repositoryPath + ".repo_full_name", Problem: err.Error()}
	}
	resourcesPath := e.dataPath + ".resources"
	if n := len(e.data.Resources); n < 1 || n > maxResources {
		return Delivery{}, &FieldError{Field: resourcesPath, Problem: fmt.Sprintf("has %d entries, want 1 to %d", n, maxResources)}
	}
	d := Delivery{Type: e.kind, Project: namespace, Pushes: make([]Push, 0, len(e.data.Resources))}
	for i, r := range e.data.Resources {
		push, err := readResource(fmt.Sprintf("%s[%d]", resourcesPath, i), repository, r)
		if err != nil {
			return Delivery{}, err
		}
		if push.Ref.Project() != namespace {
			return Delivery{}, &FieldError{
				Field:   repositoryPath + ".namespace",
				Problem: fmt.Sprintf("%.64q is not the project of repository %.64q", namespace, repository),
			}
		}
		push.Pusher, push.PushedAt = bounded(operator, maxPusher), e.pushedAt
		d.Pushes = append(d.Pushes, push)
	}
	return d, nil
}

// readResource validates one resource; the repository is valid already.
func readResource(path, repository string, f field[resource]) (Push, error) {
	r, err := f.required(path, "an object")
	if err != nil {
		return Push{}, err
	}
	digest, err := r.Digest.required(path+".digest", "text")
	if err != nil {
		return Push{}, err
	}
	ref, err := artifact.NewRef(repository, digest)
	if err != nil {
		return Push{}, &FieldError{Field: path + ".digest", Problem: err.Error()}
	}
	tag, err := r.Tag.optional(path+".tag", "text")
	if err != nil {
		return Push{}, err
	}
	if tag == digest {
		tag = ""
	}
	if tag == "" {
		return Push{Ref: ref}, nil
	}
	if err := artifact.ValidateTag(tag); err != nil {
		return Push{}, &FieldError{Field: path + ".tag", Problem: err.Error()}
	}
	return Push{Ref: ref, Tag: tag}, nil
}

// field is a JSON value whose wrong type is found when the field is asked for, because only then its path is known.
type field[T any] struct {
	value T
	set   bool
	wrong bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *field[T]) UnmarshalJSON(raw []byte) error {
	*f = field[T]{set: string(raw) != "null"}
	if f.set {
		f.wrong = json.Unmarshal(raw, &f.value) != nil
	}
	return nil
}

func (f field[T]) optional(path, want string) (T, error) {
	if f.wrong {
		var zero T
		return zero, &FieldError{Field: path, Problem: "has the wrong type: want " + want}
	}
	return f.value, nil
}

func (f field[T]) required(path, want string) (T, error) {
	value, err := f.optional(path, want)
	if err == nil && !f.set {
		return value, missing(path)
	}
	return value, err
}

// unmarshal reads the object at path. What encoding/json says of a wrong type is put into a path from the root.
func unmarshal(path string, raw []byte, into any) error {
	if path != "" && len(raw) == 0 {
		return missing(path)
	}
	err := json.Unmarshal(raw, into)
	if err == nil {
		return nil
	}
	var wrongType *json.UnmarshalTypeError
	if !errors.As(err, &wrongType) {
		return &FieldError{Field: path, Problem: "is no JSON: " + err.Error()}
	}
	if wrongType.Field != "" {
		path = strings.TrimPrefix(path+"."+wrongType.Field, ".")
	}
	return &FieldError{Field: path, Problem: "has the wrong type: " + wrongType.Value}
}

func missing(path string) error { return &FieldError{Field: path, Problem: "is missing"} }

// saneTime refuses what cannot be the time of a push, because it would make rows that no query finds.
func saneTime(path string, t time.Time) (time.Time, error) {
	t = t.UTC().Truncate(time.Second)
	if year := t.Year(); year < 2000 || year >= 2200 {
		return time.Time{}, &FieldError{Field: path, Problem: "is not between the years 2000 and 2200"}
	}
	return t, nil
}

// bounded makes text from outside fit for a record that people read: no control or invalid characters, at most limit bytes.
func bounded(text string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
	if len(clean) <= limit {
		return clean
	}
	for limit > 0 && !utf8.RuneStart(clean[limit]) {
		limit--
	}
	return clean[:limit]
}
