package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/walkeep/walkeep/api"
)

// silence is how long a stream may say nothing: three times as long as the
// service lets pass.
const silence = 45 * time.Second

// Follow calls fn (which may be nil) with each news of a run, and returns the
// run when it has ended. A service that goes away, is started again or replaced
// by another one is asked again, as long as Options.Patience says.
func (c *Client) Follow(ctx context.Context, id string, fn func(api.Run)) (api.Run, error) {
	lost := time.Time{}
	for {
		run, heard, err := c.listen(ctx, id, fn)
		f := (*api.Fault)(nil)
		switch {
		case err == nil:
			return run, nil
		case ctx.Err() != nil:
			return run, context.Cause(ctx)
		case errors.As(err, &f) && f.Status != http.StatusServiceUnavailable && f.Status != http.StatusBadGateway && f.Status != http.StatusTooManyRequests:
			return run, err
		case heard || lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > c.opts.Patience:
			return run, fmt.Errorf("follow run %s: %w", id, err)
		}
		sleep(ctx, time.Second)
	}
}

// listen follows one stream. heard: something came.
func (c *Client) listen(ctx context.Context, id string, fn func(api.Run)) (run api.Run, heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	resp, err := c.do(ctx, request{method: http.MethodGet, path: runPath(id) + "/events"})
	if err != nil {
		return run, false, err
	}
	defer resp.Body.Close()
	run, err = readEvents(resp.Body, func() { quiet.Reset(silence); heard = true }, fn)
	return run, heard, err
}

// readEvents reads a stream to the event of a run that has ended. alive is
// called for every line.
func readEvents(stream io.Reader, alive func(), fn func(api.Run)) (api.Run, error) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		alive()
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var run api.Run
		if err := json.Unmarshal([]byte(data), &run); err != nil {
			return run, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		if fn != nil {
			fn(run)
		}
		if run.Final() {
			return run, nil
		}
	}
	err := lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return api.Run{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
}
