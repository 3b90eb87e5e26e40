package config

import (
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
)

// The tags of the fields below are the whole schema:
//
//	key:"name"          the key in YAML; its path and its variable follow from it
//	key:"name,file"     a path of a file that must be there when the program starts
//	key:"name,path"     a path that the program makes itself
//	default:"text"      the default, written as a variable would be

// Receiver is the configuration of cmd/receiver.
type Receiver struct {
	Log    Log            `key:"log"`
	Ops    Ops            `key:"ops"`
	Harbor ReceiverHarbor `key:"harbor"`
	// Policies are those that are declared here: the first entry that names a project is its policy.
	Policies []ProjectPolicy `key:"policies"`
	Drift    Drift           `key:"drift"`
	HTTP     HTTP            `key:"http"`
	Webhook  Webhook         `key:"webhook"`
	API      API             `key:"api"`
	Keys     []PublicKey     `key:"keys"`
	Queue    ReceiverQueue   `key:"queue"`
	Ledger   Ledger          `key:"ledger"`
	Probe    Probe           `key:"probe"`
	Egress   Egress          `key:"egress"`
	Shutdown Shutdown        `key:"shutdown"`
}

// Signer is the configuration of cmd/signer.
type Signer struct {
	Log    Log    `key:"log"`
	Ops    Ops    `key:"ops"`
	Harbor Harbor `key:"harbor"`
	Keys   []Key  `key:"keys"`
	// Logs are the transparency logs, and TimestampAuthorities whose timestamps count. There are none by default.
	Logs                 []TransparencyLog    `key:"logs"`
	TimestampAuthorities []TimestampAuthority `key:"timestamp_authorities"`
	Sign                 Sign                 `key:"sign"`
	Sweep                Sweep                `key:"sweep"`
	Canary               Canary               `key:"canary"`
	Queue                Queue                `key:"queue"`
	Probe                Probe                `key:"probe"`
	Egress               Egress               `key:"egress"`
	Shutdown             Shutdown             `key:"shutdown"`
}

// Log says what is logged, and in which form.
type Log struct {
	// Level is one of trace, debug, info, warn, error.
	Level string `key:"level" default:"info"`
	// Format is one of auto, json, console.
	Format string `key:"format" default:"auto"`
}

// Ops is the listener for health and metrics.
type Ops struct {
	Listen string `key:"listen" default:"127.0.0.1:9090"`
}

// ReceiverHarbor is how Harbor is called, and how the receiver reaches it to see to webhooks and to ask who may do what.
// Without URL it does neither.
type ReceiverHarbor struct {
	// Name is this Harbor's name in the queue: the same in the receiver and in its signers.
	Name string `key:"name" default:"default"`
	// PublicHost is the host, with a port where it has one, that signatures and reports name; the host of URL if the file has
	// none.
	PublicHost string `key:"public_host"`
	// URL is the origin that is dialled: scheme, host and port, nothing else.
	URL        string `key:"url"`
	Username   string `key:"username"`
	SecretFile string `key:"secret_file,file"`
	// CAFile holds further authorities in PEM; empty for those of the system alone.
	CAFile string `key:"ca_file,file"`
	// Timeout bounds one request.
	Timeout time.Duration `key:"timeout" default:"15s"`
}

// Managed says whether the receiver sees to webhooks and lets Harbor's accounts in.
func (h ReceiverHarbor) Managed() bool { return h.URL != "" }

// Drift is the comparison of Harbor's settings with what the policies need.
type Drift struct {
	Interval time.Duration `key:"interval" default:"5m"`
}

// Harbor is how the signer reaches Harbor.
type Harbor struct {
	// Name is this Harbor's name in the queue: the same in the receiver and in its signers.
	Name string `key:"name" default:"default"`
	// URL is the origin that is dialled: scheme, host and port, nothing else.
	URL string `key:"url"`
	// PublicHost is the host, with a port where it has one, that signatures name; the host of URL if the file has none.
	PublicHost string `key:"public_host"`
	// StorageOrigins are where Harbor may redirect the reading of blobs to: its object storage.
	StorageOrigins []string `key:"storage_origins"`
	Username       string   `key:"username"`
	SecretFile     string   `key:"secret_file,file"`
	// CAFile holds further authorities in PEM; empty for those of the system alone.
	CAFile string `key:"ca_file,file"`
	// UserAgent contains "cosign", because Harbor's pull policy lets nobody else read what is not signed yet; empty for
	// the program's own.
	UserAgent string `key:"user_agent"`
	// Timeout bounds one request.
	Timeout time.Duration `key:"timeout" default:"30s"`
}

