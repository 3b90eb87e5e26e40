package queue

import "github.com/rs/zerolog"

const (
	// warnRatio is what of a limit must be taken so that somebody should know, and calmRatio what may be taken before that is
	// forgotten, so that it is not said again and again.
	warnRatio = 0.7
	calmRatio = 0.65
)

// ratio is what is taken of the stream's limit, from 0 to 1; 0 without a limit.
func (s StreamUsage) ratio() float64 { return ratio(float64(s.Bytes), s.Limit) }

// storeRatio is what is taken of the limit of the store.
func (u Usage) storeRatio() float64 { return ratio(float64(u.StoreBytes), u.StoreLimit) }

// diskRatio is what is taken of the volume, by whomever.
func (u Usage) diskRatio() float64 { return ratio(float64(u.DiskSize-u.DiskFree), u.DiskSize) }

func ratio(taken float64, limit int64) float64 {
	if limit <= 0 {
		return 0
	}
	return taken / float64(limit)
}

// warnings are the limits of which was said that they are nearly reached. It belongs to one goroutine.
type warnings map[string]bool

// look warns once of each limit that is nearly reached.
func (w warnings) look(log zerolog.Logger, u Usage) {
	w.check(log, "store", u.storeRatio())
	w.check(log, "disk", u.diskRatio())
	for _, s := range u.Streams {
		w.check(log, "stream "+s.Name, s.ratio())
	}
}

func (w warnings) check(log zerolog.Logger, what string, ratio float64) {
	switch {
	case ratio >= warnRatio && !w[what]:
		w[what] = true
		log.Warn().Str("limit", what).Float64("used_ratio", ratio).Msg("the queue has taken most of a limit: when it is reached, pushes are refused")
	case ratio < calmRatio && w[what]:
		delete(w, what)
		log.Info().Str("limit", what).Float64("used_ratio", ratio).Msg("the queue is well below a limit again")
	}
}
