package queue

import (
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"
)

// serverLog turns the embedded server's log into ours and keeps the first error that the server calls fatal: it reports
// such errors nowhere else and would end the process, which only main may do.
type serverLog struct {
	log    zerolog.Logger
	failed chan struct{} // closed after the first fatal error

	mu    sync.Mutex
	fatal error // guarded by mu
}

func newServerLog(log zerolog.Logger) *serverLog {
	return &serverLog{log: log.With().Str("component", "nats_server").Logger(), failed: make(chan struct{})}
}

func (l *serverLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

// The methods of server.Logger. Notices are about starts, stops and leaders: of interest to somebody who looks for them.

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug().Str("detail", fmt.Sprintf(format, v...)).Msg("embedded server says")
}

func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn().Str("detail", fmt.Sprintf(format, v...)).Msg("embedded server warns")
}

func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error().Str("detail", fmt.Sprintf(format, v...)).Msg("embedded server reports an error")
}

func (l *serverLog) Fatalf(format string, v ...any) {
	detail := fmt.Sprintf(format, v...)
	l.log.Error().Str("detail", detail).Msg("embedded server failed")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = errors.New("embedded server failed: " + detail)
		close(l.failed)
	}
}

func (l *serverLog) Debugf(format string, v ...any) {
	l.log.Trace().Str("detail", fmt.Sprintf(format, v...)).Msg("embedded server debugs")
}

func (l *serverLog) Tracef(format string, v ...any) {
	l.log.Trace().Str("detail", fmt.Sprintf(format, v...)).Msg("embedded server traces")
}
