package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// RebuildTopic is where a command asks the receiver to rebuild its view, and how far it is.
const RebuildTopic = "rebuild"

// rebuildQuestion is what it asks. Instance keeps several receivers apart: a rebuild is asked of whoever answers, and its status of
// the same one.
type rebuildQuestion struct {
	Start bool `json:"start"`
	// Instance is who has to answer; empty for anybody.
	Instance string `json:"instance,omitempty"`
}

// rebuildAnswer is what the receiver says.
type rebuildAnswer struct {
	Instance string               `json:"instance"`
	Status   ledger.RebuildStatus `json:"status"`
	// Refused says why nothing was begun; empty if it was.
	Refused string `json:"refused,omitempty"`
}

func (a *App) answerRebuild(_ context.Context, question []byte) ([]byte, error) {
	var q rebuildQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("reading the question: %w", err))
	}
	answer := rebuildAnswer{Instance: a.instance, Status: a.rebuilder.Status()}
	if q.Start && (q.Instance == "" || q.Instance == a.instance) {
		status, err := a.rebuilder.Start()
		answer.Status = status
		if err != nil {
			answer.Refused = err.Error()
		}
	}
	return json.Marshal(answer)
}

const (
	rebuildPoll = time.Second
	// rebuildSilence is how long the receiver that rebuilds may not answer: several may share the questions, and only it knows.
	rebuildSilence = 30 * time.Second
)

// RebuildOptions are those of the command ledger rebuild.
type RebuildOptions struct {
	User ToolUser
	// Progress is told how far it is; nil means nobody.
	Progress func(ledger.RebuildStatus)
}

// Rebuild has a running receiver rebuild its view, and waits until that has ended. The old view is served meanwhile. The end of ctx
// ends the waiting alone.
func Rebuild(ctx context.Context, cfg *config.Receiver, o RebuildOptions) (ledger.RebuildStatus, error) {
	client, closing, err := Tool(ctx, cfg, o.User, zerolog.Nop())
	if err != nil {
		return ledger.RebuildStatus{}, err
	}
	defer closing()
	ask := func(q rebuildQuestion) (rebuildAnswer, error) {
		question, err := json.Marshal(q)
		if err != nil {
			return rebuildAnswer{}, err
		}
		raw, err := client.Ask(ctx, RebuildTopic, question)
		if err != nil {
			return rebuildAnswer{}, fmt.Errorf("asking a receiver: %w", err)
		}
		var answer rebuildAnswer
		return answer, json.Unmarshal(raw, &answer)
	}
	begun, err := ask(rebuildQuestion{Start: true})
	if err != nil {
		return ledger.RebuildStatus{}, err
	}
	if begun.Refused != "" {
		return begun.Status, errors.New(begun.Refused)
	}
	return follow(ctx, begun, ask, o.Progress)
}

// follow asks until the rebuild has ended.
func follow(
	ctx context.Context, begun rebuildAnswer, ask func(rebuildQuestion) (rebuildAnswer, error), progress func(ledger.RebuildStatus),
) (ledger.RebuildStatus, error) {
	status, heard := begun.Status, time.Now()
	ticker := time.NewTicker(rebuildPoll)
	defer ticker.Stop()
	for {
		if progress != nil {
			progress(status)
		}
		switch {
		case status.State == ledger.RebuildFailed:
			return status, fmt.Errorf("the view was not rebuilt, and the old one is served as before: %s", status.Error)
		case status.State == ledger.RebuildDone:
			return status, nil
		case time.Since(heard) > rebuildSilence:
			return status, errors.New("the receiver that rebuilds has not answered for 30 s: its log says how it ends")
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("not waiting for the rebuild any more, which goes on: %w", ctx.Err())
		case <-ticker.C:
		}
		if answer, err := ask(rebuildQuestion{Instance: begun.Instance}); err == nil && answer.Instance == begun.Instance {
			status, heard = answer.Status, time.Now()
		}
	}
}
