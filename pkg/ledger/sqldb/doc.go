// Package sqldb keeps the ledger's view in an SQL database: SQLite, in a file of its own, or PostgreSQL, in schemas of its own.
//
// It guarantees that rows, counts and position change in one transaction, and that readers never wait for the writer. Everything
// in the database comes from the stream, so it is never worth a backup: one that is lost or damaged is replaced and
// filled again. A view can be built beside the one that is served, and put in its place ([Store.Beside]).
//
// It assumes that an SQLite file lies on a local disk (its write-ahead log needs shared memory). Several programs may use
// one file, or one PostgreSQL schema: one of them writes at a time, and what another has applied already is passed over.
//
// Statements are written in the SQL that SQLite and PostgreSQL share; what differs between databases is in the dialect
// and in the backend. Values reach the database as parameters only.
package sqldb
