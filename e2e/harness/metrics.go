package harness

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Metrics are the samples of one program, by their full names with labels.
type Metrics map[string]float64

// Sum adds all samples of a name whose labels contain each of the given texts, such as `lane="live"`.
func (m Metrics) Sum(name string, labels ...string) float64 {
	sum := 0.0
next:
	for sample, value := range m {
		base, rest, _ := strings.Cut(sample, "{")
		if base != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue next
			}
		}
		sum += value
	}
	return sum
}

// Metrics reads the metrics of a program.
func (s *System) Metrics(ctx context.Context, p *Program) (Metrics, error) {
	status, body, err := s.get(ctx, "http://"+p.Ops+"/metrics", "")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("reading the metrics of %s: the answer is %d", p.Name, status)
	}
	m := make(Metrics)
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("reading the metrics of %s: line %.100q: %w", p.Name, line, err)
		}
		m[line[:at]] = value
	}
	return m, nil
}

// InFlight is how many requests a signer has in work.
func (m Metrics) InFlight() float64 { return m.Sum("harborseal_queue_in_flight") }

// Redeliveries is how many requests a signer was given that somebody had been given before.
func (m Metrics) Redeliveries() float64 { return m.Sum("harborseal_queue_redeliveries_total") }

// get reads an address.
func (s *System) get(ctx context.Context, address, token string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, nil, fmt.Errorf("asking a program: %w", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("asking a program: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("asking a program: %w", err)
	}
	return resp.StatusCode, body, nil
}

// Usage is what a process has used so far.
type Usage struct {
	// CPU is user and system time.
	CPU time.Duration
	// RSS is the memory that is resident now, in bytes.
	RSS int64
}

// Usage reads /proc, and so works on Linux alone.
func (p *Process) Usage() (Usage, error) {
	// SPEC: proc(5): the fields after the command's name, which ends with the last parenthesis; CPU times in ticks of 1/100 s.
	const tick = 10 * time.Millisecond
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		return Usage{}, fmt.Errorf("reading the usage of %s: %w", p.name, err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	const user, system, rss = 11, 12, 21
	if len(fields) <= rss {
		return Usage{}, fmt.Errorf("reading the usage of %s: %d fields", p.name, len(fields))
	}
	var numbers [3]int64
	for i, at := range []int{user, system, rss} {
		if numbers[i], err = strconv.ParseInt(fields[at], 10, 64); err != nil {
			return Usage{}, fmt.Errorf("reading the usage of %s: %w", p.name, err)
		}
	}
	return Usage{CPU: time.Duration(numbers[0]+numbers[1]) * tick, RSS: numbers[2] * int64(os.Getpagesize())}, nil
}

// Ready asks a program whether it is ready. An error means that it does not answer.
func (s *System) Ready(ctx context.Context, p *Program) (bool, error) {
	status, _, err := s.get(ctx, "http://"+p.Ops+"/readyz", "")
	return status == http.StatusOK, err
}
