package footprint

// Compare is what Measure does with the sizes.
func Compare(rows []Row) { compare(rows) }
