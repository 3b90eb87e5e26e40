package api

// The bodies of answers and requests, for the comparison with the document.
type (
	ProjectAnswer    = projectAnswer
	ProjectsAnswer   = projectsAnswer
	ProjectRow       = projectRow
	RotationAnswer   = rotationAnswer
	EventsAnswer     = eventsAnswer
	OutagesAnswer    = outagesAnswer
	SignaturesAnswer = signaturesAnswer
	SweepAnswer      = sweepAnswer
	BlockRequest     = blockRequest
	LettersAnswer    = lettersAnswer
	LetterAnswer     = letterAnswer
	DiscardRequest   = discardRequest
	SignRequest      = signRequest
	SignAnswer       = signAnswer
	VerifyRequest    = verifyRequest
	VerifyAnswer     = verifyAnswer
	EvidenceAnswer   = evidenceAnswer
	PastEvent        = pastEvent
	EventProof       = eventProof
	PastTag          = pastTag
	Related          = related
	CommandFor       = commandFor
	MissingPart      = missing
	LedgerAnswer     = ledgerAnswer
	CoverageAnswer   = coverageAnswer
)
