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
)

// working is a service in memory whose runs come to their end.
type working struct {
	*apitest.Service
	ctx context.Context
	all *sync.WaitGroup
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
		w.all.Go(func() { w.work(run.ID, "") })
	}
	return run, err
}

func (w working) Expire(ctx context.Context, r api.ExpireRequest) (api.Expiry, error) {
	e, err := w.Service.Expire(ctx, r)
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
				if how == "fail" {
					r.State, r.Label, r.Error = api.Failed, "", "read pg_control: no such file"
				}
			}
		})
	}
}

// startService starts a service that shows the sample, and puts its address and
// files with tokens into the environment: SERVER, operators, viewers.
func startService(ts *testscript.TestScript, _ bool, _ []string) {
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
	h, err := rest.New(rest.Options{
		Service:        working{apitest.New(sample, nil), ctx, all},
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
