package retention

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/pg/wal"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/codec"
	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/memory"
)

const testSystem pg.SystemID = 7001

// site is a repository that a test fills.
type site struct {
	t     testing.TB
	store object.Store
	packs map[repo.Label]repo.PackRef
	wal   []byte
}

func open(t testing.TB, store object.Store) *repo.Repository {
	r, err := repo.Open(repo.Options{Name: "repo1", Store: store, Cluster: "hippo", TempDir: t.TempDir(), Codec: codec.Codec{Name: codec.LZ4}})
	require.NoError(t, err)
	return r
}

func newSite(t testing.TB) *site { return newSiteIn(t, memory.New()) }

func newSiteIn(t testing.TB, store object.Store) *site {
	s := &site{t: t, store: store, packs: map[repo.Label]repo.PackRef{}, wal: make([]byte, testSize)}
	r := open(t, s.store)
	require.NoError(t, r.Init(context.Background()))
	_, err := r.EnsureEpoch(context.Background(), repo.EpochInfo{SystemID: testSystem, PGMajor: 15, SegmentSize: testSize})
	require.NoError(t, err)
	return s
}

func (s *site) epoch() *repo.Epoch { return open(s.t, s.store).Epoch(testSystem) }

func (s *site) segments(from, to pg.SegmentNo) {
	sum := wal.DigestOf(s.wal)
	e := s.epoch()
	for n := from; n <= to; n++ {
		name := repo.SegmentFile(testSize.Name(1, n))
		require.NoError(s.t, e.PutWAL(context.Background(), repo.WALHead{
			Kind: repo.WALKind(name.Kind), Name: name.Name, SystemID: testSystem, Timeline: 1, PGMajor: 15, SegmentSize: testSize,
			XXH3: sum.String(), Length: int64(testSize), Start: testSize.Start(n), ValidTo: testSize.Start(n + 1), Complete: true,
		}, bytes.NewReader(s.wal)))
	}
}

// begin begins a backup with two packs of its own, and the first pack of each
// label in uses.
func (s *site) begin(t repo.BackupType, parent repo.Label, start time.Time, uses ...repo.Label) (*repo.BackupWriter, error) {
	ctx := context.Background()
	label, err := repo.NewLabel(t, parent, start)
	require.NoError(s.t, err)
	b, err := s.epoch().CreateBackup(ctx, label)
	if err != nil {
		return nil, err
	}
	enc, err := codec.NewEncoder(codec.Codec{Name: codec.LZ4})
	require.NoError(s.t, err)
	var chunks []repo.Chunk
	for range 2 {
		p, err := b.NewPack(ctx)
		require.NoError(s.t, err)
		frame, c, err := repo.EncodeChunk(enc, nil, []byte(label))
		require.NoError(s.t, err)
		c.Pack = p.ID()
		c.Offset, err = p.Append(frame)
		require.NoError(s.t, err)
		require.NoError(s.t, p.Close())
		chunks = append(chunks, c)
	}
	if parent != "" {
		if _, err := b.UseParent(ctx, parent); err != nil {
			return nil, errors.Join(err, b.Abort(ctx))
		}
	}
	add := func(path string, chunks ...repo.Chunk) {
		size := int64(0)
		for _, c := range chunks {
			size += int64(c.Plain)
		}
		require.NoError(s.t, b.AddFile(repo.FileEntry{Path: path, Mode: 0o600, MTime: start, Size: size, Chunks: chunks}))
	}
	for _, l := range uses {
		id, err := b.UsePack(s.packs[l])
		require.NoError(s.t, err)
		chunks = append(chunks, repo.Chunk{Pack: id, Offset: 0, Stored: int(s.packs[l].Plain), Plain: len(l)})
	}
	add("backup_label", chunks...)
	return b, nil
}

func (s *site) commit(b *repo.BackupWriter, parent repo.Label, at pg.SegmentNo) error {
	start := b.Label().Time()
	_, err := b.Commit(context.Background(), repo.Header{
		Parent: parent, PGVersion: 150013, SegmentSize: testSize, Timeline: 1, BlockSize: 8192, Start: start, Stop: start.Add(time.Minute),
		StartLSN: testSize.Start(at) + 0x28, StopLSN: testSize.Start(at) + 0x100,
	}, repo.Summary{
		Parent: parent, PGVersion: 150013, SegmentSize: testSize, Timeline: 1, Start: start, Stop: start.Add(time.Minute),
		StartLSN: testSize.Start(at) + 0x28, StopLSN: testSize.Start(at) + 0x100,
	})
	if err != nil {
		return errors.Join(err, b.Abort(context.Background()))
	}
	e := s.epoch()
	sum, err := e.Summary(context.Background(), b.Label())
	require.NoError(s.t, err)
	m, err := e.OpenManifest(context.Background(), sum)
	require.NoError(s.t, err)
	defer m.Close()
	for _, p := range m.Packs() {
		if p.Label == b.Label() && p.Number == 0 {
			s.packs[p.Label] = p
		}
	}
	return nil
}

