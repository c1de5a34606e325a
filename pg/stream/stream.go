package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

// Start says where a stream begins.
type Start struct {
	Timeline pg.Timeline
	// LSN may lie on an ancestor if its segment goes on on Timeline: then the
	// server sends Timeline's copy of that segment.
	LSN pg.LSN
	// Slot is a physical replication slot that exists on the server; "" = none.
	Slot string
}

// Message is what the server sent.
type Message struct {
	// Start is where Data belongs; of a keepalive, where the stream stands.
	Start pg.LSN
	// Data is valid until the next call of Next. Empty: a keepalive.
	Data []byte
	// ServerEnd is how far the server has WAL.
	ServerEnd pg.LSN
	// Sent is the server's clock.
	Sent time.Time
	// Asked: the server wants to know how far we are, now. It does so when it
	// has not heard of us for long, and when it is about to shut down.
	Asked bool
}

// Stream yields the WAL of one timeline. It is for one goroutine.
type Stream struct {
	c         *Conn
	timeline  pg.Timeline
	at        pg.LSN // the next byte
	confirmed pg.LSN // 0: not told
	told      pg.LSN // confirmed, as the server knows it
	slot      bool
	ended     error

	heard  time.Time // last message of the server
	asked  bool      // for a sign of life, since heard
	status time.Time // last status reply
}

