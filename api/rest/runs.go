package rest

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walkeep/walkeep/api"
)

type listRunsInput struct {
	RepoQuery
	Kind  string `query:"kind" enum:"full,differential,incremental,expire,verify,repair" doc:"Only of this kind."`
	State string `query:"state" enum:"queued,running,done,failed,cancelled,lost" doc:"Only in this state."`
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"How many at most."`
	After string `query:"after" maxLength:"200" doc:"What \"next\" of the page before says."`
}

type runPath struct {
	ID string `path:"id" maxLength:"200" doc:"Of a run." example:"20261122-123000-repo1-incremental"`
}

// accepted is the answer to what began a run, or ends one.
type accepted struct {
	Location string `header:"Location" doc:"Where the run is."`
	Body     api.Run
}

func began(run api.Run) *accepted { return &accepted{Location: "/v1/runs/" + run.ID, Body: run} }

// runs registers what is about runs.
func (h *handler) runs(a huma.API) {
	register(h, a, operation{
		id: "list-runs", method: http.MethodGet, path: "/v1/runs", tag: "runs", role: api.Viewer,
		summary: "The runs", description: "Those under way and the last ones that ended, the newest first, in pages.",
		errors: []int{http.StatusNotFound},
	}, h.listRuns)
	register(h, a, operation{
		id: "get-run", method: http.MethodGet, path: "/v1/runs/{id}", tag: "runs", role: api.Viewer,
		summary: "One run", description: "With its progress.", errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *runPath) (*body[api.Run], error) {
		run, err := h.run(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return answer(run), nil
	})
	register(h, a, operation{
		id: "cancel-run", method: http.MethodPost, path: "/v1/runs/{id}/cancel", tag: "runs", role: api.Operator, status: http.StatusAccepted,
		summary: "End a run", description: "The run ends cleanly, which takes a moment: it is over when its state says so. A backup that was cancelled is not in the list of backups.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *runPath) (*accepted, error) {
		run, err := h.Service.Cancel(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return began(run), nil
	})
	h.events(a)
}

func (h *handler) listRuns(_ context.Context, in *listRunsInput) (*body[api.RunPage], error) {
	if _, err := h.repositories(in.RepoQuery); err != nil {
		return nil, err
	}
	list := h.Service.Snapshot().Runs
	if in.After != "" {
		i := slices.IndexFunc(list, func(r api.Run) bool { return r.ID == in.After })
		if i < 0 {
			return nil, invalid("query.after", "there is no such run any more; begin with the first page")
		}
		list = list[i+1:]
	}
	page := api.RunPage{Runs: []api.Run{}}
	for _, r := range list {
		if in.Repo != "" && r.Repo != in.Repo || in.Kind != "" && r.Kind != in.Kind || in.State != "" && string(r.State) != in.State {
			continue
		}
		if len(page.Runs) == in.Limit {
			page.Next = page.Runs[in.Limit-1].ID
			break
		}
		page.Runs = append(page.Runs, r)
	}
	return answer(page), nil
}

// run is one of the snapshot, or of the history.
func (h *handler) run(ctx context.Context, id string) (api.Run, error) {
	for _, r := range h.Service.Snapshot().Runs {
		if r.ID == id {
			return r, nil
		}
	}
	return h.Service.Run(ctx, id)
}