// HTTP is the receiver's listener for webhooks and the API.
type HTTP struct {
	Listen string    `key:"listen" default:"127.0.0.1:8443"`
	TLS    ServerTLS `key:"tls"`
	// AllowPlainHTTP must be true where TLS has no certificate.
	AllowPlainHTTP bool `key:"allow_plain_http" default:"false"`
	// MaxConnections is how many connections are served at once.
	MaxConnections int `key:"max_connections" default:"2048"`
	// TrustedProxies are addresses and networks (CIDR) whose X-Forwarded-For is believed.
	TrustedProxies []string `key:"trusted_proxies"`
}

// ServerTLS is the certificate of a listener; both or neither are set.
type ServerTLS struct {
	CertFile string `key:"cert_file,file"`
	KeyFile  string `key:"key_file,file"`
}

// Enabled says whether there is a certificate.
func (t ServerTLS) Enabled() bool { return t.CertFile != "" }

// Webhook is what Harbor's calls must bring.
type Webhook struct {
	// SecretFiles hold one secret each; any of them is accepted for every project. They are for webhooks that somebody made by
	// hand.
	SecretFiles []string `key:"secret_files,file"`
	// MasterSecretFiles hold one secret each, of which those of the projects are made: new ones of the first, and those of all
	// are accepted.
	MasterSecretFiles []string `key:"master_secret_files,file"`
	// URL is the origin by which Harbor reaches this receiver.
	URL string `key:"url"`
	// Rate is the budget of a project whose policy names none.
	Rate Rate `key:"rate"`
	// OwnOperators are the names under which Harbor reports the pushes of our own signatures.
	OwnOperators []string `key:"own_operators" default:"robot$harborseal"`
}

// Rate is how many pushes of a project go into the live lane; the others wait in the bulk lane.
type Rate struct {
	PerSecond float64 `key:"per_second" default:"5"`
	Burst     int     `key:"burst" default:"50"`
}

// API is who may use the API, beside Harbor's accounts.
type API struct {
	// TokensFile holds hashed bearer tokens; empty for none.
	TokensFile string `key:"tokens_file,file"`
	// Auditors are accounts of Harbor that may read everything.
	Auditors []string `key:"auditors"`
	// MaxWaiting is how many questions about the status of an image wait at once.
	MaxWaiting int `key:"max_waiting" default:"10000"`
}

// Sign is how images are signed where their project's policy leaves it open, and what bounds the work of one signer.
type Sign struct {
	// Format is one of the formats of package policy.
	Format policy.Format `key:"format" default:"auto"`
	// Key is the name of an active key; that of the only one if the file has none.
	Key string `key:"key"`
	// Annotations stand in the payload of every new signature.
	Annotations map[string]string `key:"annotations"`
	// Transparency is what is asked of the log whose name is Log: that of the only active one if the file has none, and empty
	// where none is active.
	Transparency policy.Transparency `key:"transparency" default:"off"`
	Log          string              `key:"log"`
	// Timestamp is what is asked of the active authority: if the file does not say, optional where there is one, else off.
	Timestamp policy.Timestamp `key:"timestamp"`
	// LogConcurrency is how many requests of one signer wait for a log at once, beside those in work.
	LogConcurrency int `key:"log_concurrency" default:"256"`
	// Concurrency is how many digests are in work at once.
	Concurrency int `key:"concurrency" default:"32"`
	// MaxInFlight is how many digests of one project are in work at once, unless its policy says otherwise.
	MaxInFlight int `key:"max_in_flight" default:"8"`
	// MaxAge is for how long a request is tried before it becomes a dead letter.
	MaxAge time.Duration `key:"max_age" default:"24h"`
}

