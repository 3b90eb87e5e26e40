package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"

	"github.com/harborseal/harborseal/pkg/secretfile"
)

const (
	// startTimeout bounds the start of the embedded server. Recovering a ledger of a million events takes some seconds.
	startTimeout = 5 * time.Minute
	// maxMemory bounds what JetStream may keep in memory: only short-lived consumers are kept there.
	maxMemory = 64 << 20
	// The listener's bounds. A connection takes some 20 KiB. Who does not read what it asked for, more than maxPending of it or for
	// longer than writeDeadline, is cut off; the pull requests of this program's clients never ask for so much at once. What is
	// not signed in after authSeconds is cut off as well.
	maxConnections   = 512
	maxSubscriptions = 10_000
	maxPending       = 16 << 20
	writeDeadline    = 10 * time.Second
	authSeconds      = 2
	// maxPayload is the largest message: what is stored is far smaller.
	maxPayload = 1 << 20
)

// ServerConfig describes the embedded server.
type ServerConfig struct {
	// StoreDir is the folder of the streams, created when missing. Exactly one process may use it.
	StoreDir string
	// Listen is the address for other programs, such as "127.0.0.1:4222"; port 0 picks a free one. Empty means that only
	// this process can connect. At most 512 connections are taken, and who does not read is cut off.
	Listen string
	// MaxStore is the most that all streams together may take on disk, in bytes; at most 80 % of the size of the volume,
	// else the server does not start, because a stream that met a full disk takes nothing until JetStream is restarted. 0
	// leaves the choice to the server.
	MaxStore int64
	// Reserve is what is kept free of the volume, in bytes: while less is free, nothing is stored, and publishes are refused as by
	// a full store. 0 is 2 % of the volume, but at least 64 MiB and at most 1 GiB, and of a tiny volume a quarter.
	Reserve int64
	// Users may connect to the listener; at least one is needed if there is a listener.
	Users []User
	// TLS of the listener; nil means none.
	TLS    *TLSConfig
	Logger zerolog.Logger

	unsynced   bool                            // writes are not synced, because whoever restores does so in the end
	volumeSize func(dir string) (int64, error) // for tests; nil asks the system
	lookEvery  time.Duration                   // for tests; 0 is the constant of that name
}

// User may connect to the embedded server. The password file must not be accessible to others; a password has at most 72
// bytes.
type User struct {
	Name         string
	PasswordFile string
}

// TLSConfig names the PEM files of the embedded server's listener. The certificate is read again for each handshake; while
// the two files do not fit, as between the replacement of one and of the other, the last pair that did is served.
type TLSConfig struct {
	CertFile, KeyFile string
	// ClientCAFile makes a client certificate mandatory; empty means that none is asked for.
	ClientCAFile string
}

// Server is a JetStream server in this process. It syncs every write to disk before it acknowledges it.
//
// A crash loses nothing that was acknowledged; the lock on the store is released by the kernel. Before its volume is full it
// refuses what would be stored, and it takes messages again as soon as there is room, whatever happened meanwhile.
type Server struct {
	nats      *server.Server
	jetStream server.JetStreamConfig // to start it again
	room      *room
	lock      *lockFile
	log       *serverLog
	logger    zerolog.Logger
	storeDir  string
	user      string // of connections from this process
	password  string
	stop      func() error // stops the server and releases the store, once
}

// StartServer locks the store, starts the server and waits until it takes connections, at most until ctx ends.
//
// A second process on the same store gets an error that says that exactly one receiver may run on it.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	s := &Server{
		log: newServerLog(cfg.Logger), logger: cfg.Logger, storeDir: cfg.StoreDir, user: "in-process", password: rand.Text(),
	}
	s.room = &room{server: s, reserve: cfg.Reserve, every: orDefault(cfg.lookEvery, lookEvery), pause: restartLeast}
	opts, err := s.options(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring the embedded server: %w", err)
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("starting the embedded server: %w", err)
	}
	if err := cfg.checkVolume(); err != nil {
		return nil, fmt.Errorf("starting the embedded server: %w", err)
	}
	if s.lock, err = lockStore(cfg.StoreDir); err != nil {
		return nil, fmt.Errorf("starting the embedded server: %w", err)
	}
	if s.nats, err = server.NewServer(opts); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the embedded server: %w", err), s.lock.release())
	}
	watching, endWatching := context.WithCancel(context.WithoutCancel(ctx)) // until it is stopped
	var watch sync.WaitGroup
	s.stop = sync.OnceValue(func() error {
		endWatching()
		watch.Wait()
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		return s.lock.release()
	})
	s.nats.SetLoggerV2(s.log, false, false, false)
	s.nats.Start()
	if err := s.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the embedded server: %w", err), s.stop())
	}
	s.jetStream = *s.nats.JetStreamConfig()
	s.jetStream.StoreDir = cfg.StoreDir // The server adds a folder of its own to it each time.
	s.room.measure()
	watch.Go(func() { s.room.watch(watching) })
	return s, nil
}

