package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// healthLimit is how long elections and catching up may take on a busy machine.
const healthLimit = 90 * time.Second

// AwaitHealthy waits until nodes, all if none is named, say that they are: JetStream has a leader, and all streams and consumers
// of the node are up to date.
func (n *NATS) AwaitHealthy(ctx context.Context, nodes ...*Node) error {
	if len(nodes) == 0 {
		nodes = n.Nodes
	}
	for _, node := range nodes {
		err := Until(ctx, healthLimit, alive(node.Process(), func(ctx context.Context) error { return n.healthy(ctx, node) }))
		if err != nil {
			return fmt.Errorf("waiting for %s: %w\n%s", node.Name, err, node.Process().Tail())
		}
	}
	return Until(ctx, healthLimit, n.acquainted)
}

// acquainted says whether the leader of JetStream has heard of all nodes that it reaches: on others it places nothing.
func (n *NATS) acquainted(ctx context.Context) error {
	if len(n.Nodes) == 1 {
		return nil
	}
	missing := errors.New("no node leads JetStream")
	for _, node := range n.Nodes {
		if !node.Running() || n.alone(node) {
			continue
		}
		var info struct {
			Meta struct {
				Leader   string `json:"leader"`
				Replicas []struct {
					Offline bool `json:"offline"`
				} `json:"replicas"`
			} `json:"meta_cluster"`
		}
		if err := n.monitor(ctx, node, "/jsz", &info); err != nil {
			missing = err
			continue
		}
		if info.Meta.Leader != node.Name {
			continue
		}
		known := 0
		for _, replica := range info.Meta.Replicas {
			if !replica.Offline {
				known++
			}
		}
		if want := n.reached(node); known < want {
			return fmt.Errorf("%s leads JetStream and knows %d others, want %d", node.Name, known, want)
		}
		return nil
	}
	return missing
}

// routesPerNode is how many connections two nodes have in the end: the pool of three that is the default, and one for the system's
// account. At first both dial, and close some again, with what was on its way there.
const routesPerNode = 4

func (n *NATS) healthy(ctx context.Context, node *Node) error {
	if err := n.monitor(ctx, node, "/healthz", nil); err != nil {
		return err
	}
	var routes struct {
		Count int `json:"num_routes"`
	}
	if err := n.monitor(ctx, node, "/routez", &routes); err != nil {
		return err
	}
	if want := routesPerNode * n.reached(node); routes.Count < want {
		return fmt.Errorf("%s has %d connections to others, want %d", node.Name, routes.Count, want)
	}
	return nil
}

// monitor asks a node about itself.
func (n *NATS) monitor(ctx context.Context, node *Node, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+node.Monitor+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("asking %s: %w", node.Name, err)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", node.Name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s for %s: the answer is %d", node.Name, path, resp.StatusCode)
	}
	if out == nil {
		return nil
	}
	return wrap("asking "+node.Name, json.NewDecoder(resp.Body).Decode(out))
}
