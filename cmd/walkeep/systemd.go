package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/agent"
)

// tellSystemd tells systemd that we are ready, how we are, that we live (the
// watchdog, as often as it wants to know twice over), and that we stop when ctx
// ends. Without systemd it does nothing.
//
// status is a line for `systemctl status`. It must go through the locks of what
// runs: a process whose status cannot be told is not told to live, and is
// killed by the watchdog. It must not wait for a repository or a server.
func (r *root) tellSystemd(ctx context.Context, status func() string) {
	tell := func(state string) bool {
		there, err := daemon.SdNotify(false, state)
		if err != nil {
			r.logger().Warn("systemd cannot be told", zap.Error(err))
		}
		return there && err == nil
	}
	last := status()
	if !tell(daemon.SdNotifyReady + "\nSTATUS=" + last) {
		return
	}
	defer tell(daemon.SdNotifyStopping)
	every := 10 * time.Second
	timeout, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		r.logger().Warn("the watchdog of systemd is not known", zap.Error(err))
	}
	if timeout > 0 {
		every = min(every, timeout/2)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		state := ""
		if now := status(); now != last {
			state, last = "STATUS="+now, now
		}
		if timeout > 0 {
			state += "\n" + daemon.SdNotifyWatchdog
		}
		if state != "" {
			tell(state)
		}
	}
}

// agentStatus is the line that `systemctl status` shows of an agent.
func agentStatus(a *agent.Agent) string {
	if a == nil {
		return "streaming"
	}
	s := a.Status()
	if s.Trouble != "" {
		return s.Trouble
	}
	for _, q := range s.Repos {
		if !q.Healthy {
			return fmt.Sprintf("%s: %d files wait: %s", q.Name, q.Waiting, q.Error)
		}
	}
	return "archiving"
}
