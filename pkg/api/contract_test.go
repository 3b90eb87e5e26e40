package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/harborseal/harborseal/pkg/api"
)

const documentURL = "https://document.example/openapi.json"

// contract is the served document, with what checks JSON against its schemas.
type contract struct {
	document map[string]any

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // guarded by mu; by place
}

// served is read once.
var served struct {
	mu       sync.Mutex
	contract *contract // guarded by mu
}

func theContract(t *testing.T) *contract {
	t.Helper()
	served.mu.Lock()
	defer served.mu.Unlock()
	if served.contract != nil {
		return served.contract
	}
	a, err := api.New(config(t, &report{}, "", io.Discard))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	engine := gin.New()
	a.Register(engine)
	rec := httptest.NewRecorder()
	engine.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/openapi.json", http.NoBody))
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	if err := json.Unmarshal(rec.Body.Bytes(), &c.document); err != nil {
		t.Fatalf("GET openapi.json = %d %s: %v", rec.Code, rec.Body, err)
	}
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(documentURL, c.document); err != nil {
		t.Fatalf("the document: %v", err)
	}
	served.contract = c
	return c
}

// at gives what stands at a place in the document, such as paths|/api/v1/keys|get, and its place once all references are
// followed.
func (c *contract) at(place ...string) (value map[string]any, where []string) {
	value = c.document
	for _, name := range place {
		next, ok := value[name].(map[string]any)
		if !ok {
			return nil, nil
		}
		where = append(where, name)
		if ref, ok := next["$ref"].(string); ok {
			return c.at(slices.Concat(strings.Split(strings.TrimPrefix(ref, "#/"), "/"), place[len(where):])...)
		}
		value = next
	}
	return value, where
}

// check checks JSON against the schema at a place.
func (c *contract) check(body []byte, place ...string) error {
	var pointer strings.Builder
	for _, name := range place {
		pointer.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	schema := c.schemas[pointer.String()]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(documentURL + "#" + pointer.String()); err != nil {
			return err
		}
		c.schemas[pointer.String()] = schema
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// operation finds the one that a request asks for; nil if the document has none.
func (c *contract) operation(method, path string) []string {
	paths, _ := c.at("paths")
	for template := range paths {
		want, got := strings.Split(template, "/"), strings.Split(path, "/")
		if at := slices.Index(want, "{repository}"); at >= 0 && len(got) > len(want) {
			// It has slashes, for which OpenAPI has no word.
			got = slices.Concat(got[:at], []string{strings.Join(got[at:at+1+len(got)-len(want)], "/")}, got[at+1+len(got)-len(want):])
		}
		fits := len(want) == len(got)
		for i := 0; fits && i < len(want); i++ {
			fits = want[i] == got[i] || strings.HasPrefix(want[i], "{") && got[i] != ""
		}
		if op, _ := c.at("paths", template, strings.ToLower(method)); fits && op != nil {
			return []string{"paths", template, strings.ToLower(method)}
		}
	}
	return nil
}

// conforms says so if an answer is none that the document has for the request, or if a body was taken that it does not allow.
func conforms(t *testing.T, req *http.Request, body string, rec *httptest.ResponseRecorder) {
	t.Helper()
	c := theContract(t)
	op := c.operation(req.Method, req.URL.Path)
	if op == nil {
		if rec.Code < http.StatusBadRequest {
			t.Errorf("%s %s = %d, and the document has no such operation", req.Method, req.URL.Path, rec.Code)
		}
		return
	}
	media, _, err := mime.ParseMediaType(rec.Header().Get("Content-Type"))
	_, response := c.at(slices.Concat(op, []string{"responses", strconv.Itoa(rec.Code)})...)
	if response == nil {
		t.Errorf("%s %s = %d %s, which the document does not have", req.Method, req.URL.Path, rec.Code, rec.Body)
		return
	}
	if content, _ := c.at(slices.Concat(response, []string{"content", media})...); content == nil || err != nil {
		t.Errorf("%s %s = %d of type %q, which the document does not have", req.Method, req.URL.Path, rec.Code, media)
		return
	}
	if err := c.check(rec.Body.Bytes(), slices.Concat(response, []string{"content", media, "schema"})...); err != nil {
		t.Errorf("%s %s = %d %s: %v", req.Method, req.URL.Path, rec.Code, rec.Body, err)
	}
	request := slices.Concat(op, []string{"requestBody", "content", "application/json", "schema"})
	if schema, _ := c.at(request...); schema != nil && rec.Code < http.StatusMultipleChoices {
		if err := c.check([]byte(body), request...); err != nil {
			t.Errorf("%s %s took %s: %v", req.Method, req.URL.Path, body, err)
		}
	}
}