// Sweep is the search for what no webhook told of, and for signatures that have vanished.
type Sweep struct {
	// Incremental is how often the newest pushes are looked through, and Full how often everything is.
	Incremental time.Duration `key:"incremental" default:"1m"`
	Full        time.Duration `key:"full" default:"24h"`
	// PageSize is how many artifacts one request lists: 1 to 100.
	PageSize int `key:"page_size" default:"100"`
	// RequestsPerSecond is what all signers together may ask of Harbor for sweeps; 0 for no limit.
	RequestsPerSecond int `key:"requests_per_second" default:"20"`
}

// Queue is the connection to JetStream.
type Queue struct {
	// URLs are the servers, "nats://host:port" or "tls://host:port".
	URLs            []string  `key:"urls"`
	Username        string    `key:"username"`
	PasswordFile    string    `key:"password_file,file"`
	CredentialsFile string    `key:"credentials_file,file"`
	TLS             ClientTLS `key:"tls"`
	// Replicas is how many servers keep each stream: 1, 3 or 5.
	Replicas int `key:"replicas" default:"1"`
	// AckWait is after how long without a sign of life a request goes to another signer.
	AckWait time.Duration `key:"ack_wait" default:"60s"`
}

// Account is how a receiver's user on NATS servers of their own gets at the streams.
type Account string

const (
	// Owner is a user of the account that owns the streams: it can do whatever signers can.
	Owner Account = "owner"
	// Imported is one of an account that imports what receivers need, and nothing else.
	Imported Account = "imported"
)

// ReceiverQueue is [Queue] and the server that the receiver runs itself.
type ReceiverQueue struct {
	Queue
	// Account says what the receiver's user is on URLs.
	Account  Account  `key:"account" default:"owner"`
	Embedded Embedded `key:"embedded"`
}

// ClientTLS is how a server is recognised, and how this client shows who it is.
type ClientTLS struct {
	CAFile   string `key:"ca_file,file"`
	CertFile string `key:"cert_file,file"`
	KeyFile  string `key:"key_file,file"`
}

// Enabled says whether anything is set, which asks for TLS.
func (t ClientTLS) Enabled() bool { return t != ClientTLS{} }

// Embedded is the NATS server in the receiver's own process.
type Embedded struct {
	// Enabled is true by default where Queue.URLs is empty.
	Enabled bool `key:"enabled"`
	// StoreDir is locked by the one receiver that uses it.
	StoreDir string `key:"store_dir,path" default:"/var/lib/harborseal/nats"`
	Listen   string `key:"listen" default:"127.0.0.1:4222"`
	// MaxStore is the limit of all streams together; it must be below the size of the volume.
	MaxStore Size `key:"max_store" default:"8GiB"`
	// Users are who may connect: the signers.
	Users []QueueUser `key:"users"`
	TLS   QueueTLS    `key:"tls"`
}

// QueueUser is one who may connect to the embedded server.
type QueueUser struct {
	Name         string `key:"name"`
	PasswordFile string `key:"password_file,file"`
}

// QueueTLS is the certificate of the embedded server.
type QueueTLS struct {
	CertFile string `key:"cert_file,file"`
	KeyFile  string `key:"key_file,file"`
	// ClientCAFile, where it is set, asks every client for a certificate of one of these authorities.
	ClientCAFile string `key:"client_ca_file,file"`
}

// Enabled says whether there is a certificate.
func (t QueueTLS) Enabled() bool { return t.CertFile != "" }

// Ledger is the record of what happened, and the database that the report is read from.
type Ledger struct {
	// Database says which of the two below holds the report.
	Database Database `key:"database" default:"sqlite"`
	SQLite   SQLite   `key:"sqlite"`
	Postgres Postgres `key:"postgres"`
	// MaxAge is for how long the stream keeps events: at least a year (PCI DSS 10.5.1), unless AllowShortRetention says that less
	// is meant.
	MaxAge              time.Duration `key:"max_age" default:"9600h"`
	AllowShortRetention bool          `key:"allow_short_retention" default:"false"`
	// MaxBytes is the limit of the stream; 0 for none of its own.
	MaxBytes   Size       `key:"max_bytes" default:"0"`
	Checkpoint Checkpoint `key:"checkpoint"`
}