func (s *site) backup(t repo.BackupType, parent repo.Label, start time.Time, at pg.SegmentNo, uses ...repo.Label) repo.Label {
	b, err := s.begin(t, parent, start, uses...)
	require.NoError(s.t, err)
	require.NoError(s.t, s.commit(b, parent, at))
	return b.Label()
}

// days fills the site: a full backup on days 0, 3, 6, with a differential and
// two incrementals behind each, and three segments a day.
func (s *site) days() (labels []repo.Label) {
	for d := range 9 {
		start, at := testTime.AddDate(0, 0, d), pg.SegmentNo(1+3*d)
		s.segments(at, at+2)
		switch {
		case d%3 == 0:
			labels = append(labels, s.backup(repo.Full, "", start, at))
		case d%3 == 1:
			labels = append(labels, s.backup(repo.Differential, labels[len(labels)-1], start, at, labels[len(labels)-1]))
		default:
			parent := labels[len(labels)-1]
			one := s.backup(repo.Incremental, parent, start, at, parent, parent.Full())
			labels = append(labels, one, s.backup(repo.Incremental, one, start.Add(time.Hour), at+1, one, parent.Full()))
		}
	}
	return labels
}

// copyOf is another store with the same objects.
func (s *site) copyOf() *memory.Store {
	to := memory.New()
	for _, k := range keysOf(s.t, s.store) {
		r, err := s.store.Get(context.Background(), k, 0, -1)
		require.NoError(s.t, err)
		b, err := io.ReadAll(r)
		require.NoError(s.t, err)
		_, err = to.Put(context.Background(), k, bytes.NewReader(b), object.PutOptions{})
		require.NoError(s.t, err)
	}
	return to
}

func keysOf(t testing.TB, store object.Store) (keys []string) {
	require.NoError(t, store.List(context.Background(), "", object.ListOptions{}, func(i object.Info) error {
		keys = append(keys, i.Key)
		return nil
	}))
	return keys
}

// requireSound: everything that is listed is there.
func requireSound(t testing.TB, store object.Store) []repo.Label {
	ctx := context.Background()
	e := open(t, store).Epoch(testSystem)
	h, err := e.Holdings(ctx)
	require.NoError(t, err)
	require.NoError(t, h.Damaged)
	var labels []repo.Label
	for _, b := range h.Backups {
		labels = append(labels, b.Label)
		m, err := e.OpenManifest(ctx, b)
		require.NoError(t, err)
		for _, p := range m.Packs() {
			r, err := e.OpenPack(ctx, p)
			require.NoError(t, err)
			body, err := r.ReadRange(ctx, 0, p.Plain)
			require.NoError(t, err, "%s needs pack %d of %s", b.Label, p.Number, p.Label)
			require.NoError(t, body.Close())
		}
		require.NoError(t, m.Close())
		require.Empty(t, unusable(h, b))
	}
	return labels
}

func options(p Policy) Options {
	return Options{Policy: p, Clock: func() time.Time { return testTime.AddDate(0, 0, 9) }}
}

func TestRun(t *testing.T) {
	s := newSite(t)
	labels := s.days()
	before := keysOf(t, s.store)
	o := options(Policy{Full: 2})
	o.DryRun = true
	res, err := Run(t.Context(), open(t, s.store), o)
	require.NoError(t, err)
	require.Equal(t, before, keysOf(t, s.store))
	require.Zero(t, res.Done)
	o.DryRun = false
	res, err = Run(t.Context(), open(t, s.store), o)
	require.NoError(t, err)
	require.Equal(t, Deleted{Backups: 4, Packs: 12, WAL: 9, Bytes: res.Done.Bytes}, res.Done)
	require.Equal(t, labels[4:], requireSound(t, s.store))
	for _, k := range keysOf(t, s.store) {
		require.NotContains(t, k, labels[0])
		require.NotContains(t, k, "lease/")
	}
	left := keysOf(t, s.store)
	res, err = Run(t.Context(), open(t, s.store), o)
	require.NoError(t, err)
	require.Zero(t, res.Done)
	require.Equal(t, left, keysOf(t, s.store))
}

