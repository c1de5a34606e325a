package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/api/apitest"
	"github.com/walkeep/walkeep/api/rest"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/verify"
)

// working is a service in memory whose runs come to their end.
type working struct {
	*apitest.Service
	ctx context.Context
	all *sync.WaitGroup
	// damaged: repo2 is.
	damaged bool
}

// lost is what is damaged.
const lost = "7569321407812345678/backup/20261122-010000F/pack/00000000"

func (w working) Contents(ctx context.Context, name string, label repo.Label) (api.BackupContents, error) {
	if w.damaged && name == "repo2" {
		return api.BackupContents{}, &repo.DamageError{Key: lost, Why: "it is missing"}
	}
	return w.Service.Contents(ctx, name, label)
}

func (w working) Backup(ctx context.Context, r api.BackupRequest) (api.Run, error) {
	run, err := w.Service.Backup(ctx, r)
	if err == nil && r.Annotations["how"] != "endless" {
		w.all.Go(func() { w.work(run.ID, r.Annotations["how"]) })
	}
	return run, err
}

func (w working) Verify(ctx context.Context, repo string) (api.Run, error) {
	run, err := w.Service.Verify(ctx, repo)
	if err == nil {
		how := "verify"
		if w.damaged && repo == "repo2" {
			how = "damage"
		}
		w.all.Go(func() { w.work(run.ID, how) })
	}
	return run, err
}

func (w working) Repair(ctx context.Context, repo string) (api.Run, error) {
	run, err := w.Service.Repair(ctx, repo)
	if err == nil {
		w.all.Go(func() { w.work(run.ID, "") })
	}
	return run, err
}

func (w working) Expire(ctx context.Context, r api.ExpireRequest) (api.Expiry, error) {
	e, err := w.Service.Expire(ctx, r)
	if w.damaged && r.Repo == "repo2" {
		e.Damage = lost + ": it is missing"
	}
	if err == nil && e.Run != nil {
		w.all.Go(func() { w.work(e.Run.ID, "") })
	}
	return e, err
}

// work makes a run go on, and end as it was told.
func (w working) work(id, how string) {
	for i := range 4 {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		w.UpdateRun(id, func(r *api.Run) {
			r.CopiedBytes = r.TotalBytes * int64(i) / 3
			if i == 3 {
				r.State, r.Ended = api.Done, time.Now()
				if r.TotalBytes > 0 {
					r.Label = "20261122-123456F"
				}
				report := verify.Report{Level: verify.Stored, Backups: 8, Packs: 8, Segments: 395, Problems: []verify.Problem{}}
				switch how {
				case "fail":
					r.State, r.Label, r.Error = api.Failed, "", "read pg_control: no such file"
				case "damage":
					report.Problems = []verify.Problem{{Object: lost, What: "it is missing", Backup: "20261122-010000F"}}
					r.State, r.Damage, r.Error = api.Failed, true, "verify repo2: 1 problems"
					fallthrough
				case "verify":
					r.Report = report.Lines()
				}
			}
		})
	}
}

// startService starts a service that shows the sample, and puts its address and
// files with tokens into the environment: SERVER, operators, viewers. With the
// argument damaged, repo2 is.
func startService(ts *testscript.TestScript, _ bool, args []string) {
	damaged := len(args) > 0 && args[0] == "damaged"
	ts.Check(os.WriteFile(ts.MkAbs("operators"), []byte("the operator's token, which is long\n"), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("viewers"), []byte("the viewer's token, which is long\n"), 0o600))
	operators, err := rest.NewTokens(ts.MkAbs("operators"), api.Operator, nil)
	ts.Check(err)
	viewers, err := rest.NewTokens(ts.MkAbs("viewers"), api.Viewer, nil)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	all := &sync.WaitGroup{}
	sample := apitest.Sample()
	sample.TimeZone = "UTC"
	if damaged {
		sample.Repos[1].Damaged, sample.Repos[1].Error, sample.Repos[1].Gaps = true, lost+": it is missing", []api.Gap{}
	}
	h, err := rest.New(rest.Options{
		Service:        working{apitest.New(sample, nil), ctx, all, damaged},
		Authenticators: []api.Authenticator{operators, viewers},
	})
	ts.Check(err)
	s, err := rest.NewServer(rest.ServerOptions{Listen: "127.0.0.1:0", Handler: h})
	ts.Check(err)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ts.Setenv("SERVER", s.URL())
	ts.Defer(func() {
		cancel()
		if err := errors.Join(<-done); err != nil {
			ts.Logf("service: %v", err)
		}
		all.Wait()
	})
}
