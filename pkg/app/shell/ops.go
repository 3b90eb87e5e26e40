package shell

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/lifecycle"
)

// NewOps makes the door for health and metrics and binds its listener.
func NewOps(listen string, registry *prometheus.Registry, logger zerolog.Logger, checks ...httpserver.Check) (*httpserver.Ops, *httpserver.Server, error) {
	health, err := httpserver.NewOps(httpserver.OpsConfig{Gatherer: registry, Logger: logger, Checks: checks})
	if err != nil {
		return nil, nil, err
	}
	engine, err := httpserver.NewEngine(logger, registry, nil)
	if err != nil {
		return nil, nil, err
	}
	health.Register(engine)
	server, err := httpserver.New(httpserver.Config{
		Name: "ops", Listen: listen, AllowPlainHTTP: true, Handler: engine, Logger: logger, Registerer: registry,
	})
	return health, server, err
}

// AddListener makes a server a part of a program: it is started and stopped with it, and ends it if it fails.
func AddListener(g *lifecycle.Group, name string, s *httpserver.Server) {
	g.Add(name, lifecycle.Component{Start: func(context.Context) error { s.Start(); return nil }, Stop: s.Stop})
	g.Go(name+" failure", s.Wait)
}
