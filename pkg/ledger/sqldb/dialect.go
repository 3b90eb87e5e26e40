package sqldb

import (
	"database/sql"
	"embed"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/harborseal/harborseal/pkg/fault"
)

//go:embed migrations
var migrations embed.FS

// dialect is all in which databases differ.
type dialect struct {
	name  string
	goose goose.Dialect
	// rebind turns the placeholders ? into those of the database.
	rebind func(query string) string
	// lock is appended to the query that must keep other writers away until the end of the transaction.
	lock string
	// empty comes before the name of a table that is to lose all its rows.
	empty string
	// tables counts the tables of the schema that the database's own catalogue lists.
	tables string
	// snapshot begins a transaction that reads one state of the database.
	snapshot *sql.TxOptions
	// steer is run before queries that are written for one index each: it makes the planner follow. Empty if it does so anyway.
	steer string
	// kind says what an error of the database means; what is put before its text, or empty.
	kind func(err error) (kind fault.Kind, reason fault.Reason, what string)
}

// migrations gives the files of the dialect.
func (d dialect) migrations() (fs.FS, error) { return fs.Sub(migrations, "migrations/"+d.name) }
