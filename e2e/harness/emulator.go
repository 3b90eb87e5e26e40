package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Variables that aim the tests at a real Harbor.
const (
	EnvHarborURL      = "HARBOR_URL"
	EnvHarborUsername = "HARBOR_USERNAME"
	EnvHarborPassword = "HARBOR_PASSWORD"
	// EnvAdvertise is the origin by which that Harbor reaches the receiver, such as http://192.0.2.7:8080.
	EnvAdvertise = "RECEIVER_ADVERTISE"
)

const (
	startLimit = 30 * time.Second
	// emulatorPassword is the one that a fresh Harbor ships with.
	emulatorPassword = "Harbor12345"
)

// EmulatorOptions are how fast the emulator's webhooks are, and which version of Harbor it is, such as v2.11.2; see the
// emulator's flags. Without a version it is the newest one that it knows.
type EmulatorOptions struct {
	RetryScale, DeliveryDelayScale float64
	Version                        string
}

// StartEmulator starts the Harbor emulator as a process of its own.
func StartEmulator(ctx context.Context, p Programs, dir string, o EmulatorOptions) (*Harbor, *Process, error) {
	addresses, err := FreePorts(ctx, 1)
	if err != nil {
		return nil, nil, err
	}
	address := addresses[0]
	scale := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	args := []string{
		"-listen", address, "-admin-password", emulatorPassword,
		"-retry-scale", scale(o.RetryScale), "-delivery-delay-scale", scale(o.DeliveryDelayScale),
	}
	if o.Version != "" {
		args = append(args, "-version", o.Version)
	}
	process, err := Launch(ctx, Command{Name: "emulator", Path: p.Emulator, Log: filepath.Join(dir, "emulator.log"), Args: args})
	if err != nil {
		return nil, nil, err
	}
	h, err := NewHarbor("http://"+address, "admin", emulatorPassword, true)
	if err != nil {
		return nil, nil, errors.Join(err, process.Kill())
	}
	if err := Until(ctx, startLimit, alive(process, h.Ping)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("starting the emulator: %w\n%s", err, process.Tail()), process.Kill())
	}
	return h, process, nil
}

// RealHarbor gives the Harbor that the environment names, and nil if it names none.
func RealHarbor() (*Harbor, error) {
	origin := os.Getenv(EnvHarborURL)
	if origin == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	for _, variable := range []string{EnvHarborUsername, EnvHarborPassword, EnvAdvertise} {
		if os.Getenv(variable) == "" {
			return nil, fmt.Errorf("%s is set, so %s is needed too", EnvHarborURL, variable)
		}
	}
	return NewHarbor(origin, os.Getenv(EnvHarborUsername), os.Getenv(EnvHarborPassword), false)
}

// alive makes a condition fail when the process has ended, whoever else meets it then.
func alive(p *Process, condition func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := condition(ctx)
		if !p.Running() {
			return fmt.Errorf("%w: %s has ended (%s)", errHopeless, p.name, p.cmd.ProcessState)
		}
		return err
	}
}
