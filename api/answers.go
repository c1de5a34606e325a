package api

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// What the REST API answers besides the types of the snapshot, for server and
// client.

// Health is whether all is well.
type Health struct {
	Cluster string    `json:"cluster"`
	Version string    `json:"version"`
	At      time.Time `json:"at"` // of what is said here
	Level   Level     `json:"level"`
	// Leader says who leads; Leading whether this process does.
	Leader   string    `json:"leader"`
	Leading  bool      `json:"leading"`
	Problems []Problem `json:"problems"` // the worst first
}

// RepositoryState is one repository without the lists of what it holds.
type RepositoryState struct {
	Name     string    `json:"name"`
	Location string    `json:"location"` // URL without secrets
	Level    Level     `json:"level"`
	Error    string    `json:"error,omitempty"` // why it cannot be looked at
	LookedAt time.Time `json:"looked_at"`       // last time with success
	Paused   bool      `json:"paused"`
	Backups  int       `json:"backups"` // how many
	// Newest are the newest backups of each type.
	Newest      []Backup  `json:"newest"`
	Gaps        int       `json:"gaps"`      // how many
	Conflicts   int       `json:"conflicts"` // how many files
	Behind      int       `json:"behind_segments"`
	BehindSince time.Time `json:"behind_since,omitzero"`
	StoredBytes int64     `json:"stored_bytes"` // of backups
	// Earliest and Latest bound the moments that can be restored. There may be
	// holes between them: see the recovery windows.
	Earliest time.Time `json:"restorable_from,omitzero"`
	Latest   time.Time `json:"restorable_until,omitzero"`
	// Verified is the last verification that ended well; zero: none.
	Verified time.Time `json:"verified,omitzero"`
	Expired  time.Time `json:"expired,omitzero"`
	// Drill is the last rehearsal of a restore, DrillPassed the last one that
	// passed; none: there was none.
	Drill       *Drill            `json:"drill,omitempty"`
	DrillPassed *Drill            `json:"drill_passed,omitempty"`
	Schedules   map[string]string `json:"schedules"` // by kind, as configured
	Retention   string            `json:"retention"` // one sentence for people
}

// State is the repository without its lists.
func (r *Repository) State() RepositoryState {
	s := RepositoryState{
		Name: r.Name, Location: r.Location, Level: r.Level, Error: r.Error, LookedAt: r.LookedAt, Paused: r.Paused,
		Backups: len(r.Backups), Newest: []Backup{}, Gaps: len(r.Gaps), Conflicts: len(r.Conflicts), Behind: r.Behind,
		BehindSince: r.BehindSince, StoredBytes: r.StoredBytes, Verified: r.Verified, Expired: r.Expired,
		Drill: r.Drill, DrillPassed: r.DrillPassed, Schedules: r.Schedules, Retention: r.Retention,
	}
	if s.Schedules == nil {
		s.Schedules = map[string]string{}
	}
	for _, t := range []repo.BackupType{repo.Full, repo.Differential, repo.Incremental} {
		if i := slices.IndexFunc(r.Backups, func(b Backup) bool { return b.Type == t }); i >= 0 {
			s.Newest = append(s.Newest, r.Backups[i])
		}
	}
	for _, w := range r.Windows {
		if s.Earliest.IsZero() || w.Earliest.Before(s.Earliest) {
			s.Earliest = w.Earliest
		}
		if w.Latest.After(s.Latest) {
			s.Latest = w.Latest
		}
	}
	return s
}

// RepositoryList is all repositories, as configured.
type RepositoryList struct {
	Repos []RepositoryState `json:"repos"`
}

// ListedBackup is one backup of a list.
type ListedBackup struct {
	Repo string `json:"repo"`
	Backup
}

// BackupPage is one page of the list of backups, the newest first.
type BackupPage struct {
	Backups []ListedBackup `json:"backups"`
	// Next is what "after" must be for the next page; none: this is the last.
	Next string `json:"next,omitempty"`
}

// BackupDetails is one backup with those it belongs to.
type BackupDetails struct {
	ListedBackup
	// Needs are the backups that must stay for this one to be restored, the
	// full one first.
	Needs []repo.Label `json:"needs"`
	// NeededBy are the backups that go when this one does.
	NeededBy []repo.Label `json:"needed_by"`
}

// BackupContents is one backup as its summary and its manifest in the repository
// tell of it.
type BackupContents struct {
	Repo string `json:"repo"`
	repo.Summary
	repo.Contents
}

// RunPage is one page of the list of runs, the newest first.
type RunPage struct {
	Runs []Run `json:"runs"`
	// Next is what "after" must be for the next page; none: this is the last.
	Next string `json:"next,omitempty"`
}

