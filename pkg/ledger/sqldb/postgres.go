package sqldb

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Postgres names a PostgreSQL database, of version 13 or newer. Several receivers may use one. A pooler in between must keep a session to
// its connection.
type Postgres struct {
	// Address is host and port; 5432 if it names no port.
	Address string
	// Name is the database, Username who may make schemas in it.
	Name     string
	Username string
	// PasswordFile is read at each connection, so that a password can be changed; empty for none.
	PasswordFile string
	// Schema holds which view is served; the views are in schemas of their own, whose names begin with it. Empty means
	// "harborseal".
	Schema string
	// MaxConnections bounds the connections of this program; 0 means 8, and less than 4 counts as 4. A rebuild takes as many more.
	MaxConnections int
	// TLS encrypts the connection; nil does not.
	TLS *tls.Config
	// KeepReplaced is for how long a view that was replaced is kept, so that other receivers can let go of it; 0 means 15 s.
	KeepReplaced time.Duration
}

// Limits of a session. A connection of which nothing was heard for so long is given up, so that the locks of a receiver whose machine
// went away do not stay.
const (
	defaultConnections = 8
	admins             = 2
	writers            = 1 // the position is locked by whoever writes: more would wait for each other
	connectTimeout     = 5 * time.Second
	writeLimit         = 60 * time.Second
	lockLimit          = 20 * time.Second
	idleLimit          = 5 * time.Minute
)

func postgresDialect() dialect {
	return dialect{
		name:     "postgres",
		goose:    goose.DialectPostgres,
		rebind:   numbered,
		lock:     " FOR UPDATE",
		empty:    "TRUNCATE ",
		tables:   "SELECT COUNT(*) FROM (SELECT tablename AS name FROM pg_catalog.pg_tables WHERE schemaname = current_schema()) AS t WHERE name <> ''",
		snapshot: &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
		steer: "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), " +
			"set_config('enable_sort', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)",
		kind: kindOfPostgres,
	}
}

