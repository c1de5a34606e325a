package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// Health asks whether all is well.
func (c *Client) Health(ctx context.Context) (api.Health, error) {
	return get[api.Health](ctx, c, "/v1/health", nil)
}

// Snapshot asks for all that the service knows.
func (c *Client) Snapshot(ctx context.Context) (api.Snapshot, error) {
	return get[api.Snapshot](ctx, c, "/v1/snapshot", nil)
}

// Repositories asks for the repositories, in the order of the configuration.
func (c *Client) Repositories(ctx context.Context) ([]api.RepositoryState, error) {
	l, err := get[api.RepositoryList](ctx, c, "/v1/repos", nil)
	return l.Repos, err
}

// BackupQuery chooses backups; zero values choose all.
type BackupQuery struct {
	Repo         string
	Type         repo.BackupType
	Since, Until time.Time
	Annotation   string // KEY or KEY=VALUE
}

// maxPage is how many the service puts on one page at most.
const maxPage = 10000

// Backups asks for the backups, the newest first, all pages.
func (c *Client) Backups(ctx context.Context, q BackupQuery) (all []api.ListedBackup, err error) {
	v := url.Values{"limit": {strconv.Itoa(maxPage)}}
	set(v, "repo", q.Repo)
	set(v, "type", string(q.Type))
	set(v, "annotation", q.Annotation)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.Format(time.RFC3339Nano))
	}
	for {
		page, err := get[api.BackupPage](ctx, c, "/v1/backups", v)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Backups...)
		if page.Next == "" {
			return all, nil
		}
		v.Set("after", page.Next)
	}
}

func set(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}

// Backup asks for one backup. api.ErrNotFound.
func (c *Client) Backup(ctx context.Context, repo string, label repo.Label) (api.BackupDetails, error) {
	return get[api.BackupDetails](ctx, c, "/v1/repos/"+url.PathEscape(repo)+"/backups/"+url.PathEscape(string(label)), nil)
}

// Contents asks what a backup holds. api.ErrNotFound, repo.ErrIntegrity.
func (c *Client) Contents(ctx context.Context, repo string, label repo.Label) (api.BackupContents, error) {
	return get[api.BackupContents](ctx, c, "/v1/repos/"+url.PathEscape(repo)+"/backups/"+url.PathEscape(string(label))+"/contents", nil)
}

// RunQuery chooses runs; zero values choose all.
type RunQuery struct {
	Repo, Kind string
	State      api.RunState
	Limit      int // 0 = 100
}

// Runs asks for the runs, the newest first.
func (c *Client) Runs(ctx context.Context, q RunQuery) ([]api.Run, error) {
	v := url.Values{}
	set(v, "repo", q.Repo)
	set(v, "kind", q.Kind)
	set(v, "state", string(q.State))
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	page, err := get[api.RunPage](ctx, c, "/v1/runs", v)
	return page.Runs, err
}

func runPath(id string) string { return "/v1/runs/" + url.PathEscape(id) }

// Run asks for one run. api.ErrNotFound.
func (c *Client) Run(ctx context.Context, id string) (api.Run, error) {
	return get[api.Run](ctx, c, runPath(id), nil)
}

// Cancel ends a run; it is over when Run or Follow says so. api.ErrNotFound,
// api.ErrNotRunning.
func (c *Client) Cancel(ctx context.Context, id string) (api.Run, error) {
	return post[api.Run](ctx, c, runPath(id)+"/cancel", nil)
}

// StartBackup begins a backup, once, however often it must be asked. api.ErrBusy,
// api.ErrPaused.
func (c *Client) StartBackup(ctx context.Context, r api.BackupRequest) (api.Run, error) {
	return again[api.Run](ctx, c, request{method: http.MethodPost, path: "/v1/backups", body: r, key: r.Key})
}

// Expire removes what retention does not keep, or says what it would.
func (c *Client) Expire(ctx context.Context, repo string, dryRun bool) (api.Expiry, error) {
	return post[api.Expiry](ctx, c, "/v1/repos/"+url.PathEscape(repo)+"/expire", struct {
		DryRun bool `json:"dry_run"`
	}{dryRun})
}

// Verify begins a verification.
func (c *Client) Verify(ctx context.Context, repo string) (api.Run, error) {
	return post[api.Run](ctx, c, "/v1/repos/"+url.PathEscape(repo)+"/verify", nil)
}

// Repair begins the repair of gaps.
func (c *Client) Repair(ctx context.Context, repo string) (api.Run, error) {
	return post[api.Run](ctx, c, "/v1/repos/"+url.PathEscape(repo)+"/repair", nil)
}

// Drill begins a rehearsal of a restore.
func (c *Client) Drill(ctx context.Context, repo string) (api.Run, error) {
	return post[api.Run](ctx, c, "/v1/repos/"+url.PathEscape(repo)+"/drill", nil)
}

// Pause keeps scheduled runs of a repository ("" for all) from starting, or
// lets them start again. It returns all repositories that are paused then.
func (c *Client) Pause(ctx context.Context, repo string, paused bool) ([]string, error) {
	path := "/v1/"
	if repo != "" {
		path += "repos/" + url.PathEscape(repo) + "/"
	}
	if paused {
		path += "pause"
	} else {
		path += "resume"
	}
	l, err := post[api.PausedList](ctx, c, path, nil)
	return l.Paused, err
}

// Coverage asks for the archived WAL of a repository, or of all ("").
func (c *Client) Coverage(ctx context.Context, repo string) ([]api.Coverage, error) {
	v := url.Values{}
	set(v, "repo", repo)
	l, err := get[api.CoverageList](ctx, c, "/v1/wal", v)
	return l.Repos, err
}

// Windows asks for the recovery windows of a repository, or of all ("").
func (c *Client) Windows(ctx context.Context, repo string) ([]api.RecoveryWindow, error) {
	v := url.Values{}
	set(v, "repo", repo)
	l, err := get[api.WindowList](ctx, c, "/v1/windows", v)
	return l.Windows, err
}

// CanRestore asks whether a moment can be restored.
func (c *Client) CanRestore(ctx context.Context, q api.RestoreQuestion) (api.RestoreAnswer, error) {
	v := url.Values{"at": {q.At.Format(time.RFC3339Nano)}}
	set(v, "repo", q.Repo)
	return get[api.RestoreAnswer](ctx, c, "/v1/can-restore", v)
}
