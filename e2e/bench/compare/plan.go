package compare

// Plan is how much is measured.
type Plan struct {
	// Flat is after how many signatures the engine's memory is looked at again; 0 leaves it out.
	Flat int
	// timed says that rates, CPU and memory are measured well enough to be judged.
	timed bool
	// loads are by number in flight and by contender; a contender that is not named does not take part.
	loads []levelPlan
}

type levelPlan struct {
	inFlight int
	of       map[string]Load
}

// Load is what one contender is given with one number in flight.
type Load struct {
	// Signatures are those of one round.
	Signatures, Rounds int
}

func (p Plan) levels() []int {
	var all []int
	for _, level := range p.loads {
		all = append(all, level.inFlight)
	}
	return all
}

func (p Plan) load(e entry, inFlight int) Load {
	for _, level := range p.loads {
		if level.inFlight != inFlight {
			continue
		}
		if load, found := level.of[e.label()]; found {
			return load
		}
		return level.of[e.name]
	}
	return Load{}
}

// Full takes some minutes on two cores. A factor of 2 doubles the signatures of each round.
func Full(factor float64) Plan {
	n := func(signatures int) int { return max(1, int(float64(signatures)*factor)) }
	const engineLegacy = engine + ", " + legacy
	return Plan{Flat: 50_000, timed: true, loads: []levelPlan{
		{1, map[string]Load{
			engineLegacy: {n(1000), 3}, bareLoop: {n(1000), 3}, engine: {n(500), 2}, cosignLib: {n(300), 2}, cosignCLI: {n(8), 1},
		}},
		{32, map[string]Load{
			engineLegacy: {n(2000), 15}, bareLoop: {n(2000), 15}, engine: {n(2000), 4}, cosignLib: {n(2000), 3},
			looking: {n(4000), 3},
		}},
		{256, map[string]Load{
			engineLegacy: {n(4000), 3}, bareLoop: {n(4000), 3}, engine: {n(3000), 2}, cosignLib: {n(2000), 2},
		}},
	}}
}

// Quick is for seeing that everything works; its rates say nothing.
func Quick() Plan {
	return Plan{loads: []levelPlan{
		{1, map[string]Load{engine: {20, 1}, bareLoop: {20, 1}, cosignLib: {20, 1}, cosignCLI: {1, 1}}},
		{32, map[string]Load{engine: {100, 1}, bareLoop: {100, 1}, cosignLib: {100, 1}, looking: {100, 1}}},
	}}
}

// Real is for a Harbor, where a signature takes some hundred times as long.
func Real(factor float64) Plan {
	n := func(signatures int) int { return max(1, int(float64(signatures)*factor)) }
	return Plan{loads: []levelPlan{
		{1, map[string]Load{engine: {n(20), 2}, bareLoop: {n(20), 2}, cosignLib: {n(20), 2}, cosignCLI: {n(4), 1}}},
		{32, map[string]Load{engine: {n(96), 2}, bareLoop: {n(96), 2}, cosignLib: {n(96), 2}, looking: {n(96), 1}}},
		{256, map[string]Load{engine: {n(256), 1}, bareLoop: {n(256), 1}, cosignLib: {n(256), 1}}},
	}}
}
