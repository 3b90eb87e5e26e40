package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Cut makes the links between two nodes, in both directions, refuse or swallow.
func (n *NATS) Cut(a, b *Node, flow Flow) { n.setLink(a, b, flow) }

// Isolate cuts a node off from all other nodes. Its clients still reach it.
func (n *NATS) Isolate(node *Node, flow Flow) {
	for _, other := range n.Nodes {
		if other != node {
			n.setLink(node, other, flow)
		}
	}
}

// Heal lets everything pass again, between the nodes and from the programs to them.
func (n *NATS) Heal() {
	for i, a := range n.Nodes {
		for _, b := range n.Nodes[:i] {
			n.setLink(a, b, Pass)
		}
	}
	n.mu.Lock()
	doors := slices.Clone(n.doors)
	n.mu.Unlock()
	for _, d := range doors {
		d.Set(Pass)
	}
}

// Reset breaks all connections between two nodes; they are made again at once.
func (n *NATS) Reset(a, b *Node) {
	for _, link := range n.between(a, b) {
		link.Reset()
	}
}

func (n *NATS) between(a, b *Node) []*TCPProxy {
	return []*TCPProxy{n.links[[2]*Node{a, b}], n.links[[2]*Node{b, a}]}
}

func (n *NATS) setLink(a, b *Node, flow Flow) {
	for _, link := range n.between(a, b) {
		link.Set(flow)
	}
}

// reached is how many other nodes run that a node is not cut off from.
func (n *NATS) reached(node *Node) int {
	count := 0
	for _, other := range n.Nodes {
		if other != node && other.Running() && n.links[[2]*Node{node, other}].Flow() == Pass {
			count++
		}
	}
	return count
}

// alone says whether a node reaches so few that it is of no majority.
func (n *NATS) alone(node *Node) bool { return 1+n.reached(node) <= len(n.Nodes)/2 }

// errNoLeader is passing: an election takes some seconds.
var errNoLeader = errors.New("no node leads the stream")

// Leader waits until a stream has a leader that runs and has a majority, and gives it.
func (n *NATS) Leader(ctx context.Context, stream string) (*Node, error) {
	var leader *Node
	err := Until(ctx, healthLimit, func(ctx context.Context) error {
		leader = nil
		missing := errNoLeader
		for _, node := range n.Nodes {
			// What a node says that is cut off may be of the past.
			if !node.Running() || n.alone(node) {
				continue
			}
			name, err := n.leaderBy(ctx, node, stream)
			if err != nil {
				missing = err
				continue
			}
			at := slices.IndexFunc(n.Nodes, func(o *Node) bool { return o.Name == name })
			if at >= 0 && n.Nodes[at].Running() && !n.alone(n.Nodes[at]) {
				leader = n.Nodes[at]
				return nil
			}
		}
		return missing
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the leader of %s: %w", stream, err)
	}
	return leader, nil
}

// leaderBy asks through one node who leads a stream.
func (n *NATS) leaderBy(ctx context.Context, node *Node, stream string) (string, error) {
	conn, err := n.Connect(node)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	msg, err := conn.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, nil)
	if err != nil {
		return "", fmt.Errorf("asking %s for %s: %w", node.Name, stream, err)
	}
	var info struct {
		Cluster struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &info); err != nil {
		return "", fmt.Errorf("asking %s for %s: %w", node.Name, stream, err)
	}
	if info.Error != nil {
		return "", fmt.Errorf("asking %s for %s: %s", node.Name, stream, info.Error.Description)
	}
	return info.Cluster.Leader, nil
}
