package report

import "github.com/harborseal/harborseal/pkg/ledger"

// AppendCells appends a line of a cell, a list and another cell.
func AppendCells(b []byte, text string, list []string, last string) []byte {
	b = appendCell(b, text)
	b = appendList(append(b, ','), list)
	b = appendCell(append(b, ','), last)
	return append(b, "\r\n"...)
}

// AppendRow appends a row of report.csv, and AppendLine one of report.jsonl.
func AppendRow(b []byte, registry string, r *ledger.Row) []byte { return appendCSV(b, registry, r) }

// AppendLine is as above.
func AppendLine(b []byte, l *Line) ([]byte, error) { return appendJSONL(b, l) }

// Sign signs a manifest.
func Sign(manifest []byte, key Key) ([]byte, error) { return sign(manifest, key) }
