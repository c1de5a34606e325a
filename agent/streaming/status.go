package streaming

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/stream"
)

// Status is how far streaming has come.
type Status struct {
	Connected bool        `json:"connected"`
	Node      string      `json:"node,omitempty"`   // streamed from
	Since     *time.Time  `json:"since,omitempty"`  // connected, or not
	Reason    string      `json:"reason,omitempty"` // why not connected
	Slot      string      `json:"slot,omitempty"`   // in use
	Timeline  pg.Timeline `json:"timeline,omitempty"`
	ServerLSN pg.LSN      `json:"server_lsn,omitempty"` // how far the server has WAL
	Received  pg.LSN      `json:"received_lsn,omitempty"`
	Waiting   int         `json:"waiting"` // finished files in the spool
	// Repos are in the order of the configuration.
	Repos []RepoStatus `json:"repos"`
}

// RepoStatus is how far a repository has come.
type RepoStatus struct {
	Name        string `json:"name"`
	ArchivedLSN pg.LSN `json:"archived_lsn,omitempty"` // the end of the last whole record there
	// BehindBytes is WAL that the server has and the repository has not.
	BehindBytes uint64 `json:"behind_bytes"`
	// BehindSeconds is the age of the oldest of that WAL, as far as is known:
	// what would be lost if all nodes were. Without a connection, at least the
	// time since the server was heard.
	BehindSeconds float64 `json:"behind_seconds"`
	Partials      int     `json:"partials"` // stored by this process
	Skipped       int     `json:"skipped"`  // files given up
	Error         string  `json:"error,omitempty"`
}

// state is what Status needs to know of the stream. Guarded by Receiver.mu.
type state struct {
	connected bool
	node      string
	slot      string
	since     time.Time
	reason    string
	timeline  pg.Timeline
	server    pg.LSN
	received  pg.LSN
	heard     time.Time
}

// Status can be called at any time.
func (r *Receiver) Status() Status {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Connected: r.state.connected, Node: r.state.node, Reason: r.state.reason, Slot: r.state.slot,
		Timeline: r.state.timeline, ServerLSN: r.state.server, Received: r.state.received,
	}
	if !r.state.since.IsZero() {
		s.Since = &r.state.since
	}
	for _, f := range r.files {
		if p, _, _ := f.now(); p != growing {
			s.Waiting++
		}
	}
	for i, l := range r.lanes {
		st := RepoStatus{Name: r.opts.Repos[i].Name(), Partials: l.partials, Skipped: l.skipped}
		if l.failed != nil {
			st.Error = l.failed.Error()
		}
		at := pg.LSN(0)
		if l.durable.timeline == r.state.timeline {
			at = l.durable.lsn
		}
		st.ArchivedLSN = l.durable.lsn
		if r.state.server > at {
			st.BehindBytes = uint64(r.state.server - at)
			if at == 0 {
				st.BehindBytes = uint64(r.state.server - min(r.state.server, r.samples.first()))
			}
			st.BehindSeconds = r.samples.age(at, now).Seconds()
		}
		if !r.state.connected && !r.state.heard.IsZero() {
			st.BehindSeconds = max(st.BehindSeconds, now.Sub(r.state.heard).Seconds())
		}
		s.Repos = append(s.Repos, st)
	}
	return s
}

func (r *Receiver) connected(server Server, t pg.Timeline, slot string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.timeline != t {
		r.samples.forget()
	}
	r.state.connected, r.state.node, r.state.reason, r.state.timeline, r.state.slot = true, server.Name, "", t, slot
	r.state.since = time.Now()
	r.opts.Log.Info("streaming", zapNode(server.Name), zapTimeline(t))
}

func (r *Receiver) disconnected(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.connected || r.state.since.IsZero() {
		r.state.since = time.Now()
	}
	r.state.connected, r.state.reason = false, err.Error()
	// What was received may be all that is left of it.
	for _, l := range r.lanes {
		l.urgent = true
	}
	r.wakeAll()
}

// heard takes note of a message of the server.
func (r *Receiver) heard(m stream.Message) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.heard = now
	r.state.received = m.Start + pg.LSN(len(m.Data))
	r.state.server = max(m.ServerEnd, r.state.received)
	r.samples.add(r.state.server, now)
}

// confirmed is how far enough repositories have timeline t; 0 if they have
// nothing of it.
func (r *Receiver) confirmed(t pg.Timeline) pg.LSN {
	r.mu.Lock()
	defer r.mu.Unlock()
	var have []pg.LSN
	for _, l := range r.lanes {
		at := pg.LSN(0)
		if l.durable.timeline == t {
			at = l.durable.lsn
		}
		have = append(have, at)
	}
	slices.Sort(have)
	return have[len(have)-r.opts.Require]
}

// holding reports whether too few repositories have taken anything for a while.
func (r *Receiver) holding() bool {
	const patience = 10 * time.Second
	r.mu.Lock()
	defer r.mu.Unlock()
	well := 0
	for _, l := range r.lanes {
		if l.failed == nil || time.Since(l.failedAt) < patience {
			well++
		}
	}
	return well < r.opts.Require
}

// samples remember when the server was how far. They are few: when there are
// too many, every other one goes.
type samples []sample

type sample struct {
	lsn pg.LSN
	at  time.Time // first seen
}

const maxSamples = 2048

func (s *samples) forget() { *s = nil }

func (s *samples) first() pg.LSN {
	if len(*s) == 0 {
		return 0
	}
	return (*s)[0].lsn
}

func (s *samples) add(lsn pg.LSN, at time.Time) {
	if n := len(*s); n > 0 {
		last := (*s)[n-1]
		if lsn <= last.lsn {
			return
		}
		if n > 1 && at.Sub(last.at) < 50*time.Millisecond {
			(*s)[n-1].lsn = lsn // with the older time: never too young
			return
		}
	}
	if len(*s) >= maxSamples {
		kept := (*s)[:0]
		for i := 0; i < maxSamples; i += 2 {
			kept = append(kept, sample{(*s)[min(i+1, maxSamples-1)].lsn, (*s)[i].at})
		}
		*s = kept
	}
	*s = append(*s, sample{lsn, at})
}

// age is how long ago the oldest WAL behind lsn was seen.
func (s *samples) age(lsn pg.LSN, now time.Time) time.Duration {
	for _, e := range *s {
		if e.lsn > lsn {
			return max(0, now.Sub(e.at))
		}
	}
	return 0
}

func zapNode(name string) zap.Field       { return zap.String("node", name) }
func zapTimeline(t pg.Timeline) zap.Field { return zap.Uint32("timeline", uint32(t)) }
