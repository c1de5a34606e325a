// Package api is what the service shows of itself: REST under /v1, the web
// page, and metrics. It decides nothing and keeps nothing: it asks a [Service],
// whose state is a [Snapshot] that is made anew when something changes, so that
// no request waits for a repository or a server.
package api

import (
	"context"
	"errors"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Service is the service as the API sees it. All methods may be called from
// many goroutines.
type Service interface {
	// Snapshot is the newest state; never nil, never changed after it was
	// returned.
	Snapshot() *Snapshot
	// Changed is closed at the next change of the snapshot. Take it before the
	// snapshot, so that nothing is missed.
	Changed() <-chan struct{}
	// Backup starts a backup, or returns the run that was started with the same
	// idempotency key. ErrBusy, ErrPaused, ErrNotLeader, ErrInvalid.
	Backup(ctx context.Context, r BackupRequest) (Run, error)
	// Expire plans what a repository does not keep, and starts its removal
	// unless it is a dry run.
	Expire(ctx context.Context, r ExpireRequest) (Expiry, error)
	// Verify starts a verification.
	Verify(ctx context.Context, repo string) (Run, error)
	// Repair starts the repair of gaps.
	Repair(ctx context.Context, repo string) (Run, error)
	// Drill starts a rehearsal of a restore.
	Drill(ctx context.Context, repo string) (Run, error)
	// Run finds a run, running or of the history. ErrNotFound.
	Run(ctx context.Context, id string) (Run, error)
	// Cancel asks a running run to end. ErrNotFound, ErrNotRunning.
	Cancel(ctx context.Context, id string) (Run, error)
	// Pause keeps scheduled runs of a repository ("" for all) from starting, or
	// lets them start again. It outlives the process: it is kept in the
	// repositories.
	Pause(ctx context.Context, repo string, paused bool) error
	// Contents reads what a backup holds. ErrNotFound, repo.ErrIntegrity.
	Contents(ctx context.Context, repo string, label repo.Label) (BackupContents, error)
	// CanRestore answers from which backups of which repositories a moment can
	// be restored, and if not, which moments near it can.
	CanRestore(ctx context.Context, r RestoreQuestion) (RestoreAnswer, error)
}

// What a Service answers; errors.Is tells.
var (
	ErrNotFound   = errors.New("not found")
	ErrNotRunning = errors.New("the run has ended")
	ErrBusy       = errors.New("another run of the repository is under way")
	ErrPaused     = errors.New("the repository is paused")
	ErrNotLeader  = errors.New("another service leads this cluster")
	ErrInvalid    = errors.New("invalid request")
)

// Level is how well something is.
type Level string

// The levels, from good to bad.
const (
	OK       Level = "ok"
	Warning  Level = "warning"
	Critical Level = "critical"
)

// Snapshot is all that the service knows at a moment.
type Snapshot struct {
	Cluster  string    `json:"cluster"`
	Version  string    `json:"version"`
	At       time.Time `json:"at"`
	TimeZone string    `json:"timezone"`
	// Leader says who leads; Leading whether this process does.
	Leader  string `json:"leader"`
	Leading bool   `json:"leading"`
	Level   Level  `json:"level"` // the worst of Problems
	// Problems are what a person should know, the worst first.
	Problems []Problem    `json:"problems"`
	SystemID *pg.SystemID `json:"system_identifier,omitempty"`
	Nodes    []Node       `json:"nodes"`
	Repos    []Repository `json:"repos"`
	// Runs are those under way and the last ones that ended, the newest first.
	Runs []Run `json:"runs"`
	// Next are the scheduled runs to come, the soonest first.
	Next []NextRun `json:"next"`
}

// Problem is one thing that is not well.
type Problem struct {
	Level Level `json:"level"`
	// Code is fixed, and the anchor of its chapter in docs/runbook.md: wal-gap,
	// repository-down, backup-old, backup-failed, wal-behind, wal-conflict,
	// history-conflict, node-down, no-primary, queue-dropped, verify-old,
	// verify-failed, drill-old, drill-failed, expire-failed, config-invalid,
	// no-leader.
	Code  string    `json:"code"`
	Repo  string    `json:"repo,omitempty"`
	Node  string    `json:"node,omitempty"`
	Text  string    `json:"text"` // one sentence for people
	Since time.Time `json:"since,omitzero"`
}

// Node is a server of the cluster.
type Node struct {
	Name     string      `json:"name"`
	Role     string      `json:"role"` // primary, standby, unknown
	Up       bool        `json:"up"`
	Error    string      `json:"error,omitempty"`
	Timeline pg.Timeline `json:"timeline,omitempty"`
	LSN      pg.LSN      `json:"lsn,omitempty"` // written (primary) or replayed (standby)
	Lag      int64       `json:"lag_bytes"`     // behind the primary; -1: unknown
	Version  string      `json:"postgres_version,omitempty"`
	// Agent is what the node's agent says; nil: none is configured.
	Agent *Agent `json:"agent,omitempty"`
}

// Agent is the agent beside a node.
type Agent struct {
	URL     string       `json:"url,omitempty"`
	Up      bool         `json:"up"`
	Error   string       `json:"error,omitempty"`
	Version string       `json:"version,omitempty"`
	Queues  []AgentQueue `json:"queues"`
}

// AgentQueue is what an agent has to do for one repository.
type AgentQueue struct {
	Repo         string `json:"repo"`
	Waiting      int    `json:"waiting"` // files
	WaitingBytes int64  `json:"waiting_bytes"`
	// Oldest is since when the oldest of them waits; zero: none waits.
	Oldest       time.Time `json:"oldest,omitzero"`
	Error        string    `json:"error,omitempty"` // of the last attempt
	Pushed       int64     `json:"pushed"`
	Deduplicated int64     `json:"deduplicated"`
	Repaired     int64     `json:"repaired"`
	Conflicting  int64     `json:"conflicting"`
	Dropped      int64     `json:"dropped"`
}

// Repository is one repository as last looked at.
type Repository struct {
	Name     string `json:"name"`
	Location string `json:"location"` // URL without secrets
	Level    Level  `json:"level"`
	Error    string `json:"error,omitempty"` // why it cannot be looked at
	// Damaged: the error is that something stored cannot be read back; the rest
	// is shown.
	Damaged  bool      `json:"damaged,omitempty"`
	LookedAt time.Time `json:"looked_at"` // last time with success
	Paused   bool      `json:"paused"`
	// Backups, the newest first.
	Backups []Backup `json:"backups"`
	// Timelines, by number.
	Timelines []Timeline `json:"timelines"`
	Gaps      []Gap      `json:"gaps"`
	Conflicts []string   `json:"conflicts"` // files
	// MissingHistories are history files that are needed and not there.
	MissingHistories []string      `json:"missing_histories,omitempty"`
	Windows          []repo.Window `json:"windows"`
	// Behind is the WAL that the cluster has written and the repository does not
	// hold: segments, and since when the oldest of them is missing.
	Behind      int       `json:"behind_segments"`
	BehindSince time.Time `json:"behind_since,omitzero"`
	StoredBytes int64     `json:"stored_bytes"` // of backups
	// Verified is the last verification that ended well; zero: none.
	Verified time.Time `json:"verified,omitzero"`
	Expired  time.Time `json:"expired,omitzero"`
	// Drill is the last rehearsal of a restore, DrillPassed the last one that
	// passed; none: there was none.
	Drill       *Drill `json:"drill,omitempty"`
	DrillPassed *Drill `json:"drill_passed,omitempty"`
	// Schedules by kind, as configured.
	Schedules map[string]string `json:"schedules"`
	Retention string            `json:"retention"` // one sentence for people
}

// Backup is one backup.
type Backup struct {
	Label       repo.Label        `json:"label"`
	Type        repo.BackupType   `json:"type"`
	Parent      repo.Label        `json:"parent,omitempty"`
	Start       time.Time         `json:"start"`
	Stop        time.Time         `json:"stop"`
	StartLSN    pg.LSN            `json:"start_lsn"`
	StopLSN     pg.LSN            `json:"stop_lsn"`
	Timeline    pg.Timeline       `json:"timeline"`
	Bytes       int64             `json:"bytes"`
	StoredBytes int64             `json:"stored_bytes"`
	PageErrors  int64             `json:"page_errors"`
	From        string            `json:"from,omitempty"` // node
	Annotations map[string]string `json:"annotations,omitempty"`
	PinnedUntil time.Time         `json:"pinned_until,omitzero"`
}

// Drill is what came of one rehearsal of a restore.
type Drill struct {
	Started time.Time  `json:"started"`
	Ended   time.Time  `json:"ended"`
	Passed  bool       `json:"passed"`
	Error   string     `json:"error,omitempty"` // why it failed
	By      string     `json:"by,omitempty"`    // host
	Backup  repo.Label `json:"backup,omitempty"`
	// Target is the moment that was restored; zero: the newest.
	Target time.Time `json:"target,omitzero"`
	// Timeline and LSN are where recovery ended.
	Timeline pg.Timeline `json:"timeline,omitempty"`
	LSN      pg.LSN      `json:"lsn,omitempty"`
	Bytes    int64       `json:"bytes"` // restored
	// How long it took until the files were there, until the server was open,
	// and to check it.
	RestoreSeconds  float64 `json:"restore_seconds"`
	RecoverySeconds float64 `json:"recovery_seconds"`
	CheckSeconds    float64 `json:"check_seconds"`
	Checks          int     `json:"checks"` // that were made
}

// Took is how long it took until the server was open.
func (d Drill) Took() time.Duration {
	return time.Duration((d.RestoreSeconds + d.RecoverySeconds) * float64(time.Second))
}

// Timeline is the coverage of one timeline.
type Timeline struct {
	Timeline pg.Timeline `json:"timeline"`
	Parent   pg.Timeline `json:"parent,omitempty"`
	Switch   pg.LSN      `json:"switch,omitempty"` // where it left its parent
	Runs     []Span      `json:"runs"`
	// FirstCommit and LastCommit bound what is archived in time.
	FirstCommit time.Time `json:"first_commit,omitzero"`
	LastCommit  time.Time `json:"last_commit,omitzero"`
	Segments    int       `json:"segments"`
}

// Span is WAL without a hole, to an exclusive end.
type Span struct {
	From pg.LSN `json:"from"`
	To   pg.LSN `json:"to"`
}

// Gap is WAL that is needed and not there.
type Gap struct {
	Timeline pg.Timeline `json:"timeline"`
	Start    pg.LSN      `json:"start"`
	End      pg.LSN      `json:"end"`
	Segments int         `json:"segments"`
	// Before and After are the nearest moments that can be restored.
	Before time.Time `json:"restorable_until,omitzero"`
	After  time.Time `json:"restorable_from,omitzero"`
}

// NextRun is a scheduled run to come.
type NextRun struct {
	Repo string    `json:"repo"`
	Kind string    `json:"kind"`
	At   time.Time `json:"at"`
}

// RunState is where a run is.
type RunState string

// The states. All but queued and running are final.
const (
	Queued    RunState = "queued"
	Running   RunState = "running"
	Done      RunState = "done"
	Failed    RunState = "failed"
	Cancelled RunState = "cancelled"
	Lost      RunState = "lost" // its process died
)

// Run is one run of a job.
type Run struct {
	ID      string   `json:"id"`
	Repo    string   `json:"repo"`
	Kind    string   `json:"kind"` // full, differential, incremental, expire, verify, repair, drill
	State   RunState `json:"state"`
	Manual  bool     `json:"manual"` // not by schedule
	Attempt int      `json:"attempt"`
	By      string   `json:"by,omitempty"`
	// Node is where it runs; Stage what it is doing, for people.
	Node        string     `json:"node,omitempty"`
	Stage       string     `json:"stage,omitempty"`
	TotalBytes  int64      `json:"total_bytes"`
	CopiedBytes int64      `json:"copied_bytes"`
	Rate        int64      `json:"bytes_per_second"`
	Left        int64      `json:"seconds_left"` // estimate; -1: unknown
	Due         time.Time  `json:"due,omitzero"`
	Started     time.Time  `json:"started,omitzero"`
	Ended       time.Time  `json:"ended,omitzero"`
	Label       repo.Label `json:"label,omitempty"`
	Error       string     `json:"error,omitempty"`
	// Damage: the error is that something stored is damaged.
	Damage bool `json:"damage,omitempty"`
	// Report is what the run did and found, for people, a line each.
	Report      []string          `json:"report,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Final reports whether the state is final.
func (r Run) Final() bool { return r.State != Queued && r.State != Running }

// BackupRequest asks for a backup now.
type BackupRequest struct {
	Repo string `json:"repo" minLength:"1" maxLength:"63" example:"repo1"`
	Type string `json:"type" enum:"full,differential,incremental" example:"full"`
	// Annotations are kept with the backup.
	Annotations map[string]string `json:"annotations,omitempty" maxProperties:"32"`
	// Key makes the request idempotent for a day.
	Key string `json:"-"`
	By  string `json:"-"` // who asks
}

// ExpireRequest asks for an expiry now.
type ExpireRequest struct {
	Repo   string `json:"repo"`
	DryRun bool   `json:"dry_run"`
	By     string `json:"-"`
}

// Expiry is what an expiry keeps and removes, with reasons.
type Expiry struct {
	Run     *Run          `json:"run,omitempty"` // none for a dry run
	Backups []ExpiryEntry `json:"backups"`
	WAL     []string      `json:"wal"` // for people
	// Damage is what is stored and cannot be read back.
	Damage string `json:"damage,omitempty"`
}

// ExpiryEntry is one backup of a plan.
type ExpiryEntry struct {
	Label  repo.Label `json:"label"`
	Remove bool       `json:"remove"`
	Reason string     `json:"reason"`
}

// RestoreQuestion asks whether a moment can be restored.
type RestoreQuestion struct {
	Repo string    // "": any
	At   time.Time // the moment
}

// RestoreAnswer is the answer.
type RestoreAnswer struct {
	At       time.Time `json:"at"`
	Possible bool      `json:"possible"`
	Reason   string    `json:"reason,omitempty"` // why not
	// Ways are the possible restores, the best first.
	Ways []RestoreWay `json:"ways"`
	// Before and After are the nearest moments that can be restored.
	Before time.Time `json:"nearest_before,omitzero"`
	After  time.Time `json:"nearest_after,omitzero"`
}

// RestoreWay is one way to restore.
type RestoreWay struct {
	Repo     string      `json:"repo"`
	Backup   repo.Label  `json:"backup"`
	Timeline pg.Timeline `json:"timeline"`
	WALBytes int64       `json:"wal_bytes"` // to replay
	Command  string      `json:"command"`
}