// Coverage is the WAL that a repository holds, and what it lacks.
type Coverage struct {
	Repo      string     `json:"repo"`
	Timelines []Timeline `json:"timelines"` // by number
	Gaps      []Gap      `json:"gaps"`
	Conflicts []string   `json:"conflicts"` // files that were archived with two contents
	// MissingHistories are history files that are needed and not there.
	MissingHistories []string  `json:"missing_histories,omitempty"`
	Behind           int       `json:"behind_segments"`
	BehindSince      time.Time `json:"behind_since,omitzero"`
}

// CoverageList is the coverage of several repositories.
type CoverageList struct {
	Repos []Coverage `json:"repos"`
}

// RepositoryGap is a gap of a list.
type RepositoryGap struct {
	Repo string `json:"repo"`
	Gap
}

// GapList is the gaps of several repositories.
type GapList struct {
	Gaps []RepositoryGap `json:"gaps"`
}

// RecoveryWindow is a stretch of moments that can all be restored.
type RecoveryWindow struct {
	Repo     string      `json:"repo"`
	Timeline pg.Timeline `json:"timeline"` // the target timeline with which all of it is reached
	Earliest time.Time   `json:"earliest"`
	Latest   time.Time   `json:"latest"`
	From     pg.LSN      `json:"from_lsn"`
	To       pg.LSN      `json:"to_lsn"`        // exclusive
	Gap      bool        `json:"gap,omitempty"` // WAL follows behind a hole
	// Backups inside, the oldest first.
	Backups []repo.Label        `json:"backups"`
	Partial *repo.WindowPartial `json:"partial,omitempty"`
}

// WindowList is the recovery windows of several repositories.
type WindowList struct {
	Windows []RecoveryWindow `json:"windows"`
}

// NodeList is the servers of the cluster.
type NodeList struct {
	Nodes []Node `json:"nodes"`
}

// NextRunList is the scheduled runs to come, the soonest first.
type NextRunList struct {
	Next []NextRun `json:"next"`
}

// PausedList is which repositories are paused.
type PausedList struct {
	Paused []string `json:"paused"`
}

// Fault is an error of the REST API: problem details of RFC 9457, which is what
// "problem" means there; a [Problem] is something else.
type Fault struct {
	// Type is what kind of fault it is: a chapter of docs/rest.md, or
	// about:blank where the status says all.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"` // of HTTP
	Detail string `json:"detail,omitempty"`
	// Errors are the fields that are wrong.
	Errors []FieldFault `json:"errors,omitempty"`
}

// FieldFault is what is wrong with one field of a request.
type FieldFault struct {
	Location string `json:"location,omitempty"` // such as body.repo or query.limit
	Message  string `json:"message"`
}

// faultPage is where the types of faults are described.
const faultPage = "https://github.com/walkeep/walkeep/blob/main/docs/rest.md#"

// NewFault is a fault of that status. err, which may be nil, decides the type.
func NewFault(status int, detail string, err error) *Fault {
	f := &Fault{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
	for _, k := range faultKinds() {
		if errors.Is(err, k.is) {
			f.Type, f.Title = faultPage+k.name, k.is.Error()
			break
		}
	}
	return f
}

func faultKinds() []struct {
	name string
	is   error
} {
	return []struct {
		name string
		is   error
	}{
		{"not-found", ErrNotFound},
		{"not-running", ErrNotRunning},
		{"busy", ErrBusy},
		{"paused", ErrPaused},
		{"not-leader", ErrNotLeader},
		{"invalid", ErrInvalid},
		{"credentials", ErrCredentials},
		{"damaged", repo.ErrIntegrity},
	}
}

// Error is for people.
func (f *Fault) Error() string {
	s := f.Detail
	if s == "" {
		s = f.Title
	}
	for _, e := range f.Errors {
		s += "; " + e.Location + ": " + e.Message
	}
	return s
}

// Is makes errors.Is tell what a fault is about, in a client as in the service.
func (f *Fault) Is(target error) bool {
	for _, k := range faultKinds() {
		if f.Type == faultPage+k.name {
			return target == k.is
		}
	}
	return target == ErrNotFound && f.Status == http.StatusNotFound ||
		target == ErrInvalid && f.Status == http.StatusUnprocessableEntity ||
		target == ErrCredentials && (f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden)
}

// GetStatus is the status of the answer.
func (f *Fault) GetStatus() int { return f.Status }

// ContentType is that of RFC 9457.
func (f *Fault) ContentType(string) string { return "application/problem+json" }
