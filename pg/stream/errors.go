package stream

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walkeep/walkeep/pg"
)

// What callers branch on, with errors.Is, besides the errors of package server
// (ErrConnect, ErrConnectionLost, ErrPrivileges).
var (
	// ErrRemoved: the server had the WAL and has removed it; a *RemovedError.
	ErrRemoved = errors.New("the server has removed this WAL")
	// ErrNotOnPath: the WAL is of a timeline, or a part of one, that the
	// server's own history does not go through.
	ErrNotOnPath = errors.New("not in this server's history")
	// ErrEndsEarly: the segment is not whole there, and never will be (its
	// timeline ended in it), or not yet.
	ErrEndsEarly = errors.New("the segment is not whole on this server")
	// ErrSlot: the replication slot is missing, in use, or invalidated.
	ErrSlot = errors.New("the replication slot cannot be used")
	// ErrShutdown: the server ended the stream in order, because it stops.
	ErrShutdown = errors.New("the server is shutting down")
	// ErrProtocol: the server sent what no server sends.
	ErrProtocol = errors.New("unexpected answer")
	// ErrNoHistory: the server has no history file of that timeline.
	ErrNoHistory = fmt.Errorf("the server has no such history file: %w", fs.ErrNotExist)
)

// TimelineEnd says that the timeline of a stream has ended and all of it was
// received.
type TimelineEnd struct {
	Timeline pg.Timeline // that ended
	At       pg.LSN      // the switch point: the first byte of the next one
	Next     pg.Timeline
}

func (e *TimelineEnd) Error() string {
	return fmt.Sprintf("timeline %d ends at %s, where timeline %d begins", e.Timeline, e.At, e.Next)
}

// RemovedError says what of its WAL a server still has.
type RemovedError struct {
	Node string
	At   pg.LSN // what was asked for
	// Timeline that was asked for.
	Timeline pg.Timeline
	// Oldest and Newest segments that the server has, of that timeline if it
	// has any; "" if it did not say (that needs pg_monitor).
	Oldest, Newest pg.SegmentName
	Err            error // the server's own words
}

func (e *RemovedError) Error() string {
	s := fmt.Sprintf("%s has removed its WAL at %s of timeline %d", e.Node, e.At, e.Timeline)
	if e.Oldest != "" {
		s += fmt.Sprintf("; it still has %s to %s", e.Oldest, e.Newest)
	}
	return s
}

// Unwrap makes errors.Is(err, ErrRemoved) true.
func (e *RemovedError) Unwrap() []error { return []error{ErrRemoved, e.Err} }

// SQLSTATEs (errcodes.txt).
const (
	stateUndefinedFile  = "58P01" // the errno of a file that is not there
	stateUndefinedSlot  = "42704" // undefined_object
	stateSlotInUse      = "55006" // object_in_use
	stateSlotInvalid    = "55000" // object_not_in_prerequisite_state
	stateSlotWrongKind  = "22023" // invalid_parameter_value
	stateSlotFunctional = "0A000" // feature_not_supported
)

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
