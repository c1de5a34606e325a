package repo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
)

const testTTL = 2 * time.Second

// leaseRepo is a repository whose clock runs.
func leaseRepo(t testing.TB, store object.Store) *Repository {
	r, err := Open(Options{Name: "repo1", Store: store, Cluster: "hippo"})
	require.NoError(t, err)
	return r
}

// foreign puts a lease of a process of another host.
func foreign(t testing.TB, store object.Store, change func(*leaseRecord)) {
	l := leaseRecord{
		Format: 1, Name: "backup", Token: "other", Holder: "pg-1, process 7", What: "full backup", TTL: testTTL.Seconds(),
		Since: time.Now(), Renewed: time.Now(), process: process{Host: "pg-1", Boot: "another", Namespace: "pid:[1]", PID: 7, Start: "1"},
	}
	if change != nil {
		change(&l)
	}
	b, err := seal(l)
	require.NoError(t, err)
	put(t, store, "lease/backup", b)
}

func TestLease(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{What: "full backup", TTL: testTTL})
	require.NoError(t, err)
	require.NoError(t, l.Check(ctx))

	_, err = leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.ErrorIs(t, err, ErrBusy)
	require.Equal(t, "full backup", busy.What)
	require.Contains(t, busy.Error(), "process")

	other, err := leaseRepo(t, store).AcquireLease(ctx, "other", LeaseOptions{})
	require.NoError(t, err)
	require.NoError(t, other.Release(ctx))

	time.Sleep(testTTL + testTTL/2) // it is renewed all the while
	require.NoError(t, l.Check(ctx))
	require.NoError(t, l.Context().Err())
	require.NoError(t, l.Release(ctx))
	require.ErrorIs(t, context.Cause(l.Context()), errReleased)
	require.Error(t, l.Check(ctx))
	require.NoError(t, l.Release(ctx))
	require.Empty(t, contents(t, store))

	for _, name := range []string{"", "a/b", "..", "é"} {
		_, err = leaseRepo(t, store).AcquireLease(ctx, name, LeaseOptions{})
		require.Error(t, err, name)
	}
}

func TestLeaseRace(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	var mu sync.Mutex
	var won []*Lease
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, l)
			}
		})
	}
	wg.Wait()
	require.Len(t, won, 1)
	require.NoError(t, won[0].Release(ctx))
}

// A holder elsewhere that stopped is replaced once its TTL was watched, by
// one of several who wait; whatever its clock said.
func TestLeaseTakeOver(t *testing.T) {
	ctx := context.Background()
	for name, renewed := range map[string]time.Duration{"past": -time.Hour, "future": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newMemory()
			foreign(t, store, func(l *leaseRecord) { l.Renewed = time.Now().Add(renewed) })
			start := time.Now()
			var mu sync.Mutex
			var won []*Lease
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won = append(won, l)
					} else {
						require.ErrorIs(t, err, ErrBusy)
					}
				})
			}
			wg.Wait()
			require.Len(t, won, 1)
			require.GreaterOrEqual(t, time.Since(start), testTTL)
			require.NoError(t, won[0].Release(ctx))
		})
	}
}

// A holder that seems alive is left alone at once, or waited for.
func TestLeaseOfLivingHolder(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	foreign(t, store, nil)
	start := time.Now()
	_, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, "pg-1, process 7")
	require.Less(t, time.Since(start), testTTL/2)

	// Its clock is an hour behind, but it renews: the version changes.
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(testTTL / 4):
				foreign(t, store, func(l *leaseRecord) { l.Renewed, l.Count = time.Now().Add(-time.Hour), n })
			}
		}
	}()
	_, err = leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL, Wait: 2 * testTTL})
	require.ErrorIs(t, err, ErrBusy)
	close(stop)
	<-done

	waiting, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = leaseRepo(t, store).AcquireLease(waiting, "backup", LeaseOptions{TTL: testTTL, Wait: time.Hour})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A dead process of this host is replaced at once; a living one is not, nor
// one in another container or on another boot.
func TestLeaseOfDeadProcess(t *testing.T) {
	ctx := context.Background()
	self, err := currentProcess()
	require.NoError(t, err)
	require.NotEmpty(t, self.Boot)
	require.False(t, self.dead())
	dead := exec.Command("true")
	require.NoError(t, dead.Run())

	for name, c := range map[string]struct {
		change func(*process)
		dead   bool
	}{
		"ended":             {func(p *process) { p.PID = dead.Process.Pid }, true},
		"id used again":     {func(p *process) { p.Start = "1" }, true},
		"ourselves":         {func(*process) {}, false},
		"another container": {func(p *process) { p.PID, p.Namespace = dead.Process.Pid, "pid:[1]" }, false},
		"another boot":      {func(p *process) { p.PID, p.Boot = dead.Process.Pid, "x" }, false},
		"nothing known":     {func(p *process) { p.PID, p.Boot = dead.Process.Pid, "" }, false},
	} {
		p := self
		c.change(&p)
		require.Equal(t, c.dead, p.dead(), name)
		store := newMemory()
		foreign(t, store, func(l *leaseRecord) { l.process = p })
		l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{})
		if !c.dead {
			require.ErrorIs(t, err, ErrBusy, name)
			continue
		}
		require.NoError(t, err, name)
		require.NoError(t, l.Release(ctx))
	}
	// One that ended and that its parent has not looked at.
	zombie := exec.Command("true")
	require.NoError(t, zombie.Start())
	p := self
	p.PID = zombie.Process.Pid
	p.Start = "1"
	require.Eventually(t, p.dead, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, zombie.Wait())
	_, err = processStart(os.Getpid())
	require.NoError(t, err)
}

