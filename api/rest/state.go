package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walkeep/walkeep/api"
)

// body is an answer.
type body[T any] struct{ Body T }

func answer[T any](v T) *body[T] { return &body[T]{v} }

// RepoPath is a path with a repository. It is exported because huma finds only
// such fields in what embeds it.
type RepoPath struct {
	Repo string `path:"repo" maxLength:"63" doc:"Name of a repository." example:"repo1"`
}

// RepoQuery is a query that can be about one repository; exported as RepoPath is.
type RepoQuery struct {
	Repo string `query:"repo" maxLength:"63" doc:"Only of this repository."`
}

// notFound says that there is no such repository.
func notFound(name string) error {
	return fmt.Errorf("repository %q: %w", name, api.ErrNotFound)
}

// repository finds one in the snapshot.
func (h *handler) repository(name string) (*api.Repository, error) {
	s := h.Service.Snapshot()
	for i := range s.Repos {
		if s.Repos[i].Name == name {
			return &s.Repos[i], nil
		}
	}
	return nil, notFound(name)
}

// repositories are all of the snapshot, or the one that a query asks for.
func (h *handler) repositories(q RepoQuery) ([]api.Repository, error) {
	if q.Repo == "" {
		return h.Service.Snapshot().Repos, nil
	}
	r, err := h.repository(q.Repo)
	if err != nil {
		return nil, err
	}
	return []api.Repository{*r}, nil
}

// some is the list, or an empty one, so that JSON has no null.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// state registers what is told of the cluster and its repositories.
func (h *handler) state(a huma.API) {
	register(h, a, operation{
		id: "get-health", method: http.MethodGet, path: "/v1/health", tag: "state", role: api.Viewer,
		summary:     "Is all well?",
		description: "The level is that of the worst problem: ok, warning or critical. The status is 200 in any case; /healthz and /readyz are for probes.",
	}, h.health)
	register(h, a, operation{
		id: "get-snapshot", method: http.MethodGet, path: "/v1/snapshot", tag: "state", role: api.Viewer,
		summary:     "All that the service knows",
		description: "Nodes, repositories with backups and WAL, runs and the schedule, as they were at one moment. It is large where there are many backups.",
	}, h.wholeSnapshot)
	register(h, a, operation{
		id: "list-nodes", method: http.MethodGet, path: "/v1/nodes", tag: "state", role: api.Viewer,
		summary: "The servers of the cluster", description: "With what their agents have to archive.",
	}, func(context.Context, *struct{}) (*body[api.NodeList], error) {
		return answer(api.NodeList{Nodes: some(h.Service.Snapshot().Nodes)}), nil
	})
	register(h, a, operation{
		id: "list-scheduled", method: http.MethodGet, path: "/v1/schedule", tag: "runs", role: api.Viewer,
		summary: "The next scheduled runs", description: "The soonest first.",
	}, func(context.Context, *struct{}) (*body[api.NextRunList], error) {
		return answer(api.NextRunList{Next: some(h.Service.Snapshot().Next)}), nil
	})
	register(h, a, operation{
		id: "list-repositories", method: http.MethodGet, path: "/v1/repos", tag: "repositories", role: api.Viewer,
		summary: "The repositories", description: "In the order of the configuration, without the lists of what they hold.",
	}, h.listRepositories)
	register(h, a, operation{
		id: "get-repository", method: http.MethodGet, path: "/v1/repos/{repo}", tag: "repositories", role: api.Viewer,
		summary: "One repository", description: "Without the lists of what it holds.", errors: []int{http.StatusNotFound},
	}, func(_ context.Context, in *RepoPath) (*body[api.RepositoryState], error) {
		r, err := h.repository(in.Repo)
		if err != nil {
			return nil, err
		}
		return answer(r.State()), nil
	})
	h.walState(a)
}

// walState registers what is told of WAL and of what can be restored.
func (h *handler) walState(a huma.API) {
	register(h, a, operation{
		id: "get-coverage", method: http.MethodGet, path: "/v1/wal", tag: "wal", role: api.Viewer,
		summary:     "The WAL that is archived",
		description: "For each repository the runs of WAL without a hole, by timeline, the gaps, and how far it is behind the cluster.",
		errors:      []int{http.StatusNotFound},
	}, h.coverage)
	register(h, a, operation{
		id: "list-gaps", method: http.MethodGet, path: "/v1/gaps", tag: "wal", role: api.Viewer,
		summary:     "The WAL that is needed and not there",
		description: "With the nearest moments that can be restored before and behind each gap.", errors: []int{http.StatusNotFound},
	}, h.gaps)
	register(h, a, operation{
		id: "list-windows", method: http.MethodGet, path: "/v1/windows", tag: "restore", role: api.Viewer,
		summary: "The recovery windows", description: "Every moment of a window can be restored.", errors: []int{http.StatusNotFound},
	}, h.windows)
	register(h, a, operation{
		id: "can-restore", method: http.MethodGet, path: "/v1/can-restore", tag: "restore", role: api.Viewer,
		summary:     "Can I restore to this moment?",
		description: "If so, from which backups of which repositories, with the command; if not, why, and which moments near it can be restored.",
		errors:      []int{http.StatusNotFound},
	}, h.canRestore)
}

