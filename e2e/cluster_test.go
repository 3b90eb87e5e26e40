//go:build e2e

package e2e_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// breakage is one way in which a cluster suffers while images are pushed.
type breakage struct {
	name string
	// begin breaks it and gives who is to lead SIGN from then on: anybody but this one; nil for whoever.
	begin func(t *testing.T, f *fleet) (not *harness.Node)
	// mend makes it whole.
	mend func(t *testing.T, f *fleet)
	// long says that the short form leaves it out.
	long bool
}

// A cluster of three loses nodes while several developers push: whatever Harbor was told is signed in the end, once, and whatever
// it could not tell in three attempts is found by the sweep. Both are counted.
//
// A push of which LEDGER has heard and SIGN has not, because only SIGN had no leader, is left to the full sweep: recent ones take it
// for one that waits. Those are counted apart.
//
// In the long form Harbor's attempts come as late as they do, at least 47 seconds from the first to the third, which outlasts any
// election. In the short form they come ten times as fast, and the search for new pushes does, too; elections do not, so that
// more is left to the sweep.
func TestCluster(t *testing.T) {
	t.Parallel()
	scale, every, settle := 0.1, 20*time.Second, 2*time.Minute
	if inFull() || !env.harbor.Emulated {
		scale, every, settle = 1, 3*time.Minute, 8*time.Minute
	}
	f := newFleet(t, 3, scale, harness.NATSOptions{Nodes: 3}, func(o *harness.Options) {
		o.Sweep = every
		o.EditSigner = func(c harness.Config) {
			harness.Set(c, time.Duration(scale*float64(time.Minute)).String(), "sweep", "incremental")
		}
	})
	f.start(t)
	var all []harness.Pushed
	fared := make(map[string][]harness.Pushed)
	var names []string
	for _, b := range breakages() {
		if b.long && !inFull() {
			continue
		}
		load := f.pushing(t, b.name, 400*time.Millisecond)
		load.further(t, 6)
		began := time.Now()
		not := b.begin(t, f)
		leader := f.leads(t)
		if leader == not {
			t.Errorf("%s: %s leads SIGN, which is away", b.name, leader.Name)
		}
		t.Logf("%s: %s leads SIGN after %s", b.name, leader.Name, time.Since(began).Round(10*time.Millisecond))
		load.further(t, 12)
		b.mend(t, f)
		load.further(t, 6)
		fared[b.name] = load.end()
		all = append(all, fared[b.name]...)
		names = append(names, b.name)
		if inFull() {
			// One after the other: how webhooks fare is by nothing but this.
			f.awaitSigned(t, fared[b.name], settle)
			f.settledWithin(t, settle)
		}
	}
	f.awaitSigned(t, all, settle)
	f.settledWithin(t, settle)
	f.judgeFleet(t)
	for _, name := range names {
		t.Logf("%s: of %d pushes, %s", name, len(fared[name]), f.tidings(t, fared[name]))
	}
	t.Logf("recent sweeps have asked for %v, full ones for %v", f.asked(t, "recent"), f.asked(t, "full"))
}

// asked is how many images the sweeps of a kind have asked for.
func (f *fleet) asked(t *testing.T, kind string) float64 {
	t.Helper()
	sum := 0.0
	for _, n := range f.each(t, "harborseal_sweep_manifests_total", `kind="`+kind+`"`, `finding="requested"`) {
		sum += n
	}
	return sum
}

// leads waits until SIGN and LEDGER have leaders, and gives that of SIGN.
func (f *fleet) leads(t *testing.T) *harness.Node {
	t.Helper()
	var leader *harness.Node
	for _, stream := range []string{"LEDGER", "SIGN"} {
		var err error
		if leader, err = f.nats.Leader(t.Context(), stream); err != nil {
			t.Fatalf("%v\n%s", err, f.nats.Tails())
		}
	}
	return leader
}

// kill ends a node.
func (f *fleet) kill(t *testing.T, node *harness.Node) {
	t.Helper()
	if err := f.nats.Kill(node); err != nil {
		t.Fatal(err)
	}
}

// revive starts all nodes that do not run, and waits until they have caught up.
func (f *fleet) revive(t *testing.T) {
	t.Helper()
	for _, node := range f.nats.Nodes {
		if !node.Running() {
			if err := f.nats.Launch(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.nats.AwaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// heal lets all nodes reach each other again, and waits until they have caught up.
func (f *fleet) heal(t *testing.T) {
	t.Helper()
	f.nats.Heal()
	if err := f.nats.AwaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// follower gives a node that does not lead SIGN.
func (f *fleet) follower(t *testing.T) *harness.Node {
	t.Helper()
	leader := f.leads(t)
	for _, node := range f.nats.Nodes {
		if node != leader {
			return node
		}
	}
	return nil
}

func breakages() []breakage {
	revive := func(t *testing.T, f *fleet) { t.Helper(); f.revive(t) }
	heal := func(t *testing.T, f *fleet) { t.Helper(); f.heal(t) }
	return []breakage{
		{name: "leader-killed", begin: func(t *testing.T, f *fleet) *harness.Node {
			t.Helper()
			leader := f.leads(t)
			f.kill(t, leader)
			return leader
		}, mend: revive},
		// The one that was killed is back and has what the others have: now another one may go.
		{name: "another-killed", begin: func(t *testing.T, f *fleet) *harness.Node {
			t.Helper()
			node := f.follower(t)
			if ledger, err := f.nats.Leader(t.Context(), "LEDGER"); err == nil && ledger != f.leads(t) {
				node = ledger
			}
			f.kill(t, node)
			return node
		}, mend: revive},
		{name: "follower-cut-off", begin: func(t *testing.T, f *fleet) *harness.Node {
			t.Helper()
			node := f.follower(t)
			f.nats.Isolate(node, harness.Refuse)
			return node
		}, mend: heal},
		{name: "leader-cut-off", begin: func(t *testing.T, f *fleet) *harness.Node {
			t.Helper()
			leader := f.leads(t)
			f.nats.Isolate(leader, harness.Refuse)
			return leader
		}, mend: heal},
		// Nobody is told: the connections stay, and what is sent does not arrive.
		{name: "leader-silent", begin: func(t *testing.T, f *fleet) *harness.Node {
			t.Helper()
			leader := f.leads(t)
			f.nats.Isolate(leader, harness.Swallow)
			return leader
		}, mend: heal, long: true},
		{name: "all-killed", begin: func(t *testing.T, f *fleet) *harness.Node {
			t.Helper()
			for _, node := range f.nats.Nodes {
				f.kill(t, node)
			}
			f.revive(t)
			return nil
		}, mend: func(*testing.T, *fleet) {}},
	}
}
