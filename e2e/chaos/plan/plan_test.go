package plan_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
)

func generate(t *testing.T, seed uint64, duration time.Duration) *plan.Plan {
	t.Helper()
	p, err := plan.Generate(seed, duration)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A plan follows from its seed and its duration alone.
func TestPlanFollowsFromSeed(t *testing.T) {
	one, again := generate(t, 7, 2*time.Minute), generate(t, 7, 2*time.Minute)
	if !reflect.DeepEqual(one, again) {
		t.Error("got two different plans of one seed")
	}
	if other := generate(t, 8, 2*time.Minute); reflect.DeepEqual(one.Actions, other.Actions) {
		t.Error("got the same plan of two seeds")
	}
}

// Whatever the seed, every kind of fault and every verb is in the shortest run, in order, and ends in time.
func TestPlanHasEverything(t *testing.T) {
	for seed := range uint64(200) {
		p := generate(t, seed, time.Minute)
		var kinds []plan.Kind
		verbs := make(map[plan.Verb]int)
		last := plan.Duration(0)
		for _, a := range p.Actions {
			if a.At < last {
				t.Errorf("seed %d: an action at %s comes after one at %s", seed, time.Duration(a.At), time.Duration(last))
			}
			last = a.At
			verbs[a.Do]++
			if a.Do == plan.Fault {
				kinds = append(kinds, a.Fault)
				if a.For <= 0 || a.At+a.For > p.Duration {
					t.Errorf("seed %d: %s begins at %s and lasts %s", seed, a.Fault, time.Duration(a.At), time.Duration(a.For))
				}
			}
		}
		for _, kind := range plan.Kinds() {
			if !slices.Contains(kinds, kind) {
				t.Errorf("seed %d: there is no %s", seed, kind)
			}
		}
		for _, verb := range []plan.Verb{plan.Push, plan.Attach, plan.Delete, plan.Foreign, plan.Policy} {
			if verbs[verb] == 0 {
				t.Errorf("seed %d: nobody does %s", seed, verb)
			}
		}
	}
}

// What meets the same thing does not overlap: who ends a fault would end another one with it.
func TestFaultsOfOneKindDoNotOverlap(t *testing.T) {
	ends := make(map[plan.Kind]plan.Duration)
	for _, a := range generate(t, 3, 10*time.Minute).Faults() {
		if a.At < ends[a.Fault] {
			t.Errorf("%s begins at %s, before the last one ends at %s", a.Fault, time.Duration(a.At), time.Duration(ends[a.Fault]))
		}
		ends[a.Fault] = a.At + a.For
	}
}

// Only what is there is deleted, and nothing that somebody attached something to.
func TestOnlyWhatIsThereIsDeleted(t *testing.T) {
	p := generate(t, 5, 10*time.Minute)
	for _, project := range plan.Projects() {
		there, kept := make(map[int]bool), make(map[int]bool)
		for _, a := range p.Lane(project.Name) {
			switch a.Do {
			case plan.Push:
				there[a.Number] = true
			case plan.Attach:
				kept[a.Number] = true
			case plan.Delete:
				if !there[a.Number] || kept[a.Number] {
					t.Errorf("%s: number %d is deleted: there %v, kept %v", project.Name, a.Number, there[a.Number], kept[a.Number])
				}
				there[a.Number] = false
			case plan.Foreign, plan.Policy, plan.Fault:
			}
		}
	}
}

// A project that is given up for good is given up once, and stays so when everything is mended.
func TestWhatIsGivenUpStaysSo(t *testing.T) {
	p := generate(t, 5, 10*time.Minute)
	for _, project := range plan.Projects() {
		if project.Last == nil {
			continue
		}
		var modes []string
		for _, a := range p.Lane(project.Name) {
			if a.Do == plan.Policy {
				modes = append(modes, a.Settings.Mode)
			}
		}
		if want := []string{project.AtLast().Mode}; !slices.Equal(modes, want) {
			t.Errorf("%s: the modes are %q, want %q", project.Name, modes, want)
		}
	}
}

func TestPlanIsReadAsWritten(t *testing.T) {
	p := generate(t, 11, time.Minute)
	var written bytes.Buffer
	if err := p.Write(&written); err != nil {
		t.Fatal(err)
	}
	got, err := plan.Read(&written)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, want %+v", got, p)
	}
}

func TestReadRefuses(t *testing.T) {
	const head = `{"seed":1,"duration":"1m0s"}` + "\n"
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "EOF"},
		{"an unknown key", head + `{"at":"1s","do":"push","colour":"red"}`, "colour"},
		{"an unknown verb", head + `{"at":"1s","do":"dance"}`, "dance"},
		{"an unknown fault", head + `{"at":"1s","do":"fault","fault":"flood"}`, "flood"},
		{"a push to nowhere", head + `{"at":"1s","do":"push"}`, "project"},
		{"a policy without settings", head + `{"at":"1s","do":"policy","project":"a"}`, "settings"},
		{"no duration", `{"seed":1,"duration":"soon"}`, "duration"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := plan.Read(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestDurationsWithoutPlan(t *testing.T) {
	for _, d := range []time.Duration{0, plan.Least - time.Second, 25 * time.Hour} {
		if _, err := plan.Generate(1, d); err == nil {
			t.Errorf("got a plan of %s", d)
		}
	}
}