func (h *handler) health(context.Context, *struct{}) (*body[api.Health], error) {
	s := h.Service.Snapshot()
	return answer(api.Health{
		Cluster: s.Cluster, Version: s.Version, At: s.At, Level: s.Level, Leader: s.Leader, Leading: s.Leading, Problems: some(s.Problems),
	}), nil
}

func (h *handler) wholeSnapshot(context.Context, *struct{}) (*body[api.Snapshot], error) {
	s := *h.Service.Snapshot()
	s.Problems, s.Nodes, s.Runs, s.Next = some(s.Problems), some(s.Nodes), some(s.Runs), some(s.Next)
	s.Repos = slices.Clone(some(s.Repos))
	for i := range s.Repos {
		r := &s.Repos[i]
		r.Backups, r.Timelines, r.Gaps, r.Conflicts, r.Windows = some(r.Backups), some(r.Timelines), some(r.Gaps), some(r.Conflicts), some(r.Windows)
		if r.Schedules == nil {
			r.Schedules = map[string]string{}
		}
	}
	return answer(s), nil
}

func (h *handler) listRepositories(context.Context, *struct{}) (*body[api.RepositoryList], error) {
	l := api.RepositoryList{Repos: []api.RepositoryState{}}
	for _, r := range h.Service.Snapshot().Repos {
		l.Repos = append(l.Repos, r.State())
	}
	return answer(l), nil
}

func (h *handler) coverage(_ context.Context, in *RepoQuery) (*body[api.CoverageList], error) {
	repos, err := h.repositories(*in)
	if err != nil {
		return nil, err
	}
	l := api.CoverageList{Repos: []api.Coverage{}}
	for _, r := range repos {
		l.Repos = append(l.Repos, api.Coverage{
			Repo: r.Name, Timelines: some(r.Timelines), Gaps: some(r.Gaps), Conflicts: some(r.Conflicts),
			MissingHistories: r.MissingHistories, Behind: r.Behind, BehindSince: r.BehindSince,
		})
	}
	return answer(l), nil
}

func (h *handler) gaps(_ context.Context, in *RepoQuery) (*body[api.GapList], error) {
	repos, err := h.repositories(*in)
	if err != nil {
		return nil, err
	}
	l := api.GapList{Gaps: []api.RepositoryGap{}}
	for _, r := range repos {
		for _, g := range r.Gaps {
			l.Gaps = append(l.Gaps, api.RepositoryGap{Repo: r.Name, Gap: g})
		}
	}
	return answer(l), nil
}

func (h *handler) windows(_ context.Context, in *RepoQuery) (*body[api.WindowList], error) {
	repos, err := h.repositories(*in)
	if err != nil {
		return nil, err
	}
	l := api.WindowList{Windows: []api.RecoveryWindow{}}
	for _, r := range repos {
		for _, w := range r.Windows {
			l.Windows = append(l.Windows, api.RecoveryWindow{
				Repo: r.Name, Timeline: w.Timeline, Earliest: w.Earliest, Latest: w.Latest, From: w.From, To: w.To, Gap: w.Gap,
				Backups: some(w.Backups), Partial: w.Partial,
			})
		}
	}
	return answer(l), nil
}

type canRestoreInput struct {
	RepoQuery
	At string `query:"at" required:"true" maxLength:"64" doc:"The moment, RFC 3339." example:"2026-11-22T12:00:00Z"`
}

func (h *handler) canRestore(ctx context.Context, in *canRestoreInput) (*body[api.RestoreAnswer], error) {
	at, err := moment(in.At)
	if err != nil {
		return nil, invalid("query.at", err.Error())
	}
	if _, err := h.repositories(in.RepoQuery); err != nil {
		return nil, err
	}
	a, err := h.Service.CanRestore(ctx, api.RestoreQuestion{Repo: in.Repo, At: at})
	if err != nil {
		return nil, err
	}
	a.Ways = some(a.Ways)
	return answer(a), nil
}

// moment reads RFC 3339, also where a + of the offset was not escaped in the
// query and became a space.
func moment(s string) (time.Time, error) {
	if i := strings.LastIndexByte(s, ' '); i > len("2006-01-02") {
		s = s[:i] + "+" + s[i+1:]
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("expected a moment such as 2026-11-22T12:00:00Z or 2026-11-22T13:00:00%%2B01:00")
	}
	return t, nil
}