// Whatever call of the store fails: what is listed is whole, and the next run
// ends where a run without failures does.
func TestEveryCallFails(t *testing.T) {
	s := newSite(t)
	s.days()
	o := options(Policy{Full: 1, Differential: 2})
	whole := s.copyOf()
	count := faulty.New(whole)
	_, err := Run(t.Context(), open(t, count), o)
	require.NoError(t, err)
	want := keysOf(t, whole)
	calls := len(count.Calls())
	require.Greater(t, calls, 40)
	for k := 1; k <= calls; k++ {
		for _, f := range []faulty.Fault{faulty.Fail, faulty.Truncate, faulty.LoseAnswer} {
			store := s.copyOf()
			rules := []faulty.Rule{{At: k, Fault: f, Bytes: 1}}
			if k%2 == 0 { // and the store stays away
				for later := k + 1; later < k+200; later++ {
					rules = append(rules, faulty.Rule{At: later, Fault: faulty.Fail})
				}
			}
			_, _ = Run(t.Context(), open(t, faulty.New(store, rules...)), o)
			requireSound(t, store)
			for _, key := range keysOf(t, store) {
				if strings.HasPrefix(key, "lease/") { // as if its holder were gone: we are the same process
					require.NoError(t, store.Delete(t.Context(), key))
				}
			}
			_, err := Run(t.Context(), open(t, store), o)
			require.NoError(t, err, "call %d, %s", k, f)
			requireSound(t, store)
			require.Equal(t, want, keysOf(t, store), "call %d, %s", k, f)
		}
	}
}

// An object lock keeps a summary, a pack and a segment: all else goes.
func TestDeleteRefused(t *testing.T) {
	s := newSite(t)
	labels := s.days()
	o := options(Policy{Full: 1})
	lock := &refusing{Store: s.store, refuse: []string{"summary/" + string(labels[1]), "backup/" + string(labels[4]) + "/pack/00000001", string(testSize.Name(1, 12))}}
	res, err := Run(t.Context(), open(t, lock), o)
	require.ErrorIs(t, err, object.ErrDenied)
	require.Equal(t, 3, res.Done.Left, "%v", res.Failures)
	// The differential stays, and so does its full, with the WAL of both.
	require.Equal(t, append(slices.Clone(labels[:2]), labels[8:]...), requireSound(t, s.store))
	lock.refuse = nil
	_, err = Run(t.Context(), open(t, lock), o)
	require.NoError(t, err)
	require.Equal(t, labels[8:], requireSound(t, s.store))
	for _, k := range keysOf(t, s.store) {
		require.NotContains(t, k, labels[4])
		require.False(t, strings.HasSuffix(k, string(testSize.Name(1, 12))))
	}
}

// refusing is a store with locked objects, and a hook.
type refusing struct {
	object.Store
	refuse []string
	hook   func(keys []string)
	full   atomic.Bool // no room for puts until something is deleted
}

func (r *refusing) Put(ctx context.Context, key string, body io.Reader, o object.PutOptions) (object.Info, error) {
	if r.full.Load() {
		return object.Info{}, &wrapped{syscall.ENOSPC}
	}
	return r.Store.Put(ctx, key, body, o)
}

type wrapped struct{ error }

func (e *wrapped) Unwrap() error { return e.error }

func (r *refusing) Delete(ctx context.Context, keys ...string) error {
	var errs []error
	for _, k := range keys {
		if slices.ContainsFunc(r.refuse, func(end string) bool { return strings.HasSuffix(k, end) }) {
			errs = append(errs, object.ErrDenied)
			continue
		}
		errs = append(errs, r.Store.Delete(ctx, k))
		if strings.Contains(k, "/pack/") {
			r.full.Store(false)
		}
	}
	if r.hook != nil {
		r.hook(keys)
	}
	return errors.Join(errs...)
}

// A backup that runs, and its parent, stay; so does WAL.
func TestBesideRunningBackup(t *testing.T) {
	s := newSite(t)
	labels := s.days()
	parent := labels[3] // of the oldest full, which would go
	b, err := s.begin(repo.Incremental, parent, testTime.AddDate(0, 0, 8).Add(2*time.Hour), parent)
	require.NoError(t, err)
	o := options(Policy{Full: 1})
	res, err := Run(t.Context(), open(t, s.store), o)
	require.NoError(t, err)
	require.Len(t, res.Postponed, 1)
	require.Contains(t, res.Postponed[0], "a backup is being written")
	require.Zero(t, res.Done.WAL)
	require.Equal(t, append(slices.Clone(labels[:4]), labels[8:]...), requireSound(t, s.store))
	require.NoError(t, s.commit(b, parent, 27))
	requireSound(t, s.store)
	_, err = Run(t.Context(), open(t, s.store), o)
	require.NoError(t, err)
	require.Equal(t, labels[8:], requireSound(t, s.store), "it went with its parent")
}

