package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The user of the harness's own that fills the servers' store, and what it fills it with.
const (
	natsFiller   = "filler"
	fillerStream = "FILLER"
	fillerBytes  = 256 << 10
)

// fillerUser is the line that a copy of deploy/nats/accounts.conf gets: a user who may make one stream more, and nothing else.
const fillerUser = `
      { user: filler, password: $NATS_FILLER_PASSWORD, permissions: {
        publish: { allow: [ "filler", "$JS.API.INFO", "$JS.API.STREAM.*.FILLER" ] }, subscribe: { allow: [ "_INBOX_filler.>" ] }
      } }`

// Fill fills the store of all servers with a stream of its own, until one refuses a publish for want of room: a server takes
// what makes it exceed its limit, and nothing more in any stream. In a cluster, a leader that refuses also steps down, so that
// most publishes meet no leader at all from then on. Empty gives the room back.
func (n *NATS) Fill(ctx context.Context) error {
	return wrap("filling the store", n.asFiller(func(js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name: fillerStream, Subjects: []string{natsFiller}, Storage: jetstream.FileStorage, Replicas: len(n.Nodes),
		})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		for err = nil; err == nil; {
			err = n.publishFiller(ctx, js, fillerBytes)
		}
		if !full(err) {
			return err
		}
		return nil
	}))
}

func (n *NATS) publishFiller(ctx context.Context, js jetstream.JetStream, size int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := js.Publish(ctx, natsFiller, make([]byte, size))
	return err
}

// full recognises the refusals of a server whose store is full.
func full(err error) bool {
	var refused *jetstream.APIError
	if !errors.As(err, &refused) {
		return false
	}
	const insufficientResources, accountExceeded, storageExceeded = 10023, 10002, 10047
	switch refused.ErrorCode {
	case insufficientResources, accountExceeded, storageExceeded:
		return true
	default:
		return false
	}
}

// Empty takes away what Fill has put there; nothing, if there is nothing.
func (n *NATS) Empty(ctx context.Context) error {
	return wrap("emptying the store", n.asFiller(func(js jetstream.JetStream) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := js.DeleteStream(ctx, fillerStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		return nil
	}))
}

func (n *NATS) asFiller(do func(jetstream.JetStream) error) error {
	if !n.options.Filler {
		return errors.New("these servers know no such user")
	}
	conn, err := n.connectAs(natsFiller, n.URL())
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("asking JetStream: %w", err)
	}
	return do(js)
}

// connectAs connects a user to servers without proxies.
func (n *NATS) connectAs(user, address string) (*nats.Conn, error) {
	options := []nats.Option{
		nats.UserInfo(user, n.passwords[user]), nats.CustomInboxPrefix("_INBOX_" + user),
		nats.MaxReconnects(-1), nats.ReconnectWait(pollInterval), nats.Timeout(5 * time.Second),
	}
	if t := n.tls(); t != nil {
		options = append(options, nats.Secure(t))
	}
	conn, err := nats.Connect(address, options...)
	return conn, wrap("connecting to NATS", err)
}

// mount puts the stores on volumes of their own. Where nothing can be mounted there are none.
func (n *NATS) mount(ctx context.Context) error {
	if n.options.Volume == 0 {
		return nil
	}
	for i := range n.options.Nodes {
		v, err := MountVolume(ctx, filepath.Join(n.options.Dir, nodeName(i)), n.options.Volume)
		if err != nil && i == 0 {
			return nil // the caller asks for the volumes
		}
		if err != nil {
			return err
		}
		n.volumes = append(n.volumes, v)
	}
	return nil
}

// Volumes are those that the nodes' stores are on, in the order of the nodes; none if there are no volumes.
func (n *NATS) Volumes() []*Volume { return n.volumes }
