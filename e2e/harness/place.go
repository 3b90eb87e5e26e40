package harness

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// place gives all programs their addresses.
func (s *System) place(ctx context.Context) error {
	o := s.options
	addresses, err := FreePorts(ctx, 2+2*o.Receivers+o.Signers)
	if err != nil {
		return err
	}
	next := func() string {
		address := addresses[0]
		addresses = addresses[1:]
		return address
	}
	s.nats, s.front = next(), next()
	for i := range o.Receivers {
		p := &Program{Name: "receiver", path: o.Programs.Receiver, Listen: next(), Ops: next()}
		if i > 0 {
			p.Name += strconv.Itoa(i + 1)
		}
		s.Receivers = append(s.Receivers, p)
	}
	s.Receiver = s.Receivers[0]
	for i := range o.Signers {
		s.Signers = append(s.Signers, &Program{Name: "signer" + strconv.Itoa(i+1), path: o.Programs.Signer, Ops: next()})
	}
	if o.Advertise != "" {
		if s.front, err = listenFor(o.Advertise); err != nil {
			return err
		}
	}
	if o.Receivers == 1 {
		if o.Advertise != "" {
			s.Receiver.Listen = s.front
		}
		s.front = ""
	}
	s.URL = "http://" + s.Receiver.Listen
	for _, p := range s.all() {
		if o.NATS != nil {
			if p.Door, err = o.NATS.Door(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// listenFor gives the address to listen on for whoever knows the receiver under an origin.
func listenFor(advertise string) (string, error) {
	u, err := url.Parse(advertise)
	if err != nil || u.Port() == "" {
		return "", fmt.Errorf("%s=%q: want an origin with a port, such as http://192.0.2.7:8080", EnvAdvertise, advertise)
	}
	if net.ParseIP(u.Hostname()) != nil {
		return u.Host, nil
	}
	return net.JoinHostPort("0.0.0.0", u.Port()), nil
}

// WebhookAddress is where Harbor reports the pushes of a project.
func (s *System) WebhookAddress(project string) string {
	return s.origin() + "/webhooks/harbor/" + project
}

// origin is how Harbor reaches the receivers.
func (s *System) origin() string {
	switch {
	case s.options.Advertise != "":
		return s.options.Advertise
	case s.front != "":
		return "http://" + s.front
	default:
		return s.URL
	}
}

// NextPort gives the origin whose port lies above that of another one.
func NextPort(origin string, above int) (string, error) {
	u, err := url.Parse(origin)
	if err != nil {
		return "", fmt.Errorf("%s=%q: %w", EnvAdvertise, origin, err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return "", fmt.Errorf("%s=%q: want an origin with a port: %w", EnvAdvertise, origin, err)
	}
	u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(port+above))
	return u.String(), nil
}
