package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/internal/traces"
)

// runs are the backups that were begun through this server.
type runs struct {
	ctx    context.Context // ends when the server does
	backup Backup
	log    *zap.Logger
	all    sync.WaitGroup

	mu   sync.Mutex // guards what follows, and the runs
	list []*running // oldest first
	keys map[string]*running
}

type running struct {
	runs    *runs
	run     Run
	key     string
	cancel  context.CancelCauseFunc
	changed chan struct{} // closed and replaced at each change
}

func newRuns(ctx context.Context, b Backup, log *zap.Logger) *runs {
	return &runs{ctx: ctx, backup: b, log: log, keys: map[string]*running{}}
}

var errCancelled = errors.New("cancelled on request")

// busyError: another run has one of the repositories.
type busyError struct{ repo, run string }

func (e *busyError) Error() string {
	return fmt.Sprintf("a backup into %s is running (%s)", e.repo, e.run)
}

// begin starts a run, or finds the one that the key began. again: it was there.
// of is the header of the request: the run is a part of its trace, and outlives it.
func (r *runs) begin(of http.Header, req BackupRequest, key string) (run Run, again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.keys[key]; key != "" && known != nil {
		return known.run, true, nil
	}
	for _, other := range r.list {
		for _, name := range req.Repos {
			if other.run.State == Running && slices.Contains(other.run.Request.Repos, name) {
				return Run{}, false, &busyError{name, other.run.ID}
			}
		}
	}
	ctx, cancel := context.WithCancelCause(traces.Extract(r.ctx, of))
	n := &running{
		runs: r, key: key, cancel: cancel, changed: make(chan struct{}),
		run: Run{ID: rand.Text(), Request: req, State: Running, Started: time.Now().UTC()},
	}
	r.list = append(r.list, n)
	if key != "" {
		r.keys[key] = n
	}
	r.forget()
	r.log.Info("backup requested", zap.String("run", n.run.ID), zap.Strings("repos", req.Repos), zap.String("type", req.Type))
	r.all.Go(func() { n.work(ctx) })
	return n.run, false, nil
}

// forget drops the oldest runs that ended. Caller holds mu.
func (r *runs) forget() {
	for i := 0; len(r.list) > maxRuns && i < len(r.list); {
		if old := r.list[i]; old.run.State != Running {
			delete(r.keys, old.key)
			r.list = slices.Delete(r.list, i, i+1)
			continue
		}
		i++
	}
}

// work takes the backup. Nobody waits for it but the server.
func (n *running) work(ctx context.Context) {
	defer n.cancel(nil)
	result, err := n.take(ctx)
	var b json.RawMessage
	if result != nil {
		b, _ = json.Marshal(result) // what cannot be shown is left out
	}
	n.update(func(run *Run) {
		now := time.Now().UTC()
		run.Ended, run.Result, run.State = &now, b, Done
		if err != nil {
			run.State, run.Error = Failed, err.Error()
			if ctx.Err() != nil {
				run.State = Cancelled
			}
		}
	})
	n.runs.log.Info("backup ended", zap.String("run", n.run.ID), zap.String("state", string(n.run.State)), zap.Error(err))
}

// take keeps a panic of a backup from ending the agent, which archives.
func (n *running) take(ctx context.Context) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("backup: panic: %v", p)
		}
	}()
	return n.runs.backup(ctx, n.run.Request, n)
}

func (n *running) update(change func(*Run)) {
	n.runs.mu.Lock()
	defer n.runs.mu.Unlock()
	change(&n.run)
	close(n.changed)
	n.changed = make(chan struct{})
}

// Stage, Total and Add make it a Progress.
func (n *running) Stage(what string) { n.update(func(r *Run) { r.Stage = what }) }
func (n *running) Total(bytes int64) { n.update(func(r *Run) { r.Total = bytes }) }

// Add wakes nobody: it comes often, and whoever watches looks again soon.
func (n *running) Add(bytes int64) {
	n.runs.mu.Lock()
	defer n.runs.mu.Unlock()
	n.run.Copied += bytes
}

