package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Status is what an agent says of itself.
type Status struct {
	// Instance changes with every start of the agent: runs of another instance
	// are not known to this one.
	Instance string `json:"instance"`
	Node     string `json:"node,omitempty"`
	Version  string `json:"version,omitempty"`
	// Agent is agent.Status; Streaming is streaming.Status. Either may be
	// missing.
	Agent     json.RawMessage `json:"agent,omitempty"`
	Streaming json.RawMessage `json:"streaming,omitempty"`
}

// Inventory is the files of pg_wal that PostgreSQL archives, by name.
type Inventory struct {
	Files []File `json:"files"`
}

// File is one file of pg_wal.
type File struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	Modified time.Time `json:"modified"`
	// Mark is what archive_status says: ready, done or nothing.
	Mark string `json:"mark,omitempty"`
	// Complete and ValidTo are what the WAL itself says of a segment, if it was
	// asked for and the file could be examined.
	Complete *bool   `json:"complete,omitempty"`
	ValidTo  *pg.LSN `json:"valid_to,omitempty"`
}

// BackupRequest asks for a backup.
type BackupRequest struct {
	Repos       []string          `json:"repos"` // at least one
	Type        string            `json:"type"`  // full, differential, incremental
	Annotations map[string]string `json:"annotations,omitempty"`
}

// State of a run.
type State string

// The states. All but running are final.
const (
	Running   State = "running"
	Done      State = "done"
	Failed    State = "failed" // in one repository at least
	Cancelled State = "cancelled"
)

// Run is a backup under way, or one that ended.
type Run struct {
	ID      string        `json:"id"`
	Request BackupRequest `json:"request"`
	State   State         `json:"state"`
	Stage   string        `json:"stage,omitempty"` // what it is doing, for people
	Total   int64         `json:"total_bytes"`     // to copy; an estimate, 0 until known
	Copied  int64         `json:"copied_bytes"`
	Started time.Time     `json:"started"`
	Ended   *time.Time    `json:"ended,omitempty"`
	Error   string        `json:"error,omitempty"`
	// Result is what became of it, as "walkeep backup --json" prints it.
	Result json.RawMessage `json:"result,omitempty"`
}

// Progress is told how a backup goes, from many goroutines.
type Progress interface {
	Stage(what string)
	Total(bytes int64)
	Add(bytes int64)
}

// Backup takes a backup, and returns what became of it. The result may be nil.
type Backup func(ctx context.Context, r BackupRequest, p Progress) (result any, err error)

// BackupResult is what became of a backup: Run.Result, and what "walkeep backup
// --json" prints.
type BackupResult struct {
	Label repo.Label         `json:"label"`
	Repos []BackupRepoResult `json:"repos"`
	// NothingNew: there was nothing to add to the parent, so no backup was taken.
	NothingNew bool `json:"nothing_new,omitempty"`
	// Busy: another backup into the repository was under way.
	Busy bool `json:"busy,omitempty"`
	// Damaged: something that is stored, and was needed for the backup, is damaged.
	Damaged bool `json:"damaged,omitempty"`
}

// BackupRepoResult is what became of it in one repository.
type BackupRepoResult struct {
	Name    string        `json:"name"`
	Status  string        `json:"status"` // ok or failed
	Error   string        `json:"error,omitempty"`
	Notes   []string      `json:"notes,omitempty"`
	Summary *repo.Summary `json:"summary,omitempty"`
}

// Problem is an error of the server (RFC 9457).
type Problem struct {
	Type   string `json:"type"` // about:blank
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Run that is in the way, with status 409.
	Run string `json:"run,omitempty"`
}