func TestLeaseLost(t *testing.T) {
	ctx := context.Background()
	for name, take := range map[string]func(store object.Store){
		"taken over": func(store object.Store) { foreign(t, store, nil) },
		"deleted":    func(store object.Store) { require.NoError(t, store.Delete(ctx, "lease/backup")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newMemory()
			l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
			require.NoError(t, err)
			take(store)
			before := contents(t, store)
			require.ErrorIs(t, l.Check(ctx), ErrLeaseLost)
			select {
			case <-l.Context().Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the context was not cancelled")
			}
			require.ErrorIs(t, context.Cause(l.Context()), ErrLeaseLost)
			require.ErrorIs(t, l.Check(ctx), ErrLeaseLost)
			require.NoError(t, l.Release(ctx)) // not ours to delete
			require.Equal(t, before, contents(t, store))
		})
	}
}

// Release right after another took over, before the renewal noticed.
func TestReleaseOfAnothersLease(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{})
	require.NoError(t, err)
	foreign(t, store, nil)
	before := contents(t, store)
	require.NoError(t, l.Release(ctx))
	require.Equal(t, before, contents(t, store))
}

// The store is away: the holder stops before anybody can take over.
func TestLeaseStoreAway(t *testing.T) {
	ctx := context.Background()
	store := faulty.New(newMemory())
	start := time.Now()
	l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
	require.NoError(t, err)
	store.SetRules(faulty.Rule{Fault: faulty.Fail})
	<-l.Context().Done()
	require.Less(t, time.Since(start), testTTL)
	require.ErrorIs(t, context.Cause(l.Context()), ErrLeaseLost)
}

// A lease that could not be given back, because the store was away when it was
// released or for so long that it was lost, is given back when the store is there
// again; until then whoever wants it has to watch it, for its holder lives.
func TestGiveBack(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost %v", lost), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			store := faulty.New(newMemory())
			r := leaseRepo(t, store)
			ttl := time.Hour
			if lost {
				ttl = testTTL
			}
			l, err := r.AcquireLease(ctx, "backup", LeaseOptions{TTL: ttl})
			require.NoError(t, err)
			store.SetRules(faulty.Rule{Fault: faulty.Fail})
			if lost {
				<-l.Context().Done()
				require.NoError(t, l.Release(ctx))
			} else {
				require.Error(t, l.Release(ctx))
			}
			r.GiveBack(ctx)
			require.Len(t, r.owed, 1, "the store is still away")
			store.SetRules()
			if !lost {
				_, err = leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{})
				require.ErrorIs(t, err, ErrBusy)
			}
			other, err := r.AcquireLease(ctx, "another", LeaseOptions{}) // gives back what is owed
			require.NoError(t, err)
			require.Empty(t, r.owed)
			state, err := r.LookLease(ctx, "backup")
			require.NoError(t, err)
			require.True(t, state.Dead)
			next, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: time.Hour})
			require.NoError(t, err, "at once")
			require.NoError(t, next.Release(ctx))
			require.NoError(t, other.Release(ctx))
		})
	}
}

// What another took over meanwhile is his.
func TestGiveBackOfAnothersLease(t *testing.T) {
	ctx := context.Background()
	store := faulty.New(newMemory())
	r := leaseRepo(t, store)
	l, err := r.AcquireLease(ctx, "backup", LeaseOptions{})
	require.NoError(t, err)
	store.SetRules(faulty.Rule{Fault: faulty.Fail})
	require.Error(t, l.Release(ctx))
	store.SetRules()
	foreign(t, store, nil)
	before := contents(t, store)
	r.GiveBack(ctx)
	require.Empty(t, r.owed)
	require.Equal(t, before, contents(t, store))
}

// Answers that get lost do not lose the lease.
func TestLeaseLostAnswers(t *testing.T) {
	ctx := context.Background()
	for k := 1; k <= 6; k++ {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			store := faulty.New(newMemory(), faulty.Rule{Op: faulty.Put, At: k, Fault: faulty.LoseAnswer})
			r := leaseRepo(t, store)
			l, err := r.AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
			if k == 1 {
				require.ErrorIs(t, err, faulty.ErrFault) // what it left is of a process that will die
				return
			}
			require.NoError(t, err)
			time.Sleep(2 * testTTL)
			require.NoError(t, l.Check(ctx))
			require.NoError(t, l.Release(ctx))
		})
	}
}

