package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	agentapi "github.com/walkeep/walkeep/agent/api"
	"github.com/walkeep/walkeep/cluster"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/scheduler"
)

const (
	// backupLease is what package backup holds while it adds a backup.
	backupLease = "backup"
	// startTime is how long an agent is tried that was up a moment ago.
	startTime = 30 * time.Second
	// silence is how long an agent may not answer before its run is given up.
	silence = 15 * time.Minute
	// busyPause is before the next look at a backup that stands in the way; it
	// grows, up to a minute.
	busyPause = 2 * time.Second
	// endTime bounds the end of a run that is cancelled.
	endTime = 2 * time.Minute
)

// backup takes one, where it is best taken.
func (r *repository) backup(ctx context.Context, run repo.JobRun) (scheduler.Outcome, error) {
	p, done := r.s.progressOf(run.ID)
	defer done()
	p.Stage("choosing a node")
	for try := 1; ; try++ {
		at, err := r.chooseNode(ctx)
		if err != nil {
			return scheduler.Outcome{}, err
		}
		n := at.node
		p.on(n.Name)
		req := agentapi.BackupRequest{Repos: []string{r.name}, Type: run.Kind, Annotations: maps.Clone(run.Annotations)}
		if req.Annotations == nil {
			req.Annotations = map[string]string{}
		}
		req.Annotations[RunAnnotation] = run.ID
		r.s.log.Info("backup", zap.String("run", run.ID), zap.String("repo", r.name), zap.String("type", run.Kind),
			zap.String("node", n.Name), zap.Bool("by_agent", at.here == nil), zap.Bool("over_sql", at.overSQL))
		var out scheduler.Outcome
		if at.here != nil {
			out, err = r.takeHere(ctx, req, n.Name, at.here, p)
		} else {
			out, err = r.takeThere(ctx, run.ID, try, req, n.Name, at.agent, p)
		}
		if err != nil && at.overSQL && errors.Is(err, server.ErrPrivileges) {
			err = fmt.Errorf("%w\nit was to be read over SQL because of: %w", err, at.because)
		}
		if !errors.Is(err, repo.ErrBusy) && !errors.Is(err, agentapi.ErrBusy) {
			return out, err
		}
		// A backup that somebody takes by hand, or that a leader before us
		// began: it is not doubled but waited for.
		p.Stage("waiting for another backup of the repository")
		r.s.log.Info("another backup is under way", zap.String("run", run.ID), zap.Error(err))
		if pause(ctx, min(time.Duration(try)*busyPause, time.Minute)); ctx.Err() != nil {
			return scheduler.Outcome{}, context.Cause(ctx)
		}
	}
}

// place is where a backup is taken: by the agent of a node, or else in this
// process.
type place struct {
	node    cluster.NodeState
	agent   agentState
	here    agentapi.Backup
	overSQL bool
	because error // why it is read over SQL
}

// chooseNode asks the nodes anew and chooses one: of those that have an agent, or
// their data directory here; without any, of those that answer, to be read over
// SQL.
func (r *repository) chooseNode(ctx context.Context) (place, error) {
	r.s.refresh(ctx)
	state, agents := r.s.nodes()
	return chooseNode(ctx, r.s.settings(), state, agents, r.conf().Work)
}

func chooseNode(ctx context.Context, set Settings, state cluster.State, agents map[string]agentState, work *repo.Repository) (place, error) {
	here, _ := set.LocalStatus()
	local := map[string]agentapi.Backup{}
	n, err := state.Choose(set.From, func(n cluster.NodeState) error {
		a := agents[n.Name]
		if set.OnlySQL {
			return errOnlySQL
		}
		if a.up() && n.Name != here { // it goes on when we end
			return nil
		}
		if take := set.Local(ctx, n, work); take != nil {
			local[n.Name] = take
			return nil
		}
		if a.url != "" {
			return fmt.Errorf("its agent: %w", a.err)
		}
		return errNotHere
	})
	if err == nil {
		return place{node: n, agent: agents[n.Name], here: local[n.Name]}, nil
	}
	if set.OverSQL == nil || ctx.Err() != nil {
		return place{node: n}, err
	}
	n, sqlErr := state.Choose(set.From, func(cluster.NodeState) error { return nil })
	if sqlErr != nil {
		return place{node: n}, err
	}
	return place{node: n, here: set.OverSQL(n, work), overSQL: true, because: err}, nil
}

