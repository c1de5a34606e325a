package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/walkeep/walkeep/integration/patroni"
)

// mainFault is what makes another node lead.
type mainFault string

const (
	powerFailure mainFault = "power failure" // of the leader's machine
	killBoth     mainFault = "kill -9 PG+Patroni"
	killPostgres mainFault = "kill -9 PG"
	cutLeader    mainFault = "leader cut off"
	switchover   mainFault = "switchover"
)

// sideFault is what goes wrong beside it, from a moment before.
type sideFault string

const (
	slowArchiver sideFault = "slow archiver"
	s3Down       sideFault = "S3 killed"
	dirAway      sideFault = "directory away"
	agentsKilled sideFault = "agents killed"
	replicaCut   sideFault = "replica cut off"
)

// roundPlan is all that chance decides about a round.
type roundPlan struct {
	main   mainFault
	side   []sideFault
	rewind bool
	before time.Duration // writing, with the side faults there
	after  time.Duration // writing on the new leader before all is healed
	victim int           // which replica, for replicaCut
}

// planRounds draws the rounds. The kinds of failover take turns in random
// order, so that a few rounds have seen most of them.
func planRounds(seed uint64, n int, agent bool) []roundPlan {
	r := rand.New(rand.NewPCG(seed, 1))
	var deck []mainFault
	plans := make([]roundPlan, n)
	rewind := r.IntN(2) == 0
	for i := range plans {
		if len(deck) == 0 {
			deck = []mainFault{powerFailure, killBoth, cutLeader, killPostgres, switchover}
			r.Shuffle(len(deck), func(a, b int) { deck[a], deck[b] = deck[b], deck[a] })
		}
		p := roundPlan{
			main: deck[0], rewind: rewind, victim: r.IntN(2),
			before: 2*time.Second + time.Duration(r.IntN(3000))*time.Millisecond,
			after:  time.Second + time.Duration(r.IntN(2000))*time.Millisecond,
		}
		deck, rewind = deck[1:], !rewind
		for _, s := range []struct {
			fault   sideFault
			percent int
		}{{slowArchiver, 60}, {s3Down, 25}, {dirAway, 25}, {agentsKilled, 40}, {replicaCut, 15}} {
			if hit := r.IntN(100) < s.percent; hit && (agent || s.fault != agentsKilled) {
				p.side = append(p.side, s.fault)
			}
		}
		plans[i] = p
	}
	return plans
}

// sideText is for the table.
func (p roundPlan) sideText() string {
	out := make([]string, len(p.side))
	for i, s := range p.side {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}

func (w *world) applySide(s sideFault, leader *patroni.Node, p roundPlan) error {
	switch s {
	case slowArchiver:
		return w.slow(leader, "1")
	case s3Down:
		w.s3.Kill()
	case dirAway:
		return w.hide()
	case agentsKilled:
		for _, n := range w.cluster.Nodes {
			w.tool.killAgent(n)
		}
	case replicaCut:
		return w.replicas(leader)[p.victim].Cut()
	}
	return nil
}

func (w *world) replicas(leader *patroni.Node) (out []*patroni.Node) {
	for _, n := range w.cluster.Nodes {
		if n != leader {
			out = append(out, n)
		}
	}
	return out
}

// applyMain makes it happen and returns the next leader.
func (w *world) applyMain(ctx context.Context, leader *patroni.Node, p roundPlan) (*patroni.Node, error) {
	switch p.main {
	case powerFailure:
		leader.PowerOff()
	case killBoth:
		leader.KillPatroni()
		leader.KillPostgres()
	case killPostgres:
		leader.KillPostgres()
		// Patroni may also have brought the same one up again.
		sleep(ctx, 3*time.Second)
		return w.cluster.WaitLeader(ctx)
	case cutLeader:
		if err := leader.Cut(); err != nil {
			return nil, err
		}
	case switchover:
		return w.switchover(ctx, leader, p)
	}
	return w.cluster.WaitOtherLeader(ctx, leader)
}

// switchover asks for one until Patroni agrees that the candidate is good.
func (w *world) switchover(ctx context.Context, leader *patroni.Node, p roundPlan) (*patroni.Node, error) {
	candidate := w.replicas(leader)[1-p.victim]
	var err error
	for range 5 {
		if err = w.cluster.Switchover(ctx, leader, candidate); err == nil {
			return w.cluster.WaitOtherLeader(ctx, leader)
		}
		sleep(ctx, time.Second)
	}
	if now, e := w.cluster.WaitLeader(ctx); e == nil && now != leader {
		return now, nil
	}
	return nil, fmt.Errorf("switchover from %s to %s: %w", leader.Name, candidate.Name, err)
}

// heal undoes everything and waits until all nodes follow the leader.
func (w *world) heal(ctx context.Context) (*patroni.Node, error) {
	errs := []error{w.show(), w.s3.Start(ctx)}
	for _, n := range w.cluster.Nodes {
		errs = append(errs, w.fast(n), w.revive(n))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return w.healthy(ctx)
}

// patience is how long a replica may take to follow the leader.
const patience = 75 * time.Second

// healthy waits until all nodes follow the leader. A replica that does not find
// its way is shown, counted, and made anew: what the archive is worth is judged
// all the same. One that is busy with the archive and never finds it to end, so
// that it never streams, follows all the same.
func (w *world) healthy(ctx context.Context) (*patroni.Node, error) {
	short, cancel := context.WithTimeout(ctx, patience)
	leader, err := w.cluster.WaitHealthy(short)
	cancel()
	if err == nil || ctx.Err() != nil {
		return leader, err
	}
	if leader, err = w.cluster.WaitLeader(ctx); err != nil {
		return nil, err
	}
	streaming, err := leader.Text(ctx, "select coalesce(string_agg(application_name, ' '), '') from pg_stat_replication where state = 'streaming'")
	if err != nil {
		return nil, err
	}
	again := false
	for _, n := range w.replicas(leader) {
		if strings.Contains(streaming, n.Name) {
			continue
		}
		if w.near(ctx, n, leader) {
			w.logf("%s follows %s by the archive alone", n.Name, leader.Name)
			continue
		}
		again = true
		w.stuck = append(w.stuck, n.Name+" did not follow and was made anew")
		w.logf("%s does not follow %s:\n%s", n.Name, leader.Name, n.Log(40))
		if err := w.cluster.Reinitialize(ctx, n); err != nil {
			return nil, fmt.Errorf("make %s anew: %w", n.Name, err)
		}
	}
	if !again {
		return leader, nil
	}
	return w.healthy(ctx)
}

// near reports whether a replica is at most some segments behind a leader that
// has been writing for as long as we were patient.
func (w *world) near(ctx context.Context, n, leader *patroni.Node) bool {
	const segments = 32
	lsn, err := leader.Text(ctx, "select pg_current_wal_lsn()::text")
	if err != nil {
		return false
	}
	near, err := n.Text(ctx, fmt.Sprintf("select (pg_wal_lsn_diff('%s', pg_last_wal_replay_lsn()) between 0 and %d)::text", lsn, segments*int64(segmentSize)))
	return err == nil && near == "true"
}

func (w *world) revive(n *patroni.Node) error {
	if err := n.Heal(); err != nil {
		return err
	}
	if !n.PatroniRuns() {
		if err := n.StartPatroni(); err != nil {
			return err
		}
	}
	return w.tool.startAgent(n)
}
