package stream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/server"
)

// Segment streams one whole segment into w. The Conn is spent afterwards: close
// it. Errors besides those of Start and Next: ErrEndsEarly (what w got then is
// worth nothing), and those of w.
func (c *Conn) Segment(ctx context.Context, name pg.SegmentName, w io.Writer) error {
	op := fmt.Sprintf("stream segment %s", name)
	size, err := c.SegmentSize(ctx)
	if err != nil {
		return err
	}
	n, err := name.Number(size)
	if err != nil {
		return &server.Error{Op: op, Node: c.node, Err: err}
	}
	start := size.Start(n)
	end := start + pg.LSN(size)
	early := func(at pg.LSN) error {
		return &server.Error{Op: op, Node: c.node, Err: fmt.Errorf("%w: it goes up to %s", ErrEndsEarly, at)}
	}
	sys, err := c.Identify(ctx)
	switch {
	case err != nil:
		return err
	case sys.Timeline == name.Timeline() && sys.Flushed < end:
		return early(sys.Flushed) // the server would make us wait for the rest
	}
	s, err := c.Start(ctx, Start{Timeline: name.Timeline(), LSN: start})
	for err == nil && s.At() < end {
		var m Message
		if m, err = s.Next(ctx); err != nil {
			break
		}
		if over := s.At(); over > end {
			m.Data = m.Data[:len(m.Data)-int(over-end)]
		}
		if len(m.Data) > 0 {
			_, err = w.Write(m.Data)
		}
	}
	if e := (*TimelineEnd)(nil); errors.As(err, &e) {
		return early(e.At)
	}
	return err
}