// Somebody marks a backup after the plan was made and before its packs go.
func TestMarkDuringRun(t *testing.T) {
	s := newSite(t)
	labels := s.days()
	var lease *repo.Lease
	store := &refusing{Store: s.store}
	store.hook = func(keys []string) {
		if lease == nil && slices.ContainsFunc(keys, func(k string) bool { return strings.HasSuffix(k, "summary/"+string(labels[3])) }) {
			var err error
			lease, err = open(t, s.store).MarkUse(t.Context(), labels[3], repo.LeaseOptions{What: "a test"})
			require.NoError(t, err)
		}
	}
	o := options(Policy{Full: 1})
	res, err := Run(t.Context(), open(t, store), o)
	require.NoError(t, err)
	require.NotNil(t, lease)
	require.Len(t, res.Postponed, 1, "%v", res.Postponed)
	require.Zero(t, res.Done.Packs)
	require.NoError(t, lease.Release(t.Context()))
	res, err = Run(t.Context(), open(t, store), o)
	require.NoError(t, err)
	require.Equal(t, 24, res.Done.Packs)
}

// An incremental chooses its parent while runs expire it, many times: it is
// committed and whole, or refused.
func TestParentRace(t *testing.T) {
	for i := range 20 {
		s := newSite(t)
		labels := s.days()
		done := make(chan error, 1)
		go func() {
			_, err := Run(context.Background(), open(t, s.store), options(Policy{Full: 1}))
			done <- err
		}()
		time.Sleep(time.Duration(i) * 200 * time.Microsecond)
		committed := false
		b, err := s.begin(repo.Incremental, labels[3], testTime.AddDate(0, 0, 8).Add(2*time.Hour), labels[3], labels[0])
		if err == nil {
			err = s.commit(b, labels[3], 27)
			committed = err == nil
		}
		if !committed {
			require.ErrorIs(t, err, repo.ErrNotFound)
		}
		require.NoError(t, <-done)
		list, err := open(t, s.store).Epoch(testSystem).Backups(t.Context())
		require.NoError(t, err)
		for _, b := range list {
			m, err := s.epoch().OpenManifest(t.Context(), b)
			require.NoError(t, err)
			for _, p := range m.Packs() {
				_, err := s.store.Stat(t.Context(), testSystem.String()+"/backup/"+string(p.Label)+"/pack/0000000"+string(rune('0'+p.Number)))
				require.NoError(t, err)
			}
			require.NoError(t, m.Close())
		}
	}
}

func TestFullStore(t *testing.T) {
	s := newSite(t)
	labels := s.days()
	store := &refusing{Store: s.store}
	store.full.Store(true)
	_, err := Run(t.Context(), open(t, store), options(Policy{Full: 1}))
	require.NoError(t, err)
	require.Equal(t, labels[8:], requireSound(t, s.store))

	store.full.Store(true)
	_, err = Run(t.Context(), open(t, store), options(Policy{Full: 1}))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, labels[8:], requireSound(t, s.store))
}

func TestDamagedSummary(t *testing.T) {
	s := newSite(t)
	labels := s.days()
	key := testSystem.String() + "/summary/" + string(labels[0])
	_, err := s.store.Put(t.Context(), key, strings.NewReader("x"), object.PutOptions{})
	require.NoError(t, err)
	before := keysOf(t, s.store)
	_, err = Run(t.Context(), open(t, s.store), options(Policy{Full: 1}))
	require.ErrorIs(t, err, repo.ErrIntegrity)
	require.Equal(t, before, keysOf(t, s.store))
	o := options(Policy{Full: 1})
	o.Remove = []repo.Label{labels[0]}
	_, err = Run(t.Context(), open(t, s.store), o)
	require.NoError(t, err)
	require.Equal(t, labels[4:], requireSound(t, s.store), "what builds on it went with it")
	o.Remove = []repo.Label{labels[0]}
	_, err = Run(t.Context(), open(t, s.store), o)
	require.ErrorIs(t, err, ErrNoBackup)
}

func TestEmptyRepository(t *testing.T) {
	res, err := Run(t.Context(), open(t, memory.New()), options(Policy{Full: 1}))
	require.NoError(t, err)
	require.Empty(t, res.Plan.Backups)
}

func TestTwoRuns(t *testing.T) {
	s := newSite(t)
	lease, err := open(t, s.store).AcquireLease(t.Context(), repo.ExpiryLease, repo.LeaseOptions{})
	require.NoError(t, err)
	_, err = Run(t.Context(), open(t, s.store), options(Policy{Full: 1}))
	require.ErrorIs(t, err, repo.ErrBusy)
	require.NoError(t, lease.Release(t.Context()))
}