// refresh has the nodes asked now, and waits for it, bounded.
func (s *Service) refresh(ctx context.Context) {
	began := s.o.Clock()
	kick(s.probes)
	for range 200 {
		s.mu.Lock()
		at := s.probedAt
		s.mu.Unlock()
		if at.After(began) || ctx.Err() != nil {
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// takeHere takes a backup in this process.
func (r *repository) takeHere(ctx context.Context, req agentapi.BackupRequest, node string, take agentapi.Backup, p *progress) (scheduler.Outcome, error) {
	result, err := take(ctx, req, p)
	b, jsonErr := json.Marshal(result)
	if jsonErr != nil {
		return scheduler.Outcome{}, errors.Join(err, jsonErr)
	}
	return outcomeOf(b, node, err)
}

// outcomeOf reads the result of a backup. That there was nothing new to back up
// is no failure.
func outcomeOf(b []byte, node string, err error) (scheduler.Outcome, error) {
	var result agentapi.BackupResult
	if len(b) > 0 {
		if jsonErr := json.Unmarshal(b, &result); jsonErr != nil {
			return scheduler.Outcome{}, errors.Join(err, fmt.Errorf("read the result of a backup: %w", jsonErr))
		}
	}
	out := scheduler.Outcome{Node: node}
	switch {
	case err == nil:
		out.Label = result.Label
	case result.NothingNew:
		err = nil
	}
	return out, err
}

// takeThere has an agent take a backup, and follows it.
func (r *repository) takeThere(ctx context.Context, id string, try int, req agentapi.BackupRequest, node string, a agentState, p *progress) (scheduler.Outcome, error) {
	// Should the connection be lost before the answer comes, then the key
	// brings us the run that was begun.
	var begun agentapi.Run
	err := r.retry(ctx, startTime, func(ctx context.Context) (err error) {
		begun, err = a.client.StartBackup(ctx, req, fmt.Sprintf("%s-%d", id, try))
		return err
	})
	if err != nil {
		return scheduler.Outcome{}, fmt.Errorf("start a backup at %s: %w", node, r.stopped(ctx, err))
	}
	return r.follow(ctx, id, begun.ID, node, a.client, p)
}

// stopped is err, or that the run is left to others if we are being stopped.
func (r *repository) stopped(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), ErrStopping) {
		return scheduler.ErrHandedOver
	}
	return err
}

// retry repeats what fails for want of a connection.
func (r *repository) retry(ctx context.Context, total time.Duration, do func(context.Context) error) error {
	giveUp := time.Now().Add(total)
	for {
		err := do(ctx)
		var said *agentapi.Problem // it answered
		if err == nil || errors.As(err, &said) && said.Status < 500 || ctx.Err() != nil || time.Now().After(giveUp) {
			return err
		}
		r.s.log.Info("an agent does not answer", zap.String("repo", r.name), zap.Error(err))
		pause(ctx, time.Second)
	}
}

// follow follows a run of an agent to its end, over lost connections.
func (r *repository) follow(ctx context.Context, id, agentRun, node string, c *agentapi.Client, p *progress) (scheduler.Outcome, error) {
	var ended agentapi.Run
	err := r.retry(ctx, silence, func(ctx context.Context) (err error) {
		ended, err = c.Follow(ctx, agentRun, p.of)
		return err
	})
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), scheduler.ErrCancelled):
		return r.cancelThere(ctx, id, agentRun, node, c)
	case ctx.Err() != nil:
		return scheduler.Outcome{}, scheduler.ErrHandedOver
	case errors.Is(err, agentapi.ErrNotFound):
		// It was restarted. Did it finish before?
		return r.finished(ctx, id, node, errors.New("the agent was restarted during the backup"))
	case err != nil:
		return r.finished(ctx, id, node, fmt.Errorf("the agent does not answer: %w", err))
	}
	return r.endedThere(ended, node)
}

func (r *repository) endedThere(ended agentapi.Run, node string) (scheduler.Outcome, error) {
	var err error
	if ended.State != agentapi.Done {
		err = errors.New(ended.Error)
		if ended.State == agentapi.Cancelled && ended.Error == "" {
			err = scheduler.ErrCancelled
		}
		err = kindOf(ended, err)
	}
	return outcomeOf(ended.Result, node, err)
}

// kindOf tells of an agent's failure what errors.Is would have told there.
func kindOf(ended agentapi.Run, err error) error {
	var result agentapi.BackupResult
	if json.Unmarshal(ended.Result, &result) != nil {
		return err // there is no result
	}
	if result.Busy {
		err = fmt.Errorf("%w: %w", repo.ErrBusy, err)
	}
	if result.Damaged {
		err = damage(err.Error())
	}
	return err
}

// damage is an error of elsewhere that was a repo.ErrIntegrity there.
type damage string

func (d damage) Error() string        { return string(d) }
func (d damage) Is(target error) bool { return target == repo.ErrIntegrity }

// cancelThere ends a run of an agent, and waits for its end.
func (r *repository) cancelThere(ctx context.Context, id, agentRun, node string, c *agentapi.Client) (scheduler.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if err := r.retry(ctx, endTime, func(ctx context.Context) error { return c.Cancel(ctx, agentRun) }); err != nil {
		return scheduler.Outcome{}, fmt.Errorf("cancel the backup at %s: %w", node, err)
	}
	ended, err := c.Follow(ctx, agentRun, nil)
	if err != nil {
		return r.finished(ctx, id, node, scheduler.ErrCancelled)
	}
	return r.endedThere(ended, node)
}

// finished looks for a backup that a run took, whoever has forgotten it; without
// one it is the error.
func (r *repository) finished(ctx context.Context, id, node string, err error) (scheduler.Outcome, error) {
	label, found := r.labelOf(ctx, id)
	if found != nil {
		return scheduler.Outcome{}, errors.Join(err, found)
	}
	if label == "" {
		return scheduler.Outcome{}, err
	}
	return scheduler.Outcome{Label: label, Node: node}, nil
}

// labelOf is the backup that a run took; "" if there is none.
func (r *repository) labelOf(ctx context.Context, id string) (repo.Label, error) {
	w := r.conf().Watch
	epochs, err := w.Epochs(ctx)
	if err != nil {
		return "", err
	}
	for _, e := range epochs {
		all, err := w.Epoch(e.SystemID).Backups(ctx)
		if err != nil && !errors.Is(err, repo.ErrIntegrity) {
			return "", err
		}
		for _, b := range all {
			if b.Annotations[RunAnnotation] == id {
				return b.Label, nil
			}
		}
	}
	return "", nil
}
