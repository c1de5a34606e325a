package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walkeep/walkeep/integration/patroni"
)

// ledger is what clients know: which transactions were acknowledged. A
// transaction is written down only after COMMIT came back.
type ledger struct {
	next atomic.Int64

	mu    sync.Mutex // guards acked
	acked map[int64]struct{}
}

func (l *ledger) acknowledge(id int64) {
	l.mu.Lock()
	l.acked[id] = struct{}{}
	l.mu.Unlock()
}

// count is how many are acknowledged, and how many of those are not in there.
func (l *ledger) count(there map[int64]struct{}) (acked, absent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if _, ok := there[id]; !ok {
			absent++
		}
	}
	return len(l.acked), absent
}

// writers write until they are closed: some from the hub, as clients of whoever
// leads, and one on every node, which goes on when the node is cut off.
type writers struct {
	cluster *patroni.Cluster
	ledger  *ledger
	pause   time.Duration // after each transaction of a connection

	gate sync.RWMutex // held for reading around every transaction
	stop context.CancelFunc
	done sync.WaitGroup
}

const ledgerTable = `create table if not exists ledger (id bigint primary key, writer int not null, payload text not null)`

func startWriters(c *patroni.Cluster, l *ledger, seed uint64, clients int, pause time.Duration) *writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{cluster: c, ledger: l, pause: pause, stop: cancel}
	for i := range clients {
		w.start(ctx, i, seed, c.Network.Hub, c.Nodes)
	}
	for i, n := range c.Nodes {
		w.start(ctx, clients+i, seed, n.Machine, []*patroni.Node{n})
	}
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		w.switchSegments(ctx, rand.New(rand.NewPCG(seed, 1<<32)))
	}()
	return w
}

func (w *writers) close() {
	w.stop()
	w.done.Wait()
}

func (w *writers) start(ctx context.Context, number int, seed uint64, from *patroni.Machine, to []*patroni.Node) {
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		r := rand.New(rand.NewPCG(seed, uint64(number)))
		for ctx.Err() == nil {
			for _, n := range to {
				_ = w.session(ctx, number, r, from, n) // a broken connection is what this is about
			}
			sleep(ctx, 100*time.Millisecond)
		}
	}()
}

// session writes over one connection for as long as that works.
func (w *writers) session(ctx context.Context, number int, r *rand.Rand, from *patroni.Machine, n *patroni.Node) error {
	conn, err := connect(ctx, from, n)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	for ctx.Err() == nil {
		if err := w.transaction(ctx, conn, number, r); err != nil {
			return err
		}
		sleep(ctx, w.pause)
	}
	return nil
}

// errStandby: nothing to write here.
var errStandby = errors.New("a standby")

// connect returns a connection to a server that takes writes.
func connect(ctx context.Context, from *patroni.Machine, n *patroni.Node) (*pgx.Conn, error) {
	cfg, err := n.Config(from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var standby bool
	if err = conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby); err == nil && standby {
		err = errStandby
	}
	if err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// closeConn does not wait for a server that is cut off.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

func (w *writers) transaction(ctx context.Context, conn *pgx.Conn, number int, r *rand.Rand) error {
	w.gate.RLock()
	defer w.gate.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	payload := make([]byte, 100+r.IntN(900))
	for i := range payload {
		payload[i] = byte('!' + r.IntN(90))
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	id := w.ledger.next.Add(1)
	if _, err := tx.Exec(ctx, "insert into ledger values ($1, $2, $3)", id, number, string(payload)); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	w.ledger.acknowledge(id)
	return nil
}

// switchSegments makes many segments, so that some change hands at every
// failover.
func (w *writers) switchSegments(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		for _, n := range w.cluster.Nodes {
			conn, err := connect(ctx, n.Machine, n)
			if err != nil {
				continue
			}
			for ctx.Err() == nil {
				w.gate.RLock()
				once, cancel := context.WithTimeout(ctx, 4*time.Second)
				_, err := conn.Exec(once, "select pg_switch_wal()")
				cancel()
				w.gate.RUnlock()
				if err != nil {
					break
				}
				sleep(ctx, time.Duration(150+r.IntN(500))*time.Millisecond)
			}
			closeConn(conn)
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// readLedger is all that a server has.
func readLedger(ctx context.Context, conn *pgx.Conn) (map[int64]struct{}, error) {
	rows, err := conn.Query(ctx, "select id from ledger")
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	set := make(map[int64]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set, nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
