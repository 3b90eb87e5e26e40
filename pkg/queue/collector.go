package queue

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// usageCollector shows the usage that was measured last, and nothing before that. It is safe for concurrent use.
type usageCollector struct {
	streamBytes, streamLimit, streamMessages *prometheus.Desc // stream
	streamRatio, stranded                    *prometheus.Desc // stream
	storeBytes, storeLimit, storeRatio       *prometheus.Desc
	diskFree, diskSize, diskRatio            *prometheus.Desc
	deadLetters, debts, oldestDebt           *prometheus.Desc
	requests, oldestRequest                  *prometheus.Desc // lane
	measured                                 *prometheus.Desc

	mu   sync.Mutex
	last *Usage // guarded by mu; nil before the first
}

func newUsageCollector() *usageCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("harborseal_"+name, help, labels, nil)
	}
	return &usageCollector{
		streamBytes:    desc("queue_stream_bytes", "Bytes that a stream takes.", "stream"),
		streamLimit:    desc("queue_stream_limit_bytes", "The most bytes that a stream may take, if it has a limit of its own.", "stream"),
		streamMessages: desc("queue_stream_messages", "Messages in a stream.", "stream"),
		streamRatio:    desc("queue_stream_used_ratio", "What is taken of that limit, from 0 to 1.", "stream"),
		stranded:       desc("queue_stranded", "Messages of a work queue that no consumer will ever hand out.", "stream"),
		storeBytes:     desc("queue_store_bytes", "Bytes that all streams take on disk."),
		storeLimit:     desc("queue_store_limit_bytes", "The most bytes that all streams may take, if the server tells."),
		storeRatio:     desc("queue_store_used_ratio", "What is taken of that limit, from 0 to 1."),
		diskFree:       desc("queue_disk_free_bytes", "Free bytes of the volume of the embedded server."),
		diskSize:       desc("queue_disk_size_bytes", "Size of the volume of the embedded server."),
		diskRatio:      desc("queue_disk_used_ratio", "What is taken of that volume, by whomever, from 0 to 1."),
		deadLetters:    desc("dead_letters", "Requests that were given up and wait for somebody."),
		debts:          desc("log_debt", "Signatures whose entry in a transparency log is still to be made."),
		oldestDebt:     desc("log_debt_oldest_timestamp_seconds", "When the oldest debt was noted; 0 if there is none."),
		requests:       desc("queue_requests", "Requests that are not done, those in work included.", "lane"),
		oldestRequest:  desc("queue_oldest_request_timestamp_seconds", "When the oldest of them was stored; 0 if there is none.", "lane"),
		measured:       desc("queue_usage_timestamp_seconds", "When the usage of the queue was measured last."),
	}
}

func (c *usageCollector) set(u Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = &u
}

// Describe implements prometheus.Collector.
func (c *usageCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.streamBytes, c.streamLimit, c.streamMessages, c.streamRatio, c.stranded,
		c.storeBytes, c.storeLimit, c.storeRatio, c.diskFree, c.diskSize, c.diskRatio,
		c.deadLetters, c.debts, c.oldestDebt, c.requests, c.oldestRequest, c.measured,
	} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *usageCollector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	u := c.last
	c.mu.Unlock()
	if u == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, s := range u.Streams {
		gauge(c.streamBytes, float64(s.Bytes), s.Name)
		gauge(c.streamMessages, float64(s.Messages), s.Name)
		if s.Limit > 0 {
			gauge(c.streamLimit, float64(s.Limit), s.Name)
			gauge(c.streamRatio, s.ratio(), s.Name)
		}
	}
	for stream, n := range u.Stranded {
		gauge(c.stranded, float64(n), stream)
	}
	gauge(c.storeBytes, float64(u.StoreBytes))
	if u.StoreLimit > 0 {
		gauge(c.storeLimit, float64(u.StoreLimit))
		gauge(c.storeRatio, u.storeRatio())
	}
	if u.DiskSize > 0 {
		gauge(c.diskFree, float64(u.DiskFree))
		gauge(c.diskSize, float64(u.DiskSize))
		gauge(c.diskRatio, u.diskRatio())
	}
	gauge(c.deadLetters, float64(u.DeadLetters))
	for lane, b := range u.Waiting {
		if lane == artifact.Debt {
			gauge(c.debts, float64(b.Count))
			gauge(c.oldestDebt, seconds(b.Oldest))
			continue
		}
		gauge(c.requests, float64(b.Count), string(lane))
		gauge(c.oldestRequest, seconds(b.Oldest), string(lane))
	}
	gauge(c.measured, seconds(u.At))
}

// seconds gives a time in seconds since 1970, and 0 for none.
func seconds(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixMilli()) / 1000
}
