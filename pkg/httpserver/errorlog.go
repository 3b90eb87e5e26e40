package httpserver

import (
	"fmt"
	"log" //nolint:depguard // http.Server.ErrorLog has this type, and its default writes to standard error
	"strings"

	"github.com/rs/zerolog"
)

// errorLog turns the lines of net/http into lines of ours.
type errorLog struct{ logger zerolog.Logger }

func newErrorLog(logger zerolog.Logger) *log.Logger { return log.New(errorLog{logger}, "", 0) }

// Write implements io.Writer; log.Logger calls it once for each line. What any stranger can cause by connecting is not
// worth a warning.
func (e errorLog) Write(line []byte) (int, error) {
	level := zerolog.WarnLevel
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: TLS handshake error") {
		level = zerolog.DebugLevel
	}
	e.logger.WithLevel(level).Str("detail", text).Msg("http server reported an error")
	return len(line), nil
}

// Println is what promhttp wants of a logger.
func (e errorLog) Println(v ...any) {
	e.logger.Warn().Str("detail", strings.TrimSpace(fmt.Sprintln(v...))).Msg("metrics could not be written")
}