func (s *Server) options(cfg ServerConfig) (*server.Options, error) {
	if cfg.StoreDir == "" {
		return nil, errors.New("no folder for the store")
	}
	if cfg.MaxStore < 0 {
		return nil, errors.New("the limit of the store is negative")
	}
	if cfg.Reserve < 0 {
		return nil, errors.New("the reserve of the volume is negative")
	}
	opts := &server.Options{
		ServerName:             "harborseal",
		DontListen:             cfg.Listen == "",
		JetStream:              true,
		StoreDir:               cfg.StoreDir,
		SyncAlways:             !cfg.unsynced,
		JetStreamMaxStore:      cfg.MaxStore,
		JetStreamMaxMemory:     maxMemory,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
		MaxConn:                maxConnections,
		MaxSubs:                maxSubscriptions,
		MaxPending:             maxPending,
		MaxPayload:             maxPayload,
		WriteDeadline:          writeDeadline,
		AuthTimeout:            authSeconds,
	}
	// A user of its own for this process, with a password that nobody knows, so that the listener always asks for one.
	if err := addUser(opts, s.user, s.password); err != nil {
		return nil, err
	}
	if cfg.Listen == "" {
		return opts, nil
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	opts.Host, opts.Port = host, port
	if len(cfg.Users) == 0 {
		return nil, errors.New("a listener needs at least one user")
	}
	for _, user := range cfg.Users {
		if user.Name == "" || user.Name == s.user {
			return nil, fmt.Errorf("user name %q is not allowed", user.Name)
		}
		password, err := secretfile.ReadLine(user.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", user.Name, err)
		}
		if err := addUser(opts, user.Name, password); err != nil {
			return nil, fmt.Errorf("user %q: %w", user.Name, err)
		}
	}
	if cfg.TLS != nil {
		if opts.TLSConfig, err = cfg.TLS.load(cfg.Logger); err != nil {
			return nil, err
		}
		opts.TLSVerify = cfg.TLS.ClientCAFile != ""
	}
	return opts, nil
}

// addUser lets a user connect. The server keeps a hash and warns about anything else; it lives in memory only, so that
// the least cost is enough.
func addUser(opts *server.Options, name, password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("hashing the password: %w", err)
	}
	opts.Users = append(opts.Users, &server.User{Username: name, Password: string(hash)})
	return nil
}

func splitListen(listen string) (host string, port int, err error) {
	host, service, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("address of the listener: %w", err)
	}
	number, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of the listener: %w", err)
	}
	if number == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(number), nil
}

// waitReady waits until the server takes connections. The server reports what stops it only to its log.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if s.nats.ReadyForConnections(50*time.Millisecond) && s.nats.JetStreamEnabled() {
			return nil
		}
		select {
		case <-s.log.failed:
			return s.log.err()
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
}

// Addr is the address of the listener, such as "127.0.0.1:4222"; empty if there is none.
func (s *Server) Addr() string {
	if addr := s.nats.Addr(); addr != nil {
		return addr.String()
	}
	return ""
}

// Healthy says whether every stream can be read and written, as far as the server knows. A stream that met a full disk is
// broken until there is room again and JetStream was restarted, which the server does by itself within seconds.
func (s *Server) Healthy() error {
	if err := s.log.err(); err != nil {
		return err
	}
	return s.broken()
}

// broken says what is wrong with JetStream.
func (s *Server) broken() error {
	status := s.nats.Healthz(&server.HealthzOptions{})
	if status.StatusCode != 0 && status.StatusCode != 200 {
		return fmt.Errorf("embedded server is %s: %s", status.Status, status.Error)
	}
	return nil
}

// Full says whether the server refuses what would be stored, because too little is free of its volume.
func (s *Server) Full() bool { return s.room.isLow() }

// Storage gives the bytes that the streams take on disk and the most that they may take.
func (s *Server) Storage() (used, limit int64, err error) {
	info, err := s.nats.Jsz(&server.JSzOptions{})
	if err != nil {
		return 0, 0, fmt.Errorf("asking the embedded server for its storage: %w", err)
	}
	return int64(info.Store), info.Config.MaxStore, nil //nolint:gosec // bytes on a disk fit into 63 bits
}

// Disk gives the bytes that are free on the volume of the store, and its size; 0 where the system does not tell.
func (s *Server) Disk() (free, size int64, err error) {
	if free, size, err = volumeRoom(s.storeDir); err != nil {
		return 0, 0, fmt.Errorf("asking for the volume of %s: %w", s.storeDir, err)
	}
	return free, size, nil
}

// Shutdown stops the server, waits until everything is on disk, at most until ctx ends, and releases the store. Clients
// in this process must be closed before. Repeating it is safe; the store stays locked until the server has stopped.
func (s *Server) Shutdown(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			return fmt.Errorf("releasing the store: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping the embedded server: %w", ctx.Err())
	}
}

// inProcess hands connections of this process to nats.go.
type inProcess struct{ server *Server }

// InProcessConn implements nats.InProcessConnProvider.
func (p inProcess) InProcessConn() (net.Conn, error) { return p.server.nats.InProcessConn() }
