package backup

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
	"github.com/walkeep/walkeep/repo"
)

// targetSet is a set of targets, by index.
type targetSet uint8

// maxTargets is how many repositories a backup can go to.
const maxTargets = 8

func allTargets(n int) targetSet { return 1<<n - 1 }

func (s targetSet) has(i int) bool { return s&(1<<i) != 0 }

// planner decides for each file how it is backed up: which pages come from the
// parents, and how it is found out which ones do. Used by one goroutine, in
// the order of the walk.
type planner struct {
	targets []*target
	rung    Detect // the best one that can be relied on
	changes *changeSet
	now     map[uint32]uint32 // databases: OID to XMin
	place   *repo.Place
	pgdata  string
	// filesOnly: the LSNs of pages do not tell all; a file is as it was or whole.
	filesOnly bool

	resumed *planner // of what killed backups left; nil: nothing of use
}

// filePlan is how one file is backed up. nil: all of it, to all.
type filePlan struct {
	detect Detect
	from   []*parentFile // by target; nil: nothing of it can come from there
	start  []pg.LSN      // by target: pages from there on have changed
	// changed, of the rungs that need not read a file to know, holds the pages
	// that have changed. nil: read all pages and look.
	changed *pageSet
	// asWas: the whole file is as in the parents and is not read.
	asWas bool
}

// Room for clocks and coarse time stamps.
const timeSlack = 10 * time.Second

// tinyLSN is where WAL begins. Pages with lower LSNs were written by what is
// not logged page by page, with made-up LSNs.
const tinyLSN = pg.LSN(1 << 20)

// plan decides about a file. What a killed backup stored of it is better than
// what the parent has: it is newer, and holds all that the parent has.
func (p *planner) plan(e entry) *filePlan {
	if p == nil {
		return nil
	}
	f := p.decide(e)
	if r := p.resumed.plan(e); r != nil && p.serves(r, f) {
		return r
	}
	return f
}

// serves reports whether a plan to use what killed backups left takes nothing
// from any repository that the other plan has.
func (p *planner) serves(resumed, f *filePlan) bool {
	for i, t := range p.targets {
		switch {
		case t.out.Load():
		case p.resumed.targets[i].out.Load():
			return false
		case f != nil && f.from[i] != nil && resumed.from[i] == nil:
			return false
		}
	}
	return true
}

// decide decides about a file of a parent. Its errors are those of the repositories, which
// it takes out.
func (p *planner) decide(e entry) *filePlan {
	// Free space maps, visibility maps and init forks change without WAL that
	// names the pages, or are small; what is no relation has no pages with LSNs.
	if p.rung == DetectWhole || e.kind != kindFile || e.fork != forkMain {
		return nil
	}
	rel, ok := relationOf(e)
	if !ok {
		return nil
	}
	f := &filePlan{detect: p.rung, from: make([]*parentFile, len(p.targets)), start: make([]pg.LSN, len(p.targets))}
	any := false
	for i, t := range p.targets {
		if t.parent == nil || t.out.Load() {
			continue
		}
		parent, err := t.parent.cursor.find(e.path)
		if err != nil {
			t.fail(err)
			continue
		}
		if parent == nil || p.remade(t.parent, rel.database) {
			continue
		}
		f.from[i], f.start[i], any = parent, t.parent.header.StartLSN, true
	}
	if !any {
		return nil
	}
	if p.rung != DetectScan {
		changed, whole := p.changes.of(rel, e.segment)
		if whole {
			return nil
		}
		f.changed = changed
	}
	if f.asWas = p.asWas(e, f); p.filesOnly && !f.asWas {
		return nil
	}
	return f
}

// remade reports whether a database may be another one than that of the
// parent: CREATE DATABASE can copy files as they are, so that neither their
// pages nor any record of WAL tells that they are new.
func (p *planner) remade(parent *parent, database uint32) bool {
	if database == 0 {
		return false
	}
	now, ok := p.now[database]
	then, known := parent.databases[database]
	return !ok || !known || now != then
}

// asWas decides whether a file need not be read at all.
func (p *planner) asWas(e entry, f *filePlan) bool {
	for i, t := range p.targets {
		if t.out.Load() {
			continue
		}
		from := f.from[i]
		if from == nil || from.entry.Size != e.size || !from.intact() {
			return false
		}
		if f.changed == nil && !p.untouched(e, t.parent, from) {
			return false
		}
	}
	return f.changed == nil || f.changed.empty()
}

// untouched reports whether the times of a file prove that it was not written
// since the parent backup saw it: the same data directory on the same host, the
// same modification time to the nanosecond, and no change of any kind since
// well before that backup began.
func (p *planner) untouched(e entry, parent *parent, from *parentFile) bool {
	return p.place != nil && parent.header.Place != nil && *parent.header.Place == *p.place &&
		parent.header.PGData == p.pgdata &&
		e.mtime.Equal(from.entry.MTime) && e.mtime.Nanosecond()%1e6 != 0 && // else a coarse clock
		e.ctime.Before(parent.header.Start.Add(-timeSlack))
}

// databasesOf are the databases of a manifest's header, OID to XMin.
func databasesOf(list []repo.Database) map[uint32]uint32 {
	m := map[uint32]uint32{}
	for _, d := range list {
		m[d.OID] = d.XMin
	}
	return m
}

func headerDatabases(list []server.Database) []repo.Database {
	var all []repo.Database
	for _, d := range list {
		all = append(all, repo.Database{OID: d.OID, Name: d.Name, XMin: d.XMin})
	}
	return all
}

// relation names a relation's files, as WAL does.
type relation struct {
	tablespace uint32 // 1663: pg_default, 1664: pg_global
	database   uint32 // 0: shared
	number     uint32
}

const (
	defaultTablespace = 1663
	globalTablespace  = 1664
)

// relationOf tells from the path of a relation's file which relation it is.
func relationOf(e entry) (r relation, ok bool) {
	if !e.relation {
		return r, false
	}
	names := strings.Split(e.path, "/")
	file, ok := parseRelFile(names[len(names)-1])
	if !ok {
		return r, false
	}
	oid := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		ok = ok && err == nil
		return uint32(n)
	}
	r.number = oid(file.number)
	switch {
	case names[0] == "global" && len(names) == 2:
		r.tablespace = globalTablespace
	case names[0] == "base" && len(names) == 3:
		r.tablespace, r.database = defaultTablespace, oid(names[1])
	case names[0] == "pg_tblspc" && len(names) == 5:
		r.tablespace, r.database = oid(names[1]), oid(names[3])
	default:
		return r, false
	}
	return r, ok
}

// changedSince reports whether a page is to be taken as changed by what it
// looks like: by its LSN, if it looks like a page at all.
func changedSince(page []byte, start pg.LSN) bool {
	lsn := pg.PageLSN(page)
	if lsn >= start || lsn < tinyLSN {
		return true
	}
	lower := binary.LittleEndian.Uint16(page[12:])
	upper := binary.LittleEndian.Uint16(page[14:])
	special := binary.LittleEndian.Uint16(page[16:])
	version := binary.LittleEndian.Uint16(page[18:])
	return lower < 24 || lower > upper || upper > special || special > pg.PageSize || version != pg.PageSize|4
}