// Database is a kind of database.
type Database string

// The databases.
const (
	DatabaseSQLite   Database = "sqlite"
	DatabasePostgres Database = "postgres"
)

// SQLite is the database of one receiver. It can be deleted: it is made again from the stream.
type SQLite struct {
	Path string `key:"path,path" default:"/var/lib/harborseal/ledger.db"`
}

// Postgres is the database of one or several receivers. It can be emptied: it is filled again from the stream.
type Postgres struct {
	// Address is host and port; 5432 if it names no port.
	Address  string `key:"address"`
	Name     string `key:"name" default:"harborseal"`
	Username string `key:"username" default:"harborseal"`
	// PasswordFile may be empty where a client certificate says who this is, or the server trusts the address.
	PasswordFile string `key:"password_file,file"`
	// Schema is made if it is missing, and belongs to this service alone.
	Schema string `key:"schema" default:"harborseal"`
	// MaxConnections bounds the connections of one receiver.
	MaxConnections int       `key:"max_connections" default:"8"`
	TLS            ClientTLS `key:"tls"`
	// AllowPlaintext must be true where the connection is not to be encrypted.
	AllowPlaintext bool `key:"allow_plaintext" default:"false"`
}

// Checkpoint is the tamper evidence of the ledger. Without a key there is none.
type Checkpoint struct {
	// KeyFile holds the ledger key: an Ed25519 key in PEM (PKCS #8), which signs no image.
	KeyFile string `key:"key_file,file"`
	// VerifierKeys are those of the ledger keys of before, whose checkpoints stay valid.
	VerifierKeys []string `key:"verifier_keys"`
	// Interval is the time between two checkpoints, VerifyInterval that between two readings of the whole ledger.
	Interval       time.Duration `key:"interval" default:"1m"`
	VerifyInterval time.Duration `key:"verify_interval" default:"24h"`
	// File and Webhook are a second place for the checkpoints.
	File    string            `key:"file,path"`
	Webhook CheckpointWebhook `key:"webhook"`
}

// Enabled says whether there is a ledger key.
func (c Checkpoint) Enabled() bool { return c.KeyFile != "" }

// CheckpointWebhook is where each checkpoint is sent; none without a URL.
type CheckpointWebhook struct {
	URL string `key:"url"`
	// SecretFile holds the secret by which the body is authenticated.
	SecretFile string `key:"secret_file,file"`
	// CAFile holds further authorities in PEM; empty for those of the system alone.
	CAFile string `key:"ca_file,file"`
}

// Canary is the account that pushes images of the service's own into the projects whose policies say that they are canaries,
// to try the whole way. Without it no signer does.
type Canary struct {
	// Username is that of a robot which pushes and deletes in these projects.
	Username   string `key:"username"`
	SecretFile string `key:"secret_file,file"`
	// Interval is the time between two images.
	Interval time.Duration `key:"interval" default:"1m"`
}

// Enabled says whether there is an account.
func (c Canary) Enabled() bool { return c.Username != "" }

// Probe is the search for dependencies that do not answer.
type Probe struct {
	// Interval is the time between two calls to each of them.
	Interval time.Duration `key:"interval" default:"15s"`
}

// Egress is how connections are made, and what is kept of them.
type Egress struct {
	// Resolver is the address and port of a DNS server that is asked instead of the system's; empty for the system's.
	Resolver string `key:"resolver"`
	// RecordFile gets a line for every destination; empty for none.
	RecordFile string `key:"record_file,path"`
}

// Shutdown bounds the end of the program.
type Shutdown struct {
	// Drain is how long jobs in hand may take after SIGTERM.
	Drain time.Duration `key:"drain" default:"20s"`
}

// Size is a number of bytes.
type Size int64

// String writes the largest binary unit that divides the size, such as "8GiB".
func (s Size) String() string {
	for _, u := range units() {
		if n := int64(s); n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
