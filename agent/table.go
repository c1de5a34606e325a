package agent

import (
	"strings"
	"sync"
	"time"

	"github.com/walkeep/walkeep/archive"
	"github.com/walkeep/walkeep/pg"
)

// entry is one file that is archived, or is to be. The fields are guarded by
// Agent.mu, but for the last three.
type entry struct {
	walFile
	forked  bool
	due     time.Time // not before this
	asked   bool      // the server waits for it: it goes first
	gone    bool      // no longer in pg_wal
	refused error     // it must not be archived anywhere, and why
	retry   time.Time // after a failure here, such as of reading the file
	local   error     // that failure
	places  []place   // one for each repository

	opening  sync.Mutex // guards file and borrowed
	file     *archive.File
	borrowed int
}

// place is the state of a file in one repository.
type place struct {
	state    state
	conflict bool // there, but under conflict/
	busy     bool // a worker has it
	asked    bool // of the repository, alone or in a listing
	dropped  bool // the repository is not waited for
	err      error
	failed   int // attempts
}

// state of a file in a repository.
type state int

const (
	waiting state = iota
	there         // durable, if only under conflict/
	lost          // neither pg_wal nor any other repository has it any more
)

// needs reports whether there is still something to do in a repository.
func (e *entry) needs(i int) bool {
	return e.refused == nil && e.places[i].state == waiting && !e.places[i].busy
}

// listable reports whether that the repository has a segment of this name is
// enough to take it for this one: not if the server still waits for it, and not
// where the timeline forked and other nodes may have written something else.
func (e *entry) listable(i int) bool {
	return e.kind == pg.FileSegment && e.needs(i) && !e.places[i].asked && !e.asked && !e.forked && e.mark != ready && !e.gone
}

// open reports whether the file is not yet where it should be.
func (e *entry) open() bool {
	if e.refused != nil {
		return false
	}
	for _, p := range e.places {
		if p.state == waiting {
			return true
		}
	}
	return false
}

// over reports whether there is nothing left to do or to tell about a file that
// is gone. What is lost is told as long as the agent lives.
func (e *entry) over() bool {
	for _, p := range e.places {
		if p.state == lost {
			return false
		}
	}
	return !e.open()
}

// enough reports whether the server can be told that the file is archived. A
// repository that was dropped does not count, on either side.
func (e *entry) enough(require int) bool {
	have, counted := 0, 0
	for _, p := range e.places {
		if p.state == there {
			have++
		}
		if p.state == there || !p.dropped {
			counted++
		}
	}
	return have >= min(require, counted)
}

// before orders what is pushed first: what the server waits for, then history
// files, then older segments.
func (e *entry) before(o *entry) bool {
	if e.asked != o.asked {
		return e.asked
	}
	if h := e.kind == pg.FileHistory; h != (o.kind == pg.FileHistory) {
		return h
	}
	return strings.Compare(e.name, o.name) < 0
}

// settled reports whether a file is in the table as it is now. mu is taken.
func (a *Agent) settled(name string, id identity) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.files[name]
	return e != nil && e.id == id
}

// offer puts a file into the table, unless it is there. mu is held.
func (a *Agent) offer(f finding, now time.Time, asked bool) *entry {
	e := a.files[f.name]
	if e == nil || e.id != f.id {
		e = &entry{walFile: f.walFile, forked: f.forked, due: now, places: make([]place, len(a.opts.Repos))}
		if a.standby {
			e.due = now.Add(a.opts.StandbyDelay)
		}
		a.files[f.name] = e
	}
	e.asked = e.asked || asked && e.open()
	return e
}

// change wakes whoever waits for the table to change. mu is held.
func (a *Agent) change() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// missing notes that files are no longer in pg_wal, and forgets those of which
// nothing is left to do. mu is held.
func (a *Agent) missing(present map[string]bool) {
	for name, e := range a.files {
		if present[name] {
			continue
		}
		e.gone = true
		if e.over() {
			delete(a.files, name)
		}
	}
}
