package projects

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// usages are what all processes have used up to one moment.
type usages struct {
	at               time.Time
	servers          []harness.Usage
	receiver, signer harness.Usage
}

func (b *bench) look() (u usages, err error) {
	u.at = time.Now()
	for _, node := range b.nats.Nodes {
		one, err := node.Process().Usage()
		if err != nil {
			return u, err
		}
		u.servers = append(u.servers, one)
	}
	if u.receiver, err = b.System.Receiver.Process.Usage(); err != nil {
		return u, err
	}
	u.signer, err = b.System.Signers[0].Process.Usage()
	return u, err
}

// idleRow looks at the processes while nothing happens.
func (b *bench) idleRow(ctx context.Context, nodes int) (*Row, error) {
	before, err := b.look()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(b.idle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
	}
	after, err := b.look()
	if err != nil {
		return nil, err
	}
	return after.row(nodes, before), nil
}

// row gives what is used now, and since a moment before, if one is given.
func (u usages) row(nodes int, before ...usages) *Row {
	since := u
	if len(before) > 0 {
		since = before[0]
	}
	took := u.at.Sub(since.at)
	use := func(now, then harness.Usage) Use {
		one := Use{RSS: now.RSS}
		if took > 0 {
			one.CPU = (now.CPU - then.CPU).Seconds() / took.Seconds()
		}
		return one
	}
	r := &Row{Nodes: nodes, Idle: took, Receiver: use(u.receiver, since.receiver), Signer: use(u.signer, since.signer)}
	for i := range u.servers {
		r.Servers = append(r.Servers, use(u.servers[i], since.servers[i]))
	}
	slices.SortFunc(r.Servers, func(a, b Use) int { return cmp.Compare(b.RSS, a.RSS) })
	return r
}
