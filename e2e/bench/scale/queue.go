package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/queue"
)

// requestStream holds what signers are asked to sign.
const requestStream = "SIGN"

// queueView proposes sweeps, and looks at what they have asked for. It connects as a signer does.
type queueView struct {
	*queue.Client
	nats *nats.Conn
	js   jetstream.JetStream
}

// openQueue connects anew: a connection ends with the receiver that it was made to.
func openQueue(ctx context.Context, s *harness.System) (*queueView, error) {
	const user = "signer"
	password, err := os.ReadFile(s.QueuePassword())
	if err != nil {
		return nil, fmt.Errorf("reading the queue's password: %w", err)
	}
	client, err := queue.Connect(ctx, queue.Config{
		URLs: []string{s.QueueURL()}, Username: user, PasswordFile: s.QueuePassword(), Name: "bench", Logger: zerolog.Nop(),
	})
	if err != nil {
		return nil, err
	}
	connection, err := nats.Connect(s.QueueURL(), nats.UserInfo(user, strings.TrimSpace(string(password))), nats.MaxReconnects(-1))
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("connecting to the queue: %w", err)
	}
	js, err := jetstream.New(connection)
	if err != nil {
		client.Close()
		connection.Close()
		return nil, fmt.Errorf("connecting to the queue: %w", err)
	}
	return &queueView{Client: client, nats: connection, js: js}, nil
}

func (q *queueView) close() {
	q.Close()
	q.nats.Close()
}

// pause lets sweeps look and ask while nothing is signed.
func (q *queueView) pause(ctx context.Context) error {
	return enroll.SetPause(ctx, q.Client, enroll.Actor{Name: "bench"}, "", true, "sweeps are measured")
}

// requested gives every manifest for which a request waits.
func (q *queueView) requested(ctx context.Context) (map[artifact.Ref]bool, error) {
	stream, err := q.js.Stream(ctx, requestStream)
	if err != nil {
		return nil, fmt.Errorf("looking at the requests: %w", err)
	}
	state := stream.CachedInfo().State
	refs := make(map[artifact.Ref]bool, state.Msgs)
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		msg, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking at request %d: %w", seq, err)
		}
		request, err := artifact.DecodeRequest(msg.Data)
		if err != nil {
			return nil, fmt.Errorf("looking at request %d: %w", seq, err)
		}
		refs[request.Ref] = true
	}
	return refs, nil
}
