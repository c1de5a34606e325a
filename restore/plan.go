package restore

import (
	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
)

// Plan is what [Run] will do, and why it will reach the target.
type Plan struct {
	Repository string
	SystemID   pg.SystemID
	Backup     repo.Summary
	Target     Target
	// Standby: the server does not open at the end of WAL, but follows what is
	// archived from then on.
	Standby bool

	// Timeline is the timeline that recovery aims for, and TimelineSetting
	// what the server is told: always the number, so that a timeline that
	// someone archives between plan and start changes nothing; "current" if
	// the repository lacks that timeline's history file, without which the
	// server refuses a number.
	Timeline        pg.Timeline
	TimelineSetting string
	// Path is how the WAL goes from the start of the backup: each span to
	// where its timeline is left, the last one to where the recovery ends, as
	// far as that is known.
	Path []pg.TimelineSpan
	// WAL are the segments that recovery reads, all of which are there.
	WAL []repo.SegmentRange
	// Partial is the partial segment that Run puts into pg_wal, where the server
	// finds it after the last of WAL; nil if none is used.
	Partial *repo.Partial
	// Left are the timelines that were left inside the segment in which recovery
	// stops, if it may stop on one of them: see [Left].
	Left []Left
	// SegmentSize gives the segments their names.
	SegmentSize pg.SegmentSize
	// Stop says where recovery will stop.
	Stop Stop
	// Warnings are what the user should know before going on.
	Warnings []string

	epoch *repo.Epoch
}

// Stop is what is known of the place where recovery stops.
type Stop struct {
	// Segment is where it stops, and LSN a position that it will have
	// reached by then: of the target, of the restore point, or the end of WAL.
	Segment pg.SegmentName
	LSN     pg.LSN
	// Likely is set if the segment is where it should stop but that cannot be
	// proven (a target transaction).
	Likely bool
	// Last is the last transaction in the WAL that is there, if known: what
	// the end of WAL means.
	Last *Moment
}

// Left is a timeline that was left in the middle of a segment. The archive has that
// segment from the next timeline, which begins with a copy of the old one's part,
// and recovery reads it under that name. But when it ends on the old timeline, the
// server reads the prepared transactions that it goes on with out of the file of
// the old timeline's name, and gives up if there is none ("requested WAL segment …
// has already been removed": read_local_xlog_page in xlogutils.c takes the timeline
// that was replayed last). So Run puts that file into pg_wal, as far as the old
// timeline goes, as the old primary left it.
type Left struct {
	Segment pg.SegmentName
	To      pg.LSN // where the timeline was left
}

// Segments is the number of segments that recovery reads.
func (p *Plan) Segments() int {
	n := 0
	for _, r := range p.WAL {
		n += r.Count()
	}
	return n
}

// passedOver warns of repositories that could not be used.
func (p *Plan) passedOver(failed []error) {
	for _, err := range failed {
		p.Warnings = append(p.Warnings, "passed over: "+err.Error())
	}
}

// walEnd is the first byte after the segments that recovery reads.
func (p *Plan) walEnd() pg.LSN {
	if len(p.WAL) == 0 {
		return p.Backup.StartLSN
	}
	return p.SegmentSize.Start(p.WAL[len(p.WAL)-1].Last + 1)
}

// Request is what the user asks for.
type Request struct {
	Repository string     // use this one only; "": the first, in order, that can reach the target
	Backup     repo.Label // use this one only; "": the newest that can reach the target
	Target     Target
	Standby    bool // restore a standby; Target must be the end of WAL
	// UsePartial lets recovery to the end of WAL, or to an LSN, read a partial
	// segment behind the last whole one, if there is one.
	UsePartial bool
}