// slotName is what the server accepts (ReplicationSlotValidateName).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Start begins to stream. Errors: ErrSlot, ErrNotOnPath, server.ErrConnectionLost;
// that WAL was removed is Next's to find out. *TimelineEnd: the timeline ended
// at or before the LSN. After a refusal the Conn takes commands again.
func (c *Conn) Start(ctx context.Context, at Start) (*Stream, error) {
	op := fmt.Sprintf("stream timeline %d from %s", at.Timeline, at.LSN)
	command := "START_REPLICATION"
	if at.Slot != "" {
		if !slotName.MatchString(at.Slot) {
			return nil, &server.Error{Op: op, Node: c.node, Err: fmt.Errorf("%w: %q is no name of a slot", ErrSlot, at.Slot)}
		}
		command += ` SLOT "` + at.Slot + `"`
	}
	if err := c.onPath(ctx, op, at); err != nil {
		return nil, err
	}
	command += fmt.Sprintf(" PHYSICAL %s TIMELINE %d", at.LSN, at.Timeline)
	if err := c.send(&pgproto3.Query{String: command}); err != nil {
		return nil, c.fail(ctx, op, err)
	}
	now := time.Now()
	s := &Stream{c: c, timeline: at.Timeline, at: at.LSN, slot: at.Slot != "", heard: now}
	for {
		m, err := c.pg.ReceiveMessage(ctx)
		if err != nil {
			return nil, c.fail(ctx, op, err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return s, nil
		case *pgproto3.RowDescription:
			// The timeline ended here already: no stream, only the next one.
			end, err := s.next(ctx)
			if err != nil {
				return nil, err
			}
			return nil, end
		case *pgproto3.ErrorResponse:
			err := s.refused(ctx, op, pgconn.ErrorResponseToPgError(m))
			return nil, errors.Join(err, c.settle(ctx, op))
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			return nil, c.protocol(op, fmt.Errorf("a %T", m))
		}
	}
}

// settle reads on after an error, to where the connection takes commands again.
func (c *Conn) settle(ctx context.Context, op string) error {
	for {
		m, err := c.pg.ReceiveMessage(ctx)
		if err != nil {
			return c.fail(ctx, op, err)
		}
		if _, ready := m.(*pgproto3.ReadyForQuery); ready {
			return nil
		}
	}
}

// onPath asks first what the server would otherwise refuse without a code that
// tells this from other errors.
func (c *Conn) onPath(ctx context.Context, op string, at Start) error {
	sys, err := c.Identify(ctx)
	if err != nil {
		return err
	}
	no := func(format string, args ...any) error {
		return &server.Error{Op: op, Node: c.node, Err: fmt.Errorf("%w: %s", ErrNotOnPath, fmt.Sprintf(format, args...))}
	}
	if at.Timeline == sys.Timeline {
		if at.LSN > sys.Flushed {
			return no("the server has WAL up to %s only", sys.Flushed)
		}
		return nil
	}
	history, err := c.Ancestry(ctx, sys.Timeline)
	if err != nil {
		return err
	}
	for _, e := range history.Entries {
		if e.Timeline == at.Timeline {
			if at.LSN > e.End {
				return no("it left timeline %d at %s", at.Timeline, e.End)
			}
			return nil
		}
	}
	return no("it is on timeline %d, which does not come from timeline %d", sys.Timeline, at.Timeline)
}

// refused gives an error of START_REPLICATION, or one in mid-stream, its
// meaning.
func (s *Stream) refused(ctx context.Context, op string, err error) error {
	switch state := sqlState(err); {
	case state == stateUndefinedFile:
		return s.c.removed(ctx, s.timeline, s.at, err)
	case s.slot && (state == stateUndefinedSlot || state == stateSlotInUse || state == stateSlotInvalid || state == stateSlotWrongKind || state == stateSlotFunctional):
		return &server.Error{
			Op: op, Node: s.c.node, Err: fmt.Errorf("%w: %w", ErrSlot, err),
			Advice: "A physical slot is made by: SELECT pg_create_physical_replication_slot('NAME', true). Under Patroni, name it in the dynamic configuration (slots: {NAME: {type: physical}}), or Patroni drops it.",
		}
	}
	return s.c.fail(ctx, op, err)
}

// removed asks the server, over a connection of its own, what it still has.
func (c *Conn) removed(ctx context.Context, t pg.Timeline, at pg.LSN, cause error) error {
	e := &RemovedError{Node: c.node, At: at, Timeline: t, Err: cause}
	conn, err := server.Connect(ctx, c.conninfo, c.opts.Log)
	if err != nil {
		return e
	}
	defer conn.Close(context.WithoutCancel(ctx))
	files, err := conn.WALFiles(ctx)
	if err != nil {
		return e
	}
	e.between(files)
	return e
}

// between finds the first and the last segment among files, which are in order.
func (e *RemovedError) between(files []string) {
	for _, sameTimeline := range []bool{true, false} {
		for _, f := range files {
			name, err := pg.ParseSegmentName(f)
			if err != nil || sameTimeline && name.Timeline() != e.Timeline {
				continue
			}
			if e.Oldest == "" {
				e.Oldest = name
			}
			e.Newest = name
		}
		if e.Oldest != "" {
			return
		}
	}
}

// Timeline is the stream's timeline.
func (s *Stream) Timeline() pg.Timeline { return s.timeline }

// At is the LSN of the next byte.
func (s *Stream) At() pg.LSN { return s.at }

// Confirm notes that all WAL before lsn is durable. The server is told with the
// next status, if there is a slot. It never goes back.
func (s *Stream) Confirm(lsn pg.LSN) {
	if s.slot && lsn > s.confirmed {
		s.confirmed = lsn
	}
}

// Next waits for the next message of the server. When ctx ends, its cause is
// returned and the stream is none the worse. *TimelineEnd: the end of the
// timeline; the Conn can start another. Every other error ends the stream for
// good: ErrRemoved, ErrShutdown, server.ErrConnectionLost, ErrProtocol.
func (s *Stream) Next(ctx context.Context) (Message, error) {
	if s.ended != nil {
		return Message{}, s.ended
	}
	m, err := s.receive(ctx)
	if err != nil && (ctx.Err() == nil || s.c.pg.IsClosed()) {
		s.ended = err
	}
	return m, err
}

func (s *Stream) receive(ctx context.Context) (Message, error) {
	op := fmt.Sprintf("stream timeline %d at %s", s.timeline, s.at)
	for {
		deadline, err := s.keepAlive()
		if err != nil {
			return Message{}, s.c.fail(ctx, op, err)
		}
		wait, cancel := context.WithDeadline(ctx, deadline)
		m, err := s.c.pg.ReceiveMessage(wait)
		timedOut := err != nil && wait.Err() != nil && ctx.Err() == nil && !s.c.pg.IsClosed()
		cancel()
		if timedOut {
			continue
		}
		if err != nil {
			return Message{}, s.c.fail(ctx, op, err)
		}
		s.heard, s.asked = time.Now(), false
		switch m := m.(type) {
		case *pgproto3.CopyData:
			return s.data(op, m.Data)
		case *pgproto3.CopyDone:
			if err := s.c.send(&pgproto3.CopyDone{}); err != nil {
				return Message{}, s.c.fail(ctx, op, err)
			}
			end, err := s.next(ctx)
			if err != nil {
				return Message{}, err
			}
			return Message{}, end
		case *pgproto3.CommandComplete:
			// walsender.c, WalSndDone: without CopyDone it is the shutdown.
			return Message{}, &server.Error{Op: op, Node: s.c.node, Err: fmt.Errorf("%w: %w", server.ErrConnectionLost, ErrShutdown)}
		case *pgproto3.ErrorResponse:
			return Message{}, s.refused(ctx, op, pgconn.ErrorResponseToPgError(m))
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			return Message{}, s.c.protocol(op, fmt.Errorf("a %T", m))
		}
	}
}

// keepAlive sends what is due and returns when to look again.
func (s *Stream) keepAlive() (time.Time, error) {
	now := time.Now()
	silent := now.Sub(s.heard)
	if silent >= s.c.opts.Silence {
		return now, fmt.Errorf("the server has said nothing for %s", silent.Round(time.Second))
	}
	if silent >= s.c.opts.Silence/2 && !s.asked {
		s.asked = true
		if err := s.reply(true); err != nil {
			return now, err
		}
	}
	if now.Sub(s.status) >= s.c.opts.Status || s.confirmed > s.told {
		if err := s.reply(false); err != nil {
			return now, err
		}
	}
	next := s.heard.Add(s.c.opts.Silence / 2)
	if s.asked {
		next = s.heard.Add(s.c.opts.Silence)
	}
	if due := s.status.Add(s.c.opts.Status); due.Before(next) {
		next = due
	}
	return next, nil
}

// Reply tells the server at once how far we are.
func (s *Stream) Reply() error {
	if s.ended != nil {
		return s.ended
	}
	if err := s.reply(false); err != nil {
		s.ended = s.c.fail(context.Background(), "reply", err)
	}
	return s.ended
}

// postgresEpoch is the zero of the protocol's clock.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// reply sends a standby status update: written, flushed, applied, clock, and
// whether the server is to answer at once.
func (s *Stream) reply(ask bool) error {
	b := make([]byte, 0, 34)
	b = append(b, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(s.at))
	b = binary.BigEndian.AppendUint64(b, uint64(s.confirmed))
	b = binary.BigEndian.AppendUint64(b, 0)
	now := time.Now()
	b = binary.BigEndian.AppendUint64(b, uint64(now.Sub(postgresEpoch).Microseconds()))
	if ask {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	s.status, s.told = now, s.confirmed
	return s.c.send(&pgproto3.CopyData{Data: b})
}

// data takes a message of the stream. A hole between two would be a hole in a
// segment: better no stream.
func (s *Stream) data(op string, b []byte) (Message, error) {
	m, err := parseMessage(b)
	if err != nil {
		return Message{}, s.c.protocol(op, err)
	}
	if len(m.Data) == 0 {
		m.Start = s.at
		if m.Asked && !s.slot {
			// With a slot the caller may want to make something durable first.
			return m, s.Reply()
		}
		return m, nil
	}
	if m.Start != s.at {
		return Message{}, s.c.protocol(op, fmt.Errorf("WAL of %s where %s was expected", m.Start, s.at))
	}
	s.at += pg.LSN(len(m.Data))
	return m, nil
}

// parseMessage reads the inside of a CopyData message.
func parseMessage(b []byte) (Message, error) {
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[i:]) }
	switch {
	case len(b) > 25 && b[0] == 'w':
		m := Message{Start: pg.LSN(at(1)), ServerEnd: pg.LSN(at(9)), Sent: clock(at(17)), Data: b[25:]}
		if m.Start+pg.LSN(len(m.Data)) < m.Start {
			return Message{}, errors.New("WAL beyond the last LSN")
		}
		return m, nil
	case len(b) == 18 && b[0] == 'k':
		return Message{ServerEnd: pg.LSN(at(1)), Sent: clock(at(9)), Asked: b[17] != 0}, nil
	case len(b) == 0:
		return Message{}, errors.New("an empty message")
	}
	return Message{}, fmt.Errorf("a message of kind %q with %d bytes", b[0], len(b))
}