// numbered turns the placeholders ? into $1 and so on. No statement has a question mark that is none.
func numbered(query string) string {
	var b strings.Builder
	b.Grow(len(query) + 64)
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// kindOfPostgres goes by the class of the error. What the server does not say is a connection that was lost.
//
// SPEC: PostgreSQL, Appendix A, Error Codes.
func kindOfPostgres(err error) (fault.Kind, fault.Reason, string) {
	var e *pgconn.PgError
	switch {
	case !errors.As(err, &e):
		return fault.Transient, fault.StorageUnavailable, ""
	case strings.HasPrefix(e.Code, "28"):
		return fault.Permanent, fault.Unauthorized, "the server refuses the name or its password: "
	case e.Code == "42501":
		return fault.Permanent, fault.Denied, "the user may not do that: grant it CREATE on the database: "
	case e.Code == "3D000":
		return fault.Permanent, fault.StorageUnavailable, "make the database first: "
	case strings.HasPrefix(e.Code, "XX"):
		return fault.Permanent, fault.StorageUnavailable, "the database is damaged: drop its schemas and start this program again, which fills new ones: "
	case e.Code == "57014":
		return fault.Transient, fault.Timeout, "the database took too long: "
	case e.Code == "53100":
		return fault.Transient, fault.StorageUnavailable, "the disk of the database is full: "
	default:
		return fault.Transient, fault.StorageUnavailable, ""
	}
}

// postgresServer keeps each view in a schema of its own, and which one is served in a table of another.
type postgresServer struct {
	cfg     Postgres
	connect pgx.ConnConfig
	dialect dialect
	logger  zerolog.Logger
	// admin is for what concerns all views: few short statements.
	admin *sql.DB
}

func newPostgresServer(cfg Postgres, d dialect, logger zerolog.Logger) (*postgresServer, error) {
	if cfg.Schema == "" {
		cfg.Schema = "harborseal"
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = defaultConnections
	}
	if cfg.KeepReplaced == 0 {
		cfg.KeepReplaced = 15 * time.Second
	}
	host, port, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		host, port = strings.Trim(cfg.Address, "[]"), "5432"
	}
	number, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || host == "" || cfg.Name == "" || cfg.Username == "":
		return nil, errors.New("of a PostgreSQL database, address, name and username are required")
	case !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`).MatchString(cfg.Schema):
		return nil, errors.New("the schema must be 1 to 40 of a-z, 0-9 and _, and no digit first")
	}
	// What is not said here must not come from variables of the environment.
	connect, err := pgx.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("preparing the connection: %w", err)
	}
	connect.Host, connect.Port, connect.Database, connect.User = host, uint16(number), cfg.Name, cfg.Username
	connect.Password, connect.Fallbacks, connect.ConnectTimeout = "", nil, connectTimeout
	connect.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // of several servers behind a name, not a standby
	if cfg.TLS != nil {
		connect.TLSConfig = cfg.TLS.Clone()
		if connect.TLSConfig.ServerName == "" {
			connect.TLSConfig.ServerName = host
		}
	}
	p := &postgresServer{cfg: cfg, connect: *connect, dialect: d, logger: logger}
	p.admin = p.pool("", admins, nil)
	return p, nil
}

// pool makes a pool of connections whose tables are those of a schema. It connects to nothing.
func (p *postgresServer) pool(schema string, connections int, parameters map[string]string) *sql.DB {
	cfg := p.connect.Copy()
	cfg.RuntimeParams = map[string]string{
		"application_name": "harborseal", "search_path": schema, "timezone": "UTC", "client_encoding": "UTF8",
		"lock_timeout": millis(lockLimit), "idle_in_transaction_session_timeout": millis(idleLimit),
		// The answers are pages: compiling a query takes longer than it saves.
		"jit": "off",
	}
	maps.Copy(cfg.RuntimeParams, parameters)
	db := stdlib.OpenDB(*cfg, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		if p.cfg.PasswordFile == "" {
			return nil
		}
		text, err := os.ReadFile(p.cfg.PasswordFile)
		if err != nil {
			return fmt.Errorf("reading the password: %w", err)
		}
		c.Password = strings.TrimRight(string(text), "\r\n")
		return nil
	}))
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(idleLimit)
	return db
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// openSchema opens the view in a schema, which is there, and brings it up to date. It leaves no connection open if it fails.
func (p *postgresServer) openSchema(ctx context.Context, schema string) (_ *view, err error) {
	v := &view{name: schema, dialect: p.dialect}
	// Migrations take as long as they take.
	migrations := p.pool(schema, 2, nil)
	v.write = migrations
	err = v.migrate(ctx)
	if err := errors.Join(err, migrations.Close()); err != nil {
		return nil, err
	}
	v.write = p.pool(schema, writers, map[string]string{
		"statement_timeout": millis(writeLimit),
		// Its plans are kept, and some are made while the tables are empty: every one must go by an index.
		"enable_seqscan": "off",
	})
	v.read = p.pool(schema, max(1, p.cfg.MaxConnections-admins-writers), nil)
	v.shut = func() error { return errors.Join(v.read.Close(), v.write.Close()) }
	texts := make([]string, statements)
	for s := range statements {
		texts[s] = p.dialect.rebind(s.text(p.dialect.lock))
	}
	v.batched = func(ctx context.Context, f func(s session) error) error { return pipelined(ctx, v.write, texts, f) }
	return v.begun(), nil
}

// pipelined runs f in a transaction whose calls are sent together: the answers of a run are waited for once.
func pipelined(ctx context.Context, db *sql.DB, texts []string, f func(s session) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	err = conn.Raw(func(driver any) error {
		raw, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the connection is a %T", driver)
		}
		return pgx.BeginFunc(ctx, raw.Conn(), func(tx pgx.Tx) error { return f(pipeline{tx: tx, texts: texts}) })
	})
	return errors.Join(err, conn.Close())
}

// pipeline is a session of PostgreSQL.
type pipeline struct {
	tx    pgx.Tx
	texts []string
}

func (p pipeline) run(ctx context.Context, calls []call) error {
	if len(calls) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, c := range calls {
		queued := batch.Queue(p.texts[c.statement], c.args...)
		if c.row == nil {
			continue
		}
		queued.QueryRow(func(row pgx.Row) error {
			if err := c.row(row); err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			return nil
		})
	}
	return p.tx.SendBatch(ctx, batch).Close()
}

func (p *postgresServer) keepReplaced() time.Duration { return p.cfg.KeepReplaced }

func (p *postgresServer) close() error { return p.admin.Close() }
