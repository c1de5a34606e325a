package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
)

// Status is what an agent knows of its server and its repositories.
type Status struct {
	Node     string      `json:"node,omitempty"`
	PGData   string      `json:"pgdata"`
	SystemID pg.SystemID `json:"system_identifier,omitempty"` // absent until PGDATA is there
	Timeline pg.Timeline `json:"timeline,omitempty"`          // as pg_control says
	Standby  bool        `json:"standby"`
	Started  time.Time   `json:"started"`
	Surveyed *time.Time  `json:"surveyed,omitempty"` // when pg_wal was looked through last
	// Trouble says why pg_wal cannot be looked through, if so.
	Trouble string `json:"trouble,omitempty"`
	// Require is how many repositories must have a file before PostgreSQL is
	// told that it is archived.
	Require int          `json:"require"`
	Repos   []RepoStatus `json:"repos"`
	// Refused are files that must not be archived anywhere, and why.
	Refused []FileProblem `json:"refused,omitempty"`
}

// RepoStatus is the way to one repository.
type RepoStatus struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"` // the last attempt did not fail on its account
	Counters
	Waiting      int        `json:"waiting"` // files that it does not have yet
	WaitingBytes int64      `json:"waiting_bytes"`
	Oldest       string     `json:"oldest,omitempty"` // of those, the first by name
	Error        string     `json:"error,omitempty"`
	ErrorAt      *time.Time `json:"error_at,omitempty"`
	NextAttempt  *time.Time `json:"next_attempt,omitempty"` // if not healthy
	// Gaps are runs of segments that it lacks and is not waited for: dropped,
	// or lost.
	Gaps []Gap `json:"gaps,omitempty"`
	// Conflicts are files of this node that the repository has with other
	// content, or of another branch; they are kept beside it.
	Conflicts []string `json:"conflicts,omitempty"`
}

// Gap is a run of segments that a repository lacks.
type Gap struct {
	First pg.SegmentName `json:"first"`
	Last  pg.SegmentName `json:"last"`
	// Lost: nothing that this agent can reach has them. Else they are copied
	// when the repository is back.
	Lost bool `json:"lost"`
}

// FileProblem is a file and what is wrong with it.
type FileProblem struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// maxProblems bounds each list of problems in a status.
const maxProblems = 100

// Status is the agent's state at this moment.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{
		Node: a.opts.Node, PGData: a.opts.PGData, SystemID: a.cluster.SystemID, Timeline: a.timeline, Standby: a.standby,
		Started: a.started.UTC(), Surveyed: timeOrNil(a.surveyed), Trouble: a.trouble, Require: a.opts.Require,
	}
	names := make([]string, 0, len(a.files))
	for name, e := range a.files {
		names = append(names, name)
		if e.refused != nil {
			s.Refused = append(s.Refused, FileProblem{name, e.refused.Error()})
		}
	}
	slices.Sort(names)
	s.Refused = firstProblems(s.Refused)
	for _, q := range a.queues {
		s.Repos = append(s.Repos, q.status(names))
	}
	return s
}

// status is the queue's part; names are all files, in order. mu is held.
func (q *queue) status(names []string) RepoStatus {
	s := RepoStatus{Name: q.repo.Name(), Healthy: q.failures == 0, Counters: q.counters, ErrorAt: timeOrNil(q.lastAt)}
	if q.last != nil {
		s.Error = q.last.Error()
	}
	if !s.Healthy {
		s.NextAttempt = timeOrNil(q.until)
	}
	for _, name := range names {
		e := q.agent.files[name]
		p := e.places[q.index]
		switch {
		case e.refused != nil:
		case p.state == waiting:
			s.Waiting++
			s.WaitingBytes += e.id.size
			if s.Oldest == "" {
				s.Oldest = name
			}
		case p.conflict && len(s.Conflicts) < maxProblems:
			s.Conflicts = append(s.Conflicts, name)
		}
		if e.kind == pg.FileSegment && (p.state == lost || p.state == waiting && p.dropped) {
			s.addGap(e, p.state == lost)
		}
	}
	return s
}

// addGap lengthens the last gap by a segment, or begins another. Names follow
// one another if no segment of the table lies between; that is checked against
// the numbers.
func (s *RepoStatus) addGap(e *entry, isLost bool) {
	name := pg.SegmentName(e.name)
	if n := len(s.Gaps); n > 0 && s.Gaps[n-1].Lost == isLost && follows(s.Gaps[n-1].Last, name, e.id.size) {
		s.Gaps[n-1].Last = name
		return
	}
	s.Gaps = append(s.Gaps, Gap{First: name, Last: name, Lost: isLost})
}

// follows reports whether b is the segment behind a, on the same timeline.
func follows(a, b pg.SegmentName, size int64) bool {
	if a.Timeline() != b.Timeline() {
		return false
	}
	n, err1 := a.Number(pg.SegmentSize(size))
	m, err2 := b.Number(pg.SegmentSize(size))
	return err1 == nil && err2 == nil && m == n+1
}

func firstProblems(p []FileProblem) []FileProblem {
	slices.SortFunc(p, func(a, b FileProblem) int { return strings.Compare(a.File, b.File) })
	return p[:min(len(p), maxProblems)]
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
