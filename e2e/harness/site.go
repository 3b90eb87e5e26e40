package harness

import (
	"context"
	"errors"
)

// Site is what one system needs in Harbor: projects, robots for the signer and for the receiver with the least rights, a robot
// for those who push, and webhook policies. Remove takes all of it away again. It is for one goroutine.
type Site struct {
	Harbor *Harbor
	// Signer is the account of the signers, Receiver that of the receiver, Developer that of whoever pushes.
	Signer, Receiver, Developer Robot
	projects                    []string
}

// NewSite makes private projects and three robots for them; without projects, robots for all that will come.
func NewSite(ctx context.Context, h *Harbor, projects ...string) (*Site, error) {
	s := &Site{Harbor: h}
	if err := s.prepare(ctx, projects); err != nil {
		return nil, errors.Join(err, s.Remove(ctx))
	}
	return s, nil
}

func (s *Site) prepare(ctx context.Context, projects []string) error {
	for _, project := range projects {
		if err := s.AddProject(ctx, project); err != nil {
			return err
		}
	}
	var err error
	if s.Signer, err = s.Harbor.CreateRobot(ctx, Random("harborseal-"), SignerRights(), projects...); err != nil {
		return err
	}
	if s.Receiver, err = s.Harbor.CreateRobot(ctx, Random("receiver-"), ReceiverRights(), projects...); err != nil {
		return err
	}
	s.Developer, err = s.Harbor.CreateRobot(ctx, Random("developer-"), DeveloperRights(), projects...)
	return err
}

// AddProject makes a private project.
func (s *Site) AddProject(ctx context.Context, name string) error {
	if err := s.Harbor.CreateProject(ctx, name); err != nil {
		return err
	}
	s.projects = append(s.projects, name)
	return nil
}

// Remove deletes what NewSite made, with everything that was pushed since. The webhook policies go with their projects.
func (s *Site) Remove(ctx context.Context) error {
	var errs []error
	for _, project := range s.projects {
		errs = append(errs, s.Harbor.DeleteProject(ctx, project))
	}
	for _, robot := range []Robot{s.Signer, s.Receiver, s.Developer} {
		if robot.ID != 0 {
			errs = append(errs, s.Harbor.DeleteRobot(ctx, robot.ID))
		}
	}
	return errors.Join(errs...)
}
