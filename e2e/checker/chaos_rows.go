package checker

import "slices"

// agreed: ledger, report and registry say the same of one digest.
func (e *examined) agreed() []Violation {
	var violations []Violation
	if len(e.rows) > 1 {
		violations = append(violations, e.violation(Mismatched, "there are %d rows", len(e.rows)))
	}
	for _, row := range e.rows {
		if row.State == stateSigned && !e.forsaken() {
			violations = append(violations, e.rowHolds(row)...)
		}
	}
	valid := e.valid()
	if len(valid) == 0 {
		return violations
	}
	if len(e.rows) == 0 {
		violations = append(violations, e.violation(Mismatched, "it is signed, and there is no row"))
	}
	for _, w := range sorted(valid) {
		// What was deleted while it was signed leaves a signature of nothing, of which the ledger says that its subject is gone.
		if orphan := !e.present && len(e.history.deletes) > 0; !orphan && !e.told(w) {
			violations = append(violations, e.violation(Mismatched, "no signed event names the signature by the key %s in the format %s", w.key, w.format))
		}
	}
	if len(e.must) > 0 && e.present && len(e.missing()) == 0 {
		for _, row := range e.rows {
			if row.State != stateSigned {
				violations = append(violations, e.violation(Mismatched, "it is signed, and the report says %s", e.states()))
			}
		}
	}
	return violations
}

// forsaken says whether the digest was deleted in a project that is not enabled any more: nobody looks there, and what the report
// says is of the time when somebody did, although it may have been pushed again.
func (e *examined) forsaken() bool {
	policies := e.j.story.policies[e.project()]
	return len(e.history.deletes) > 0 && len(policies) > 0 && !policies[len(policies)-1].Enabled
}

// rowHolds checks what a row that says signed names.
func (e *examined) rowHolds(row Row) []Violation {
	if !e.present {
		return []Violation{e.violation(Mismatched, "the report says signed, and the registry does not have it")}
	}
	var violations []Violation
	named := make(map[want]bool)
	for _, s := range row.Signatures {
		key, ours := e.j.names[s.KeyID]
		found := e.found[key]
		switch {
		case !ours:
			violations = append(violations, e.violation(Mismatched, "the report names a signature by the key %.16s, which is none of ours", s.KeyID))
			continue
		case !found.carries(s.Format, s.Digest):
			violations = append(violations, e.violation(Mismatched, "the report names a signature by the key %s in the format %s in %s, which carries none",
				key, s.Format, s.Digest))
		case found.disagrees(s) != "":
			violations = append(violations, e.violation(Mismatched, "%s", found.disagrees(s)))
		}
		named[want{key, s.Format}] = true
	}
	if len(row.Signatures) == 0 {
		violations = append(violations, e.violation(Mismatched, "the report says signed, and names no signature"))
	}
	for _, w := range sorted(e.must) {
		if !named[w] {
			violations = append(violations, e.violation(Mismatched, "the report says signed, and names no signature by the key %s in the format %s", w.key, w.format))
		}
	}
	if e.letter != nil {
		violations = append(violations, e.violation(Mismatched, "the report says signed, and there is a dead letter: %s", e.letter.Reason))
	}
	return violations
}

// told says whether a signed event names a signature by a key in a format, or the event of a paid debt does: a bundle that waits
// for its entry is made with it.
func (e *examined) told(w want) bool {
	return slices.ContainsFunc(e.events, func(o LedgerEvent) bool {
		return (o.Kind == stateSigned || o.Kind == kindDebtPaid) && slices.ContainsFunc(o.Signatures, func(s RowSignature) bool {
			return s.Format == w.format && e.j.names[s.KeyID] == w.key
		})
	})
}
