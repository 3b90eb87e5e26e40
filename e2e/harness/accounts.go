package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// Roles of Harbor's project members.
const (
	RoleProjectAdmin = 1
	RoleDeveloper    = 2
	RoleLimitedGuest = 5
)

// User is a person's account in Harbor.
type User struct {
	ID             int
	Name, Password string
}

// Credentials are what the person brings to the receiver's API.
func (u User) Credentials() Credentials { return Credentials{Name: u.Name, Secret: u.Password} }

// Credentials are what the robot brings to the receiver's API.
func (r Robot) Credentials() Credentials { return Credentials{Name: r.Name, Secret: r.Secret} }

// CreateUser makes the account of a person who is a member of nothing.
func (h *Harbor) CreateUser(ctx context.Context, name string) (User, error) {
	u := User{Name: name, Password: "Aa1-" + rand.Text()} // Harbor wants a capital, a small letter and a digit
	body := map[string]string{"username": name, "email": name + "@example.com", "realname": name, "password": u.Password}
	header, err := h.call(ctx, http.MethodPost, api+"/users", http.StatusCreated, body, nil)
	if err != nil {
		return User{}, err
	}
	if u.ID, err = strconv.Atoi(path.Base(header.Get("Location"))); err != nil {
		return User{}, fmt.Errorf("asking Harbor: where a new user is: %w", err)
	}
	return u, nil
}

// DeleteUser deletes a person's account.
func (h *Harbor) DeleteUser(ctx context.Context, id int) error {
	_, err := h.call(ctx, http.MethodDelete, api+"/users/"+strconv.Itoa(id), http.StatusOK, nil, nil)
	return err
}

// AddMember gives a person a role in a project.
func (h *Harbor) AddMember(ctx context.Context, project string, u User, role int) error {
	body := map[string]any{"role_id": role, "member_user": map[string]string{"username": u.Name}}
	_, err := h.call(ctx, http.MethodPost, api+"/projects/"+project+"/members", http.StatusCreated, body, nil)
	return err
}

// WebhookPolicy is a webhook policy as Harbor shows it to the project's admins.
type WebhookPolicy struct {
	ID      int      `json:"id"`
	Name    string   `json:"name"`
	Enabled bool     `json:"enabled"`
	Events  []string `json:"event_types"`
	Targets []struct {
		Address    string `json:"address"`
		AuthHeader string `json:"auth_header"`
	} `json:"targets"`
}

// Webhooks lists a project's webhook policies.
func (h *Harbor) Webhooks(ctx context.Context, project string) ([]WebhookPolicy, error) {
	var all []WebhookPolicy
	_, err := h.call(ctx, http.MethodGet, api+"/projects/"+project+"/webhook/policies?page_size=100", http.StatusOK, nil, &all)
	return all, err
}

// PushedAt says when Harbor got a manifest, by its own clock.
func (h *Harbor) PushedAt(ctx context.Context, p Pushed) (time.Time, error) {
	var artifact struct {
		PushedAt time.Time `json:"push_time"`
	}
	project, repository, _ := strings.Cut(p.Repository, "/")
	address := api + "/projects/" + project + "/repositories/" + escapeRepository(repository) + "/artifacts/" + p.Digest
	if _, err := h.call(ctx, http.MethodGet, address, http.StatusOK, nil, &artifact); err != nil {
		return time.Time{}, err
	}
	if artifact.PushedAt.IsZero() {
		return time.Time{}, errors.New("asking Harbor: an artifact has no push time")
	}
	return artifact.PushedAt, nil
}

// Now is Harbor's clock, in whole seconds.
func (h *Harbor) Now(ctx context.Context) (time.Time, error) {
	header, err := h.call(ctx, http.MethodGet, api+"/ping", http.StatusOK, nil, nil)
	if err != nil {
		return time.Time{}, err
	}
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("asking Harbor for the time: %w", err)
	}
	return now, nil
}
