package report_test

import (
	"archive/zip"
	"compress/flate"
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/report"
)

// BenchmarkRow writes rows of CSV: by this package, and by encoding/csv without any neutralising.
func BenchmarkRow(b *testing.B) {
	rows := make([]ledger.Row, 1000)
	for i := range rows {
		rows[i] = rowOf(8*i + 1) // signed
	}
	b.Run("report", func(b *testing.B) {
		b.ReportAllocs()
		var buffer []byte
		for i := range b.N {
			buffer = report.AppendRow(buffer[:0], "harbor.example.com", &rows[i%len(rows)])
			b.SetBytes(int64(len(buffer)))
		}
	})
	b.Run("encoding-csv", func(b *testing.B) {
		b.ReportAllocs()
		w := csv.NewWriter(io.Discard)
		for i := range b.N {
			if err := w.Write(plainCells(&rows[i%len(rows)])); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("jsonl", func(b *testing.B) {
		b.ReportAllocs()
		var buffer []byte
		for i := range b.N {
			buffer, _ = report.AppendLine(buffer[:0], &report.Line{Registry: "harbor.example.com", Row: rows[i%len(rows)]})
			b.SetBytes(int64(len(buffer)))
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		w := json.NewEncoder(io.Discard)
		for i := range b.N {
			if err := w.Encode(&report.Line{Registry: "harbor.example.com", Row: rows[i%len(rows)]}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func plainCells(r *ledger.Row) []string {
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Format(time.RFC3339Nano)
	}
	parts := make([][]string, 6)
	for _, s := range r.Signatures {
		for i, text := range []string{s.KeyID, string(s.Format), s.Digest, s.Log, strconv.FormatInt(s.LogIndex, 10), at(&s.TimestampedAt)} {
			parts[i] = append(parts[i], text)
		}
	}
	cells := []string{
		"harbor.example.com", r.Project, r.Repository, r.Digest, r.MediaType, strings.Join(r.Tags, " "), strconv.Itoa(r.TagsTotal), strings.Join(r.Parents, " "),
		strconv.Itoa(r.ParentsTotal), string(r.State), r.Reason, r.Detail, r.Pusher, string(r.PusherSource), at(r.PushedAt), at(&r.FirstSeenAt), at(r.ReceivedAt),
		at(r.SignedAt), at(r.VerifiedAt), string(r.How),
	}
	for _, p := range parts {
		cells = append(cells, strings.Join(p, " "))
	}
	return append(cells, r.Note, string(r.LogState), "", at(r.LogOwedSince), r.LogReason, strconv.FormatUint(r.Attempts, 10), r.PolicyRevision, strconv.FormatUint(r.LedgerSeq, 10))
}

// BenchmarkExport is a whole export; an operation is a row.
func BenchmarkExport(b *testing.B) {
	rows := make([]ledger.Row, 1000)
	for i := range rows {
		rows[i] = rowOf(8*i + 1)
	}
	for _, format := range report.Formats() {
		b.Run(string(format), func(b *testing.B) {
			b.ReportAllocs()
			e := exporter(b, configured(b, &view{rows: b.N, row: func(i int) ledger.Row { return rows[i%len(rows)] }}, newKey(b, "k")))
			b.ResetTimer()
			if _, err := e.Export(b.Context(), io.Discard, report.Request{Format: format}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkMethods compresses rows of CSV in one goroutine.
func BenchmarkMethods(b *testing.B) {
	var rows []byte
	for i := range 10_000 {
		row := rowOf(8*i + 1)
		rows = report.AppendRow(rows, "harbor.example.com", &row)
	}
	for name, open := range map[string]func(io.Writer) (io.WriteCloser, error){
		"stored":  nil,
		"huffman": func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.HuffmanOnly) },
		"flate-1": func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) },
		"flate-6": func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 6) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(rows)))
			var size counter
			for range b.N {
				size = 0
				w := zip.NewWriter(&size)
				method := zip.Store
				if open != nil {
					method = zip.Deflate
					w.RegisterCompressor(zip.Deflate, open)
				}
				f, err := w.CreateHeader(&zip.FileHeader{Name: "x", Method: method})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Write(rows); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size)/float64(len(rows)), "ratio")
		})
	}
}

// counter counts bytes.
type counter int

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
