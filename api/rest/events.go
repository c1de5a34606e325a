package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/walkeep/walkeep/api"
)

// events registers the stream of a run.
func (h *handler) events(a huma.API) {
	o := operation{
		id: "follow-run", method: http.MethodGet, path: "/v1/runs/{id}/events", tag: "runs", role: api.Viewer, stream: true,
		summary: "Follow a run",
		description: "Server-sent events: \"progress\" with the run whenever it changed, at most twice a second, and \"end\" with the run when it has ended, " +
			"which is the last one. Every event has the whole run: whoever was cut off asks again and has missed nothing.",
		errors: []int{http.StatusNotFound},
	}
	register(h, a, o, func(ctx context.Context, in *runPath) (*huma.StreamResponse, error) {
		first, err := h.run(ctx, in.ID)
		if err != nil {
			return nil, faultFor(err)
		}
		return &huma.StreamResponse{Body: func(c huma.Context) {
			_, w := humago.Unwrap(c)
			h.follow(c.Context(), w, first)
		}}, nil
	})
	a.OpenAPI().Paths[o.path].Get.Responses["200"] = &huma.Response{
		Description: "Events until the run has ended.",
		Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{
			Type: huma.TypeString, Description: "Lines \"event: progress\" or \"event: end\", and \"data: \" with a Run as JSON.",
		}}},
	}
}

// follow sends a run until it has ended, or the client is gone.
func (h *handler) follow(ctx context.Context, w http.ResponseWriter, run api.Run) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that waits for more would show nothing
	rc := http.NewResponseController(w)
	// The server's deadline is for reading the request; it would end the stream.
	_ = rc.SetReadDeadline(time.Time{}) // a recorder in a test has none
	var sent []byte
	for {
		b, err := json.Marshal(run)
		if err != nil {
			return
		}
		event := ": still there\n\n"
		if !bytes.Equal(b, sent) {
			name := "progress"
			if run.Final() {
				name = "end"
			}
			event, sent = fmt.Sprintf("event: %s\ndata: %s\n\n", name, b), b
		}
		if _, err := fmt.Fprint(w, event); err != nil || rc.Flush() != nil || run.Final() {
			return
		}
		if !wait(ctx, nil, minInterval) {
			return
		}
		if run, err = h.news(ctx, run); err != nil {
			return // it is asked for again
		}
	}
}

// news waits until a run is another than it was, or a while.
func (h *handler) news(ctx context.Context, was api.Run) (api.Run, error) {
	end := time.Now().Add(keepAlive)
	for {
		changed := h.Service.Changed() // before the snapshot, so that nothing is missed
		run, err := h.run(ctx, was.ID)
		if err != nil || !same(run, was) || !wait(ctx, changed, time.Until(end)) || !time.Now().Before(end) {
			return run, err
		}
	}
}

// same compares what a client is sent of a run.
func same(a, b api.Run) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// wait waits for that long, or until sooner is closed. false: ctx has ended.
func wait(ctx context.Context, sooner <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-sooner:
	case <-t.C:
	}
	return true
}