func (n *running) now() (Run, <-chan struct{}) {
	n.runs.mu.Lock()
	defer n.runs.mu.Unlock()
	return n.run, n.changed
}

func (r *runs) find(id string) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.list {
		if n.run.ID == id {
			return n
		}
	}
	return nil
}

// wait waits for runs to end, bounded.
func (r *runs) wait(longest time.Duration) {
	done := make(chan struct{})
	go func() { r.all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(longest):
		r.log.Error("a backup does not end")
	}
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	if s.opts.Backup == nil {
		problem(w, http.StatusNotImplemented, "this agent takes no backups")
		return
	}
	req, err := decodeBackup(r)
	if err != nil {
		status := http.StatusBadRequest
		if errors.As(err, new(*http.MaxBytesError)) {
			status = http.StatusRequestEntityTooLarge
		}
		problem(w, status, err.Error())
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if len(key) > 200 {
		problem(w, http.StatusBadRequest, "an Idempotency-Key of more than 200 characters")
		return
	}
	run, again, err := s.runs.begin(r.Header, req, key)
	if busy := (*busyError)(nil); errors.As(err, &busy) {
		sendProblem(w, Problem{Status: http.StatusConflict, Detail: err.Error(), Run: busy.run})
		return
	}
	w.Header().Set("Location", "/v1/runs/"+run.ID)
	if again {
		reply(w, http.StatusOK, run)
		return
	}
	reply(w, http.StatusAccepted, run)
}

// decodeBackup reads a request strictly: a misspelled field must not become a
// backup of another kind than was meant.
func decodeBackup(r *http.Request) (BackupRequest, error) {
	var req BackupRequest
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return req, errors.New("the body must be application/json")
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, fmt.Errorf("read the request: %w", err)
	}
	if d.More() {
		return req, errors.New("read the request: there is more behind it")
	}
	if len(req.Repos) == 0 || len(req.Repos) > 4 {
		return req, errors.New("repos: one to four names")
	}
	for i, name := range req.Repos {
		if name == "" || slices.Contains(req.Repos[:i], name) {
			return req, errors.New("repos: a name is empty or there twice")
		}
	}
	if req.Type == "" {
		return req, errors.New("type: full, differential or incremental")
	}
	return req, nil
}

func (s *Server) listRuns(w http.ResponseWriter, _ *http.Request) {
	s.runs.mu.Lock()
	all := make([]Run, 0, len(s.runs.list))
	for _, n := range slices.Backward(s.runs.list) {
		all = append(all, n.run)
	}
	s.runs.mu.Unlock()
	reply(w, http.StatusOK, struct {
		Runs []Run `json:"runs"`
	}{all})
}

func (s *Server) wanted(w http.ResponseWriter, r *http.Request) *running {
	n := s.runs.find(r.PathValue("id"))
	if n == nil {
		problem(w, http.StatusNotFound, "this agent knows no such run; since its last start there was none")
	}
	return n
}

func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	if n := s.wanted(w, r); n != nil {
		run, _ := n.now()
		reply(w, http.StatusOK, run)
	}
}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) {
	if n := s.wanted(w, r); n != nil {
		n.cancel(errCancelled)
		run, _ := n.now()
		reply(w, http.StatusAccepted, run)
	}
}

// events sends the run whenever it changed, at most twice a second, and at
// least every 15 seconds, until it has ended.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	n := s.wanted(w, r)
	if n == nil {
		return
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		run, changed := n.now()
		b, err := json.Marshal(run)
		if err != nil {
			return
		}
		name := "progress"
		if run.State != Running {
			name = "end"
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, b); err != nil || rc.Flush() != nil || name == "end" {
			return
		}
		if !pause(r.Context(), nil, 500*time.Millisecond) || !pause(r.Context(), changed, 1500*time.Millisecond) {
			return
		}
	}
}

// pause waits for that long, or until sooner is closed. false: ctx has ended.
func pause(ctx context.Context, sooner <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-sooner:
	case <-t.C:
	}
	return true
}
