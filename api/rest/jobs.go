package rest

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walkeep/walkeep/api"
)

type startBackupInput struct {
	Key  string `header:"Idempotency-Key" minLength:"1" maxLength:"200" doc:"Any text that was not used before. A request with the same text within a day starts nothing and gets the run of the first, so that it can be sent again when no answer came."`
	Body api.BackupRequest
}

type expireInput struct {
	RepoPath
	Body *struct {
		DryRun bool `json:"dry_run,omitempty" doc:"Plan only; nothing is removed."`
	}
}

type expireOutput struct {
	Status   int
	Location string `header:"Location" doc:"Where the run is, unless it was a dry run."`
	Body     api.Expiry
}

const (
	maxAnnotationKey   = 100
	maxAnnotationValue = 1000
)

// jobs registers what operators do.
func (h *handler) jobs(a huma.API) {
	conflict := []int{http.StatusNotFound, http.StatusConflict, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge}
	register(h, a, operation{
		id: "start-backup", method: http.MethodPost, path: "/v1/backups", tag: "backups", role: api.Operator, status: http.StatusAccepted,
		summary:     "Take a backup now",
		description: "The answer is the run, which is then under way or waits; follow it to know how it ends. There is one run of a repository at a time: another one is a conflict (busy).",
		errors:      append(conflict, http.StatusBadRequest),
	}, h.startBackup)
	register(h, a, operation{
		id: "expire", method: http.MethodPost, path: "/v1/repos/{repo}/expire", tag: "repositories", role: api.Operator, status: http.StatusAccepted,
		summary:     "Remove what retention does not keep",
		description: "The answer says for each backup whether it is kept, and why. With dry_run nothing is removed, no run begins and the status is 200.",
		errors:      append(conflict, http.StatusBadRequest),
	}, h.expire)
	register(h, a, operation{
		id: "verify", method: http.MethodPost, path: "/v1/repos/{repo}/verify", tag: "repositories", role: api.Operator, status: http.StatusAccepted,
		summary: "Read back what is stored, and check it", description: "Begins a run.", errors: conflict,
	}, func(ctx context.Context, in *RepoPath) (*accepted, error) {
		return h.begin(ctx, in.Repo, h.Service.Verify)
	})
	register(h, a, operation{
		id: "repair", method: http.MethodPost, path: "/v1/repos/{repo}/repair", tag: "wal", role: api.Operator, status: http.StatusAccepted,
		summary: "Fill gaps", description: "Begins a run that looks for missing WAL in the other repositories and on all nodes.", errors: conflict,
	}, func(ctx context.Context, in *RepoPath) (*accepted, error) {
		return h.begin(ctx, in.Repo, h.Service.Repair)
	})
	register(h, a, operation{
		id: "drill", method: http.MethodPost, path: "/v1/repos/{repo}/drill", tag: "restore", role: api.Operator, status: http.StatusAccepted,
		summary:     "Rehearse a restore",
		description: "Begins a run that restores to scratch space on the machine of the service, recovers, checks what comes out, and removes it.", errors: conflict,
	}, func(ctx context.Context, in *RepoPath) (*accepted, error) {
		return h.begin(ctx, in.Repo, h.Service.Drill)
	})
	h.pauses(a)
}

// pauses registers pause and resume, of one repository and of all.
func (h *handler) pauses(a huma.API) {
	for _, p := range []struct {
		name, does, more string
		paused           bool
	}{
		{"pause", "Keep scheduled runs from starting", "Runs under way go on, and so does the archiving of WAL. It lasts until resume, also when the service is started again.", true},
		{"resume", "Let scheduled runs start again", "A run that was missed meanwhile is caught up once.", false},
	} {
		register(h, a, operation{
			id: p.name + "-repository", method: http.MethodPost, path: "/v1/repos/{repo}/" + p.name, tag: "repositories", role: api.Operator,
			summary: p.does, description: p.more, errors: []int{http.StatusNotFound},
		}, func(ctx context.Context, in *RepoPath) (*body[api.PausedList], error) {
			if _, err := h.repository(in.Repo); err != nil {
				return nil, err
			}
			return h.pause(ctx, in.Repo, p.paused)
		})
		register(h, a, operation{
			id: p.name, method: http.MethodPost, path: "/v1/" + p.name, tag: "repositories", role: api.Operator,
			summary: p.does + ", in all repositories", description: p.more,
		}, func(ctx context.Context, _ *struct{}) (*body[api.PausedList], error) {
			return h.pause(ctx, "", p.paused)
		})
	}
}

func (h *handler) startBackup(ctx context.Context, in *startBackupInput) (*accepted, error) {
	for k, v := range in.Body.Annotations {
		if k == "" || len(k) > maxAnnotationKey || len(v) > maxAnnotationValue {
			return nil, invalid("body.annotations", fmt.Sprintf("a key of 1 to %d bytes and a value of at most %d", maxAnnotationKey, maxAnnotationValue))
		}
	}
	if _, err := h.repository(in.Body.Repo); err != nil {
		return nil, err
	}
	r := in.Body
	r.By, r.Key = api.IdentityOf(ctx).Name, in.Key
	run, err := h.Service.Backup(ctx, r)
	if err != nil {
		return nil, err
	}
	if run.Repo != r.Repo {
		return nil, invalid("header.Idempotency-Key", "it was used for a backup into "+run.Repo)
	}
	return began(run), nil
}

func (h *handler) expire(ctx context.Context, in *expireInput) (*expireOutput, error) {
	if _, err := h.repository(in.Repo); err != nil {
		return nil, err
	}
	e, err := h.Service.Expire(ctx, api.ExpireRequest{Repo: in.Repo, DryRun: in.Body != nil && in.Body.DryRun, By: api.IdentityOf(ctx).Name})
	if err != nil {
		return nil, err
	}
	e.Backups, e.WAL = some(e.Backups), some(e.WAL)
	out := &expireOutput{Status: http.StatusOK, Body: e}
	if e.Run != nil {
		out.Status, out.Location = http.StatusAccepted, "/v1/runs/"+e.Run.ID
	}
	return out, nil
}

func (h *handler) begin(ctx context.Context, repo string, start func(context.Context, string) (api.Run, error)) (*accepted, error) {
	if _, err := h.repository(repo); err != nil {
		return nil, err
	}
	run, err := start(ctx, repo)
	if err != nil {
		return nil, err
	}
	return began(run), nil
}

func (h *handler) pause(ctx context.Context, repo string, paused bool) (*body[api.PausedList], error) {
	if err := h.Service.Pause(ctx, repo, paused); err != nil {
		return nil, err
	}
	l := api.PausedList{Paused: []string{}}
	for _, r := range h.Service.Snapshot().Repos {
		if (repo == "" || r.Name == repo) && paused || repo != "" && r.Name != repo && r.Paused {
			l.Paused = append(l.Paused, r.Name)
		}
	}
	return answer(l), nil
}
