// Package sqldb keeps the ledger's view in an SQL database: SQLite, in a file of its own.
//
// It guarantees that rows and position change in one transaction, and that readers never wait for the writer. Everything
// in the database comes from the stream, so the file is never worth a backup: one that is lost or damaged is replaced and
// filled again.
//
// It assumes that the file lies on a local disk (SQLite's write-ahead log needs shared memory). Several programs may use
// one file, though only one of them writes at a time.
//
// Statements are written in the SQL that SQLite and PostgreSQL share; what differs between databases is in the dialect
// alone. Values reach the database as parameters only.
package sqldb
