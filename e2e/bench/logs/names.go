package logs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Names is how long it took, after names had gone, until the metrics said so. Each is that of a log, and probed at its own times.
type Names struct {
	Seen []time.Duration `json:"seen_ns"`
}

// slowest is the longest of them.
func (n *Names) slowest() (most time.Duration) {
	for _, d := range n.Seen {
		most = max(most, d)
	}
	return most
}

// names lets the names of all logs disappear at once, which are one log in truth.
func (b *bench) names(ctx context.Context, log *harness.Rekor) (n *Names, err error) {
	if b.Names == 0 {
		return nil, nil //nolint:nilnil // nothing was to be measured
	}
	dns, err := harness.StartDNS(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dns.Close()) }()
	hosts := make([]string, b.Names)
	for i := range hosts {
		hosts[i] = "rekor" + strconv.Itoa(i) + ".test"
		dns.Set(hosts[i], netip.MustParseAddr("127.0.0.1"))
	}
	front, err := harness.StartFront(ctx, filepath.Join(b.Dir, "names"), log.URL, hosts...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeFront(ctx, front)) }()
	var logs []harness.Config
	for i, host := range hosts {
		c := logConfig(log, "rekor"+strconv.Itoa(i), front.URL(host))
		c["ca_file"] = front.CAFile
		logs = append(logs, c)
	}
	b.say("names: waiting until %d logs are seen, and then until they are missed", len(hosts))
	w, err := b.newWorld(ctx, withLog(logs...), func(c harness.Config) { harness.Set(c, dns.Addr(), "egress", "resolver") })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	up := func(m harness.Metrics, i int) float64 {
		value, there := m[fmt.Sprintf(`harborseal_dependency_up{dependency="log/rekor%d"}`, i)]
		if !there {
			return -1
		}
		return value
	}
	if err := w.until(ctx, func(m harness.Metrics) error {
		for i := range hosts {
			if up(m, i) != 1 {
				return fmt.Errorf("log %d is not up", i)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, host := range hosts {
		dns.Remove(host)
	}
	n = &Names{Seen: make([]time.Duration, len(hosts))}
	gone := time.Now()
	return n, w.until(ctx, func(m harness.Metrics) error {
		missing := 0
		for i := range hosts {
			if n.Seen[i] == 0 && up(m, i) == 0 {
				n.Seen[i] = time.Since(gone)
			}
			if n.Seen[i] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d names are not missed", missing, len(hosts))
		}
		return nil
	})
}
