package harness

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
)

// trillianSchema is of the version that make tools builds.
//
//go:embed schema/trillian-v1.7.3.sql
var trillianSchema string

// rekorMetrics is where Rekor v1 serves metrics on every interface, with no flag against it. It goes on without them if
// something is there already.
const rekorMetrics = "127.0.0.1:2112"

// StartRekorV1 starts a log of Rekor v1 with Trillian on a PostgreSQL server of its own. It takes some seconds, most of
// them PostgreSQL's.
func StartRekorV1(ctx context.Context, dir string) (_ *Rekor, err error) {
	paths := make([]string, 3)
	for i, variable := range []string{EnvRekor, EnvTrillianLog, EnvTrillianSeq} {
		if paths[i], err = program(variable); err != nil {
			return nil, err
		}
	}
	private, public, err := writeLogKey(dir, "rekor-v1")
	if err != nil {
		return nil, err
	}
	addresses, err := FreePorts(ctx, 3)
	if err != nil {
		return nil, err
	}
	r := &Rekor{Type: "rekor-v1", Address: addresses[0], URL: "http://" + addresses[0], PublicKey: public}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.startTrillian(ctx, dir, paths[1], paths[2], addresses[1:]); err != nil {
		return nil, err
	}
	// Whoever has the port keeps Rekor from it: this program, or another.
	var lc net.ListenConfig
	if blocker, err := lc.Listen(ctx, "tcp", rekorMetrics); err == nil {
		r.others = append(r.others, blocker.Close)
	}
	// It makes its tree in Trillian when it is first asked for none: a restarted one makes another, so the number is kept.
	r.server = Command{
		Name: "Rekor v1", Path: paths[0], Log: filepath.Join(dir, "rekor-v1.log"), Env: []string{"HOME=" + dir},
		Args: []string{
			"serve", "--rekor_server.address", "127.0.0.1", "--port", portOf(addresses[0]), "--rekor_server.hostname", "127.0.0.1",
			"--rekor_server.signer", private, "--enable_retrieve_api=false", "--log_type", "prod",
			"--trillian_log_server.address", "127.0.0.1", "--trillian_log_server.port", portOf(addresses[1]),
		},
	}
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	tree, err := treeOf(ctx, r.URL)
	if err != nil {
		return nil, err
	}
	r.server.Args = append(r.server.Args, "--trillian_log_server.tlog_id", tree)
	return r, nil
}

// startTrillian starts PostgreSQL and the two programs of Trillian: one takes entries, the other puts them into the tree.
func (r *Rekor) startTrillian(ctx context.Context, dir, logServer, sequencer string, addresses []string) error {
	database, err := StartPostgres(ctx, filepath.Join(dir, "postgres.log"))
	if err != nil {
		return err
	}
	r.others = append(r.others, database.Close)
	if err := database.Create(ctx, "trillian", trillianSchema); err != nil {
		return err
	}
	storage := []string{
		"--storage_system=postgresql", "--quota_system=noop", "--postgresql_uri=" + database.URL("trillian"), "--http_endpoint=",
	}
	for i, c := range []Command{
		{Name: "Trillian's log server", Path: logServer, Log: filepath.Join(dir, "trillian-log.log")},
		{
			Name: "Trillian's sequencer", Path: sequencer, Log: filepath.Join(dir, "trillian-sequencer.log"),
			Args: []string{"--force_master", "--sequencer_interval=100ms"},
		},
	} {
		c.Args = append(append(c.Args, "--rpc_endpoint="+addresses[i]), storage...)
		process, err := Launch(ctx, c)
		if err != nil {
			return err
		}
		r.others = append(r.others, process.Kill)
		if err := process.answers(ctx, func(ctx context.Context) error { return listens(ctx, addresses[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// listens says whether somebody takes connections at an address.
func listens(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("waiting for Trillian: %w", err)
	}
	return wrap("waiting for Trillian", conn.Close())
}

// treeOf gives the number of the log's tree.
func treeOf(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/log", nil)
	if err != nil {
		return "", fmt.Errorf("asking for the tree: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: startLimit}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking for the tree: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var info struct {
		TreeID string `json:"treeID"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil || info.TreeID == "" {
		return "", fmt.Errorf("asking for the tree: status %d: %w", resp.StatusCode, err)
	}
	return info.TreeID, nil
}