// clock reads a time of the protocol: microseconds since 2000.
func clock(us uint64) time.Time {
	return postgresEpoch.Add(time.Duration(int64(us)) * time.Microsecond)
}

// next reads the result that follows the end of a timeline's stream, to where
// the connection takes commands again.
func (s *Stream) next(ctx context.Context) (*TimelineEnd, error) {
	op := fmt.Sprintf("read what follows timeline %d", s.timeline)
	end := &TimelineEnd{Timeline: s.timeline}
	for {
		m, err := s.c.pg.ReceiveMessage(ctx)
		if err != nil {
			return nil, s.c.fail(ctx, op, err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			if len(m.Values) != 2 {
				return nil, s.c.protocol(op, fmt.Errorf("a row of %d columns", len(m.Values)))
			}
			if end.Next, err = parseTimeline(string(m.Values[0])); err == nil {
				end.At, err = pg.ParseLSN(string(m.Values[1]))
			}
			if err != nil {
				return nil, s.c.protocol(op, err)
			}
		case *pgproto3.ReadyForQuery:
			if end.Next == 0 {
				return nil, s.c.protocol(op, errors.New("no next timeline"))
			}
			return end, nil
		case *pgproto3.ErrorResponse:
			return nil, s.c.fail(ctx, op, pgconn.ErrorResponseToPgError(m))
		case *pgproto3.CommandComplete, *pgproto3.RowDescription, *pgproto3.CopyDone, *pgproto3.NoticeResponse, *pgproto3.ParameterStatus, *pgproto3.CopyData:
		default:
			return nil, s.c.protocol(op, fmt.Errorf("a %T", m))
		}
	}
}
