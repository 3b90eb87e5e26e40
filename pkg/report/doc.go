// Package report exports the signed-digest report, checks an export offline, and records who has read what.
//
// An export is a zip archive of the rows ("report.csv" or "report.jsonl"), "manifest.json", which says what was asked for, what
// the rows add up to and their SHA-256, "manifest.sig", a signed note by the ledger key over the manifest, and
// "checkpoint.txt", the ledger's signed checkpoint at the time. The last two are missing where the service has no ledger key: the
// manifest says so.
//
// It guarantees that
//   - the rows are those of one snapshot, and memory does not grow with their number, beyond what the manifest lists;
//   - an export that ended before its time is none: the archive is not closed and has no manifest, and [Verify] says so;
//   - what is in the manifest about the rows was counted from the rows as they were written, and [Verify] counts it again;
//   - no cell of report.csv is a formula to a spreadsheet, and nothing in either file is a command to a terminal; every text can be
//     had back as it was ([Unescape], or any JSON decoder);
//   - [Verify] reads a hostile file in bounded memory;
//   - recording who has read the report never delays or fails the reading.
//
// It assumes that the caller has checked what whoever asks may see, and that the writer it is given fails when the reader is
// too slow: a snapshot is held for as long as the export runs. It decides nothing about signatures: the rows are the ledger's.
package report
