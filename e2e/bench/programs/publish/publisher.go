package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/e2e/bench/delivery/yardstick"
	"github.com/harborseal/harborseal/e2e/bench/quantile"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

const (
	harbor       = "default"
	startTimeout = 30 * time.Second
)

// webhook is what one webhook leads to.
type webhook struct {
	event, request *nats.Msg
}

// publisher is a server with the streams, and the messages that are to be published.
type publisher struct {
	server   *server.Server
	conn     *nats.Conn
	js       jetstream.JetStream
	webhooks []webhook
}

func newPublisher(ctx context.Context, o options) (p *publisher, err error) {
	if err := makeStreams(ctx, o.store); err != nil {
		return nil, fmt.Errorf("making the streams: %w", err)
	}
	p = &publisher{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for i := range o.webhooks {
		w, err := newWebhook(i)
		if err != nil {
			return nil, err
		}
		p.webhooks = append(p.webhooks, w)
	}
	p.server, err = server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: o.store, SyncAlways: true, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the server: %w", err)
	}
	p.server.Start()
	if !p.server.ReadyForConnections(startTimeout) {
		return nil, errors.New("starting the server: it is not ready")
	}
	if p.conn, err = nats.Connect("", nats.InProcessServer(p.server)); err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if p.js, err = jetstream.New(p.conn); err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return p, nil
}

func (p *publisher) close() {
	if p.conn != nil {
		p.conn.Close()
	}
	if p.server != nil {
		p.server.Shutdown()
		p.server.WaitForShutdown()
	}
}

// makeStreams lets the service itself make its streams, so that they are the same.
func makeStreams(ctx context.Context, store string) (err error) {
	s, err := queue.StartServer(ctx, queue.ServerConfig{StoreDir: store, Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Shutdown(context.WithoutCancel(ctx))) }()
	client, err := queue.Connect(ctx, queue.Config{Harbor: harbor, Server: s, Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Setup(ctx)
}

// newWebhook makes messages as the receiver does.
func newWebhook(i int) (w webhook, err error) {
	ref, err := artifact.NewRef("surge-0001/app-00001", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(strconv.Itoa(i)))))
	if err != nil {
		return w, err
	}
	now := time.Now().UTC()
	pushed := now.Truncate(time.Second)
	id := artifact.EventID(artifact.Received, ref, strconv.Itoa(i))
	event := artifact.Event{
		ID: id, Kind: artifact.Received, Ref: ref, Time: now, Actor: "admin", Origin: artifact.OriginWebhook, CorrelationID: id,
		Tag: "v1", Pusher: "admin", PushedAt: &pushed,
	}
	w.event = nats.NewMsg(queue.LedgerSubject(harbor, event))
	w.event.Header.Set(nats.MsgIdHdr, id)
	if w.event.Data, err = artifact.EncodeEvent(event); err != nil {
		return w, err
	}
	request := artifact.Request{
		Ref: ref, Lane: artifact.Bulk, Origin: artifact.OriginWebhook, Actor: "admin", CorrelationID: id, RequestedAt: now, ReceivedSeq: 1,
	}
	w.request = nats.NewMsg(queue.SignSubject(harbor, request.Lane, ref))
	w.request.Data, err = artifact.EncodeRequest(request)
	return w, err
}

func (p *publisher) publish(ctx context.Context, w webhook) error {
	for _, msg := range []*nats.Msg{w.event, w.request} {
		if _, err := p.js.PublishMsg(ctx, msg); err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
	}
	return nil
}

// loop publishes all webhooks, so many at once.
func (p *publisher) loop(ctx context.Context, inFlight int) (r yardstick.Loop, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	took := make([]time.Duration, len(p.webhooks))
	used, err := contender.CPUTime()
	if err != nil {
		return r, err
	}
	begun := time.Now()
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(p.webhooks) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				began := time.Now()
				if err := p.publish(ctx, p.webhooks[i]); err != nil {
					cancel(err)
				}
				took[i] = time.Since(began)
			}
		})
	}
	workers.Wait()
	r = yardstick.Loop{Webhooks: len(p.webhooks), InFlight: inFlight, Took: time.Since(begun)}
	if err := context.Cause(ctx); err != nil {
		return r, err
	}
	after, err := contender.CPUTime()
	r.CPU, r.Latency = after-used, quantile.Of(took)
	return r, err
}

// serve publishes for each request until ctx ends.
func (p *publisher) serve(ctx context.Context, stdout io.Writer) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	var next atomic.Int64
	handler := func(w http.ResponseWriter, r *http.Request) {
		i := int(next.Add(1)) - 1
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil || i >= len(p.webhooks) || p.publish(r.Context(), p.webhooks[i]) != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}
	s := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: startTimeout}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := json.NewEncoder(stdout).Encode(yardstick.Address{URL: "http://" + listener.Addr().String()}); err != nil {
		return fmt.Errorf("announcing the address: %w", err)
	}
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
