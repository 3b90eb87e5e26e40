package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/status"
)

// operations gives those of the document, such as "GET /api/v1/projects/:name", with their places.
func (c *contract) operations() map[string][]string {
	found := map[string][]string{}
	paths, _ := c.at("paths")
	for path := range paths {
		item, _ := c.at("paths", path)
		for method := range item {
			if method != "parameters" {
				name := strings.ToUpper(method) + " " + strings.NewReplacer("{", ":", "}", "").Replace(path)
				found[name] = []string{"paths", path, method}
			}
		}
	}
	return found
}

// parameters gives the names of an operation's parameters of a kind (path, query or header), sorted.
func (c *contract) parameters(t *testing.T, op []string, kind string) []string {
	t.Helper()
	names := []string{}
	for _, place := range [][]string{op[:2], op} {
		holder, _ := c.at(place...)
		list, ok := holder["parameters"].([]any)
		if !ok && holder["parameters"] != nil {
			t.Fatalf("%v: parameters are no list", place)
		}
		for _, p := range list {
			parameter, ok := p.(map[string]any)
			if ref, is := parameter["$ref"].(string); is {
				parameter, _ = c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			}
			name, named := parameter["name"].(string)
			if !ok || !named {
				t.Fatalf("%v: %v is no parameter", place, p)
			}
			if parameter["in"] == kind {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestEveryRouteHasAnOperationAndTheReverse(t *testing.T) {
	a, err := api.New(config(t, &report{}, "", io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	a.Register(engine)
	var routes []string
	for _, r := range engine.Routes() {
		// A repository has slashes, for which OpenAPI has no word.
		routes = append(routes, r.Method+" "+strings.Replace(r.Path, "*reference", ":project/:repository/:digest", 1))
	}
	slices.Sort(routes)
	if want := slices.Sorted(maps.Keys(theContract(t).operations())); !slices.Equal(routes, want) {
		t.Errorf("routes =\n%s\nwant those of the document\n%s", strings.Join(routes, "\n"), strings.Join(want, "\n"))
	}
}

// target fills in the parts of a path.
func target(operation string) (method, path string) {
	method, path, _ = strings.Cut(operation, " ")
	return method, strings.NewReplacer(":name", "demo", ":project", "demo", ":repository", "app", ":id", "1", ":digest", ledgertest.Ref("demo/app", 1).Digest()).Replace(path)
}

// TestEveryParameterIsDocumentedAndTheReverse makes each handler name the parameters that it takes, by sending one that none
// takes. Headers are found out by what reaches package enroll.
func TestEveryParameterIsDocumentedAndTheReverse(t *testing.T) {
	c := theContract(t)
	for operation, op := range c.operations() {
		t.Run(operation, func(t *testing.T) {
			d := open(t, &report{page: ledger.Page{Items: []ledger.Row{}}})
			method, path := target(operation)
			rec := d.send(t, method, path+"?there_is_no_such=1", as("ann"), `{"reason":"r"}`)
			var doc problem.Document
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != http.StatusBadRequest || doc.Field != "there_is_no_such" {
				t.Fatalf("%s with an unknown parameter = %d %s, %v; want 400", path, rec.Code, rec.Body, err)
			}
			taken := []string{}
			if _, list, found := strings.Cut(doc.Detail, "want one of "); found {
				taken = strings.Split(list, ", ")
			}
			if want := c.parameters(t, op, "query"); !slices.Equal(taken, want) {
				t.Errorf("the handler takes %v, the document has %v", taken, want)
			}
			if got, want := strings.Count(operation, ":"), len(c.parameters(t, op, "path")); got != want {
				t.Errorf("the route has %d parts, the document %d", got, want)
			}
			body := `{}`
			if strings.Contains(path, "blocks") {
				body = `{"reason":"r"}`
			}
			header := as("ann")
			header.Set("If-Match", `"api-3"`)
			d.send(t, method, path, header, body)
			headers := []string{}
			for _, call := range d.projects.taken() {
				if call.ifMatch != "" {
					headers = append(headers, "If-Match")
				}
			}
			if want := c.parameters(t, op, "header"); !slices.Equal(headers, want) {
				t.Errorf("the handler takes the headers %v, the document has %v", headers, want)
			}
			if _, open := c.at(slices.Concat(op, []string{"responses", "401"})...); (open == nil) != (d.send(t, method, path, nil, body).Code != http.StatusUnauthorized) {
				t.Error("the document and the handler differ about who may ask")
			}
		})
	}
}

// TestSchemasAreTheTypes compares the fields of the types with the properties of the schemas, both ways.
func TestSchemasAreTheTypes(t *testing.T) {
	c := theContract(t)
	types := map[string]any{
		"Problem": problem.Document{}, "FieldError": problem.FieldError{}, "Check": preflight.Check{},
		"Policy": policy.Spec{}, "PolicyRequest": enroll.PutRequest{}, "Globs": policy.Globs{}, "Rate": policy.Rate{}, "Exemption": policy.Exemption{},
		"Backfill": policy.Backfill{}, "Block": policy.Block{}, "Pause": policy.Pause{}, "Webhook": enroll.WebhookView{}, "ProjectProblem": policy.Problem{},
		"Coverage": ledger.Coverage{}, "Sweep": ledger.SweepRow{}, "SweepSummary": artifact.Sweep{}, "Event": ledger.ProjectEvent{},
		"Change": artifact.Change{}, "KeyRecord": artifact.KeyRecord{}, "ReportRecord": artifact.ReportRecord{}, "EpochRecord": artifact.EpochRecord{},
		"CoverageReport": api.CoverageAnswer{}, "Covered": ledger.Covered{}, "Exceptions": ledger.Exceptions{}, "DayCoverage": ledger.DayCoverage{},
		"Percentiles": ledger.Percentiles{}, "KeyDates": ledger.KeyDates{},
		"Total": ledger.Total{}, "Row": ledger.Row{}, "Evidence": artifact.Evidence{}, "Key": api.Key{},
		"Project": api.ProjectAnswer{}, "Projects": api.ProjectsAnswer{}, "ProjectRow": api.ProjectRow{}, "Rotation": api.RotationAnswer{},
		"Ledger": api.LedgerAnswer{}, "LedgerEpoch": notary.Epoch{}, "LedgerFinding": notary.Finding{},
		"TrustDocument": sigstore.TrustDocument{}, "Outages": api.OutagesAnswer{}, "Outage": ledger.Outage{}, "OutageRecord": artifact.OutageRecord{},
		"Events": api.EventsAnswer{}, "Signatures": api.SignaturesAnswer{}, "SweepQueued": api.SweepAnswer{}, "BlockRequest": api.BlockRequest{},
		"DeadLetters": api.LettersAnswer{}, "DeadLetter": deadletter.View{}, "DeadLetterChange": api.LetterAnswer{}, "DiscardRequest": api.DiscardRequest{},
		"Status": status.Answer{}, "Place": status.Place{}, "ChildrenSum": status.ChildrenSum{}, "Child": status.Child{},
		"SignRequest": api.SignRequest{}, "SignAnswer": api.SignAnswer{},
		"VerifyRequest": api.VerifyRequest{}, "Verification": api.VerifyAnswer{}, "ImageEvidence": api.EvidenceAnswer{}, "PastEvent": api.PastEvent{},
		"EventProof": api.EventProof{}, "PastTag": api.PastTag{}, "Related": api.Related{}, "CommandFor": api.CommandFor{}, "MissingPart": api.MissingPart{},
		"ManifestReport": inspect.Report{}, "InspectProblem": inspect.Problem{}, "Asked": inspect.Asked{}, "FoundSignature": inspect.Signature{},
		"FoundKey": inspect.Key{}, "FoundClaim": inspect.Claim{}, "FoundLogEntry": inspect.LogEntry{}, "FoundTimestamp": inspect.Timestamp{},
		"FoundCertificate": inspect.Certificate{}, "Documents": inspect.Documents{}, "Document": inspect.Document{}, "InclusionProof": inspect.Proof{},
	}
	// What a client may leave out though the program always writes it, and the reverse: problem.Document is completed.
	optional := map[string][]string{"Policy": {"mode"}, "PolicyRequest": {"mode"}}
	schemas, _ := c.at("components", "schemas")
	for name := range schemas {
		properties, required := c.members(t, name)
		value, known := types[name]
		if !known && len(properties) > 0 {
			t.Errorf("schema %s stands for no type of this test", name)
		}
		if !known {
			continue
		}
		all, always := fields(reflect.TypeOf(value))
		always = slices.DeleteFunc(always, func(field string) bool { return slices.Contains(optional[name], field) })
		if !slices.Equal(properties, all) {
			t.Errorf("schema %s has %v, its type %v", name, properties, all)
		}
		if !slices.Equal(required, always) {
			t.Errorf("schema %s requires %v, its type always has %v", name, required, always)
		}
		delete(types, name)
	}
	for name := range types {
		t.Errorf("there is no schema %s", name)
	}
}

// members gives the properties of a schema, and those that are required, sorted.
func (c *contract) members(t *testing.T, name string) (properties, required []string) {
	t.Helper()
	schema, _ := c.at("components", "schemas", name)
	if all, ok := schema["allOf"].([]any); ok {
		ref := strings.TrimPrefix(fmt.Sprint(all[0]), "map[$ref:#/components/schemas/")
		properties, required = c.members(t, strings.TrimSuffix(ref, "]"))
	}
	own, _ := c.at("components", "schemas", name, "properties")
	properties = slices.AppendSeq(properties, maps.Keys(own))
	if list, ok := schema["required"].([]any); ok {
		for _, field := range list {
			required = append(required, fmt.Sprint(field))
		}
	}
	slices.Sort(properties)
	slices.Sort(required)
	return properties, required
}

// fields gives the names of a type's fields in JSON, and those that are never left out, sorted.
func fields(t reflect.Type) (all, always []string) {
	for _, f := range reflect.VisibleFields(t) {
		name, options, tagged := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || name == "-" {
			continue
		}
		all = append(all, name)
		if !tagged || !strings.Contains(options, "omit") {
			always = append(always, name)
		}
	}
	slices.Sort(all)
	slices.Sort(always)
	return all, always
}

func TestClosedSetsAreThoseOfTheProgram(t *testing.T) {
	c := theContract(t)
	for _, tt := range []struct {
		place []string
		want  any
	}{
		{[]string{"components", "schemas", "State"}, ledger.States()},
		{[]string{"components", "schemas", "Mode"}, []policy.Mode{policy.ModeOff, policy.ModeObserve, policy.ModeSign}},
		{[]string{"components", "schemas", "Key", "properties", "state"}, []api.KeyState{api.KeyActive, api.KeyVerifyOnly, api.KeyRevoked}},
		{[]string{"components", "schemas", "Check", "properties", "status"}, []preflight.Status{preflight.OK, preflight.Warning, preflight.Failed, preflight.Skipped}},
		{[]string{"components", "schemas", "Event", "properties", "kind"}, []artifact.Kind{
			artifact.PolicyChanged, artifact.Swept, artifact.Drifted, artifact.Repaired, artifact.Paused, artifact.Resumed, artifact.Outage,
			artifact.Unreadable, artifact.Replayed, artifact.Discarded,
			artifact.KeyAdded, artifact.KeyRetired, artifact.KeyRevoked, artifact.ReportRead, artifact.ReportExported, artifact.EpochOpened, artifact.Tampered,
			artifact.RetentionShortened, artifact.BackupMade, artifact.Restored,
		}},
		{[]string{"components", "schemas", "PusherSource"}, ledger.PusherSources()},
		{[]string{"components", "parameters", "ofSort", "schema"}, ledger.Sorts()},
		{[]string{"components", "schemas", "Total", "properties", "relation"}, []string{ledger.Exactly, ledger.AtLeast}},
		{[]string{"components", "schemas", "Row", "properties", "log_state"}, ledger.LogStates()},
		{[]string{"components", "schemas", "Policy", "properties", "transparency"}, []policy.Transparency{policy.TransparencyOff, policy.TransparencyRequired, policy.TransparencyDeferred}},
		{[]string{"components", "schemas", "Policy", "properties", "timestamp"}, []policy.Timestamp{policy.TimestampOff, policy.TimestampOptional, policy.TimestampRequired}},
	} {
		schema, _ := c.at(tt.place...)
		if got, want := fmt.Sprint(schema["enum"]), fmt.Sprint(tt.want); got != want {
			t.Errorf("%v = %s, want %s", tt.place, got, want)
		}
	}
}

// TestTheDocumentIsOpen gets it without credentials, and compiles each schema in it.
func TestTheDocumentIsOpen(t *testing.T) {
	rec := open(t, &report{}).get(t, "/api/v1/openapi.json", nil)
	if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"openapi":"3.1.0"`) {
		t.Fatalf("GET = %d %.100s, want OpenAPI 3.1", rec.Code, rec.Body)
	}
	c := theContract(t)
	schemas, _ := c.at("components", "schemas")
	for name := range schemas {
		// The value is wrong for most; what matters is that the schema can be read.
		if err := c.check([]byte(`{}`), "components", "schemas", name); err != nil && strings.Contains(err.Error(), "compil") {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	if err := c.check([]byte(`{"status":"x"}`), "components", "schemas", "Problem"); err == nil {
		t.Error("a wrong problem passed its schema: nothing is checked")
	}
}