// A lease object that nobody can read is garbage when its TTL is over.
func TestDamagedLease(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	put(t, store, "lease/backup", []byte("nonsense"))
	start := time.Now()
	l, err := leaseRepo(t, store).AcquireLease(ctx, "backup", LeaseOptions{TTL: testTTL})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), testTTL)
	require.NoError(t, l.Release(ctx))
}

// Leases are readable without keys, also in an encrypted repository.
func TestLeaseIsPlain(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	l, err := testRepo(t, store, newTestKeys(t).keys(t, nil), codec.Codec{}).AcquireLease(ctx, "backup", LeaseOptions{What: "full backup"})
	require.NoError(t, err)
	require.True(t, bytes.Contains(get(t, store, "lease/backup"), []byte("full backup")))
	require.NoError(t, l.Release(ctx))
}

// Who has watched a lease for its TTL takes it over at once.
func TestWatchedLease(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	r := testRepo(t, store, nil, codec.Codec{})
	lease, err := seal(leaseRecord{Format: 1, Name: "x", Token: "a", Holder: "gone", Renewed: time.Now(), Count: 1, TTL: 0.2, process: process{Host: "elsewhere"}})
	require.NoError(t, err)
	put(t, store, leaseKey("x"), lease)
	var w LeaseWatch
	require.NoError(t, r.WatchLease(ctx, "x", &w))
	time.Sleep(300 * time.Millisecond) // the TTL, which is the point
	require.NoError(t, r.WatchLease(ctx, "x", &w))
	state, err := r.LookLease(ctx, "x")
	require.NoError(t, err)
	require.Equal(t, "gone", state.Holder)
	require.False(t, state.Dead)
	mine, err := r.AcquireLease(ctx, "x", LeaseOptions{TTL: time.Minute, Watch: &w})
	require.NoError(t, err)
	require.NoError(t, r.WatchLease(ctx, "nobody", &w))
	require.NoError(t, mine.Release(ctx))
	var none LeaseWatch
	require.Zero(t, none.Since())
	require.NoError(t, r.WatchLease(ctx, "nobody", &none))
	first := none.Since()
	require.NotZero(t, first)
	require.NoError(t, r.WatchLease(ctx, "nobody", &none))
	require.Equal(t, first, none.Since())
	_, err = r.LookLease(ctx, "x")
	require.ErrorIs(t, err, ErrNotFound)
}

// A process that lives on this host but has lost its lease, or could not give
// it back, holds up nobody for ever.
func TestLivingHolderThatDoesNotRenew(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	r, err := Open(Options{Name: "repo1", Store: store, Cluster: "hippo"})
	require.NoError(t, err)
	self, err := currentProcess()
	require.NoError(t, err)
	left := leaseRecord{Format: 1, Name: "x", Token: "a", Holder: "living", Renewed: time.Now().Add(-time.Minute), Count: 1, TTL: 0.2, process: self}
	lease, err := seal(left)
	require.NoError(t, err)
	put(t, store, leaseKey("x"), lease)
	mine, err := r.AcquireLease(ctx, "x", LeaseOptions{TTL: time.Minute})
	require.NoError(t, err)
	require.NoError(t, mine.Release(ctx))
	left.Renewed, left.TTL = time.Now(), 60
	lease, err = seal(left)
	require.NoError(t, err)
	put(t, store, leaseKey("x"), lease)
	_, err = r.AcquireLease(ctx, "x", LeaseOptions{TTL: time.Minute})
	require.ErrorIs(t, err, ErrBusy)
}

// A holder that lives is deposed by who is entitled to that, and finds it out:
// what it checks before it starts something fails at once.
func TestDepose(t *testing.T) {
	ctx := context.Background()
	store := newMemory()
	old, err := leaseRepo(t, store).AcquireLease(ctx, "x", LeaseOptions{Holder: "old", TTL: time.Minute})
	require.NoError(t, err)
	entitled := false
	depose := LeaseOptions{Holder: "new", TTL: time.Minute, Depose: func(context.Context) bool { return entitled }}
	_, err = leaseRepo(t, store).AcquireLease(ctx, "x", depose)
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, old.Check(ctx))
	entitled = true
	mine, err := leaseRepo(t, store).AcquireLease(ctx, "x", depose)
	require.NoError(t, err)
	require.ErrorIs(t, old.Check(ctx), ErrLeaseLost)
	require.NoError(t, old.Release(ctx)) // not his to delete
	require.NoError(t, mine.Check(ctx))
	require.NoError(t, mine.Release(ctx))
}
