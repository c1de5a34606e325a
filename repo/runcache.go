package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
)

const (
	// runsExpire is how long remembered runs are believed at most, and
	// suspectFor how long nothing is remembered after a backup went away:
	// somebody is expiring then, and WAL goes after the backup.
	runsExpire = 24 * time.Hour
	suspectFor = time.Hour
	// maxRemembered is the most runs of a timeline that are remembered: each
	// costs a request to check, and then listing anew is as cheap.
	maxRemembered = 256
	// recheck is how many segments of a timeline are listed again each time, in
	// turn: a loss is found in a small archive at once, in one of a million
	// segments within 250 looks.
	recheck = 4096
)

// RunCache remembers, in a local file per repository, which segments were
// there, so that the next look lists only what is new. It is a help, never the
// truth: objects do not change, so it can be wrong in two ways only, and both
// are looked for. What was filled in is found because every gap that is
// remembered is listed again; what was expired or lost, because the edge of
// every run is, and a part of the rest in turn, and because everything is listed
// anew when a backup went away, and once a day. In memory it keeps summaries and
// history files, which never change, so that a process that looks again and
// again only lists them. Whoever deletes something on the word of a listing does not use it.
type RunCache struct {
	dir   string
	clock func() time.Time
	log   *zap.Logger

	// In memory, what never changes: summaries and history files, by key below
	// the store that they were read from.
	mu        sync.Mutex
	summaries map[string]Summary
	histories map[string]pg.History
}

func (e *Epoch) memoryKey(key string) string { return e.r.store.String() + "\x00" + key }

// summary reads a summary, once.
func (c *RunCache) summary(ctx context.Context, e *Epoch, l Label) (Summary, error) {
	if c == nil {
		return e.Summary(ctx, l)
	}
	key := e.memoryKey(e.summaryKey(l))
	c.mu.Lock()
	s, ok := c.summaries[key]
	c.mu.Unlock()
	if ok {
		return s, nil
	}
	s, err := e.Summary(ctx, l)
	if err == nil {
		c.mu.Lock()
		c.summaries[key] = s
		c.mu.Unlock()
	}
	return s, err
}

// history reads a history file, once.
func (c *RunCache) history(ctx context.Context, e *Epoch, t pg.Timeline) (pg.History, error) {
	if c == nil {
		return e.history(ctx, t)
	}
	key := e.memoryKey(e.prefix("history") + t.Hex())
	c.mu.Lock()
	h, ok := c.histories[key]
	c.mu.Unlock()
	if ok {
		return h, nil
	}
	h, err := e.history(ctx, t)
	if err == nil {
		c.mu.Lock()
		c.histories[key] = h
		c.mu.Unlock()
	}
	return h, err
}

// forget drops the summaries of an epoch that are not listed any more.
func (c *RunCache) forget(e *Epoch, listed []Label) {
	if c == nil {
		return
	}
	prefix := e.memoryKey(e.prefix("summary"))
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.summaries, func(key string, s Summary) bool {
		return strings.HasPrefix(key, prefix) && !slices.Contains(listed, s.Label)
	})
}

// NewRunCache keeps its files in dir, which is made if need be. clock nil is
// time.Now, log nil is none.
func NewRunCache(dir string, clock func() time.Time, log *zap.Logger) *RunCache {
	if clock == nil {
		clock = time.Now
	}
	if log == nil {
		log = zap.NewNop()
	}
	return &RunCache{dir: dir, clock: clock, log: log, summaries: map[string]Summary{}, histories: map[string]pg.History{}}
}

// remembered is the file.
type remembered struct {
	Format int `json:"format"`
	// Store, Began and Epoch tell this repository from one that was made anew
	// in the same place.
	Store   string    `json:"store"`
	Began   time.Time `json:"began"`
	Epoch   time.Time `json:"epoch"`
	Listed  time.Time `json:"listed"` // when all was last listed
	Suspect time.Time `json:"suspect,omitzero"`
	// Checked is where the next part to be listed again begins.
	Checked map[pg.Timeline]pg.SegmentNo      `json:"checked,omitempty"`
	Backups []Label                           `json:"backups"`
	Runs    map[pg.Timeline][][2]pg.SegmentNo `json:"runs"` // first and last of each
}

// CachedHoldings is Holdings with the help of a cache, which is brought up to
// date. A cache that cannot be read or written only costs time.
func (e *Epoch) CachedHoldings(ctx context.Context, c *RunCache) (Holdings, error) {
	marker, err := e.r.Marker(ctx)
	if err != nil {
		return Holdings{}, err
	}
	info, err := e.Info(ctx)
	if err != nil {
		return Holdings{}, err
	}
	h, err := e.withoutRuns(ctx, c)
	if err != nil {
		return Holdings{}, err
	}
	now := remembered{
		Format: 1, Store: e.r.store.String(), Began: marker.Created, Epoch: info.Created, Listed: c.clock(),
		Backups: []Label{}, Checked: map[pg.Timeline]pg.SegmentNo{}, Runs: map[pg.Timeline][][2]pg.SegmentNo{},
	}
	for _, b := range h.Backups {
		now.Backups = append(now.Backups, b.Label)
	}
	known := c.load(e, &now)
	timelines, err := e.Timelines(ctx)
	if err != nil {
		return Holdings{}, err
	}
	for _, t := range timelines {
		at := now.Checked[t]
		runs, err := e.update(ctx, t, known[t], at)
		if err != nil {
			return Holdings{}, err
		}
		if now.Checked[t] = at + recheck; len(runs) > 0 && now.Checked[t] > runs[len(runs)-1][1] {
			now.Checked[t] = 0
		}
		now.Runs[t] = runs
		h.Runs[t] = runsOf(t, info.SegmentSize, runs)
	}
	c.save(e, now)
	return h, nil
}

func runsOf(t pg.Timeline, size pg.SegmentSize, spans [][2]pg.SegmentNo) []Run {
	var runs []Run
	for _, s := range spans {
		runs = append(runs, Run{Timeline: t, From: size.Start(s[0]), To: size.Start(s[1] + 1), Segments: int(s[1]-s[0]) + 1})
	}
	return runs
}

// update brings the runs of a timeline up to date, and lists the part behind at
// again. What contradicts the listing is forgotten as a whole.
func (e *Epoch) update(ctx context.Context, t pg.Timeline, known [][2]pg.SegmentNo, at pg.SegmentNo) ([][2]pg.SegmentNo, error) {
	if len(known) == 0 || len(known) > maxRemembered {
		return e.collect(ctx, t, 0, math.MaxUint64)
	}
	at = max(at, known[0][0])
	part, err := e.collect(ctx, t, at, at+recheck-1)
	if err != nil {
		return nil, err
	}
	if !containsAll(part, clip(known, at, at+recheck-1)) {
		return e.collect(ctx, t, 0, math.MaxUint64)
	}
	var found [][2]pg.SegmentNo
	// From the last segment before each gap to the first one behind it; before
	// the first run and behind the last there is a gap too.
	for i := 0; i <= len(known); i++ {
		from, to := pg.SegmentNo(0), pg.SegmentNo(math.MaxUint64)
		if i > 0 {
			from = known[i-1][1]
		}
		if i < len(known) {
			to = known[i][0]
		}
		between, err := e.collect(ctx, t, from, to)
		if err != nil {
			return nil, err
		}
		n := len(between)
		if n == 0 || i > 0 && between[0][0] != from || i < len(known) && between[n-1][1] != to {
			return e.collect(ctx, t, 0, math.MaxUint64)
		}
		if i > 0 { // the run itself, whose two ends are there
			found = join(found, known[i-1])
		}
		for _, s := range between {
			found = join(found, s)
		}
	}
	return found, nil
}

// clip is the part of spans that lies in [from, to].
func clip(spans [][2]pg.SegmentNo, from, to pg.SegmentNo) (part [][2]pg.SegmentNo) {
	for _, s := range spans {
		if s[1] >= from && s[0] <= to {
			part = append(part, [2]pg.SegmentNo{max(s[0], from), min(s[1], to)})
		}
	}
	return part
}

// containsAll reports whether each of some lies within one of spans.
func containsAll(spans, some [][2]pg.SegmentNo) bool {
	for _, one := range some {
		if !slices.ContainsFunc(spans, func(s [2]pg.SegmentNo) bool { return s[0] <= one[0] && one[1] <= s[1] }) {
			return false
		}
	}
	return true
}

// join appends a span to ascending ones, which it may touch or overlap.
func join(spans [][2]pg.SegmentNo, s [2]pg.SegmentNo) [][2]pg.SegmentNo {
	if n := len(spans); n > 0 && s[0] <= spans[n-1][1]+1 {
		spans[n-1][1] = max(spans[n-1][1], s[1])
		return spans
	}
	return append(spans, s)
}

// collect lists the runs of the segments in [from, to].
func (e *Epoch) collect(ctx context.Context, t pg.Timeline, from, to pg.SegmentNo) (spans [][2]pg.SegmentNo, err error) {
	err = e.Segments(ctx, t, from, to, func(n pg.SegmentNo) error {
		spans = join(spans, [2]pg.SegmentNo{n, n})
		return nil
	})
	return spans, err
}

func (c *RunCache) path(e *Epoch) string {
	sum := sha256.Sum256([]byte(e.r.store.String() + "\x00" + e.r.cluster + "\x00" + e.id.String()))
	return filepath.Join(c.dir, "wal-"+hex.EncodeToString(sum[:12])+".json")
}

// load returns what is remembered and may still be believed, and carries over
// to now what must be.
func (c *RunCache) load(e *Epoch, now *remembered) map[pg.Timeline][][2]pg.SegmentNo {
	b, err := os.ReadFile(c.path(e))
	if err != nil {
		return nil
	}
	var old remembered
	if err := json.Unmarshal(b, &old); err != nil || old.Format != 1 || old.Store != now.Store ||
		!old.Began.Equal(now.Began) || !old.Epoch.Equal(now.Epoch) {
		return nil
	}
	now.Suspect = old.Suspect
	for _, l := range old.Backups {
		if !slices.Contains(now.Backups, l) {
			now.Suspect = now.Listed
		}
	}
	age, suspect := now.Listed.Sub(old.Listed), now.Listed.Sub(now.Suspect)
	if age < 0 || age > runsExpire || suspect >= 0 && suspect < suspectFor {
		return nil
	}
	for _, spans := range old.Runs {
		for i, s := range spans {
			if s[0] > s[1] || i > 0 && s[0] <= spans[i-1][1]+1 {
				return nil
			}
		}
	}
	now.Listed = old.Listed
	if old.Checked != nil {
		now.Checked = old.Checked
	}
	return old.Runs
}

// save writes the file beside and renames it: a killed or racing writer leaves
// a whole file, this one or the other. It need not survive a crash of the
// machine, since what cannot be read is not used.
func (c *RunCache) save(e *Epoch, now remembered) {
	err := func() error {
		b, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return err
		}
		f, err := os.CreateTemp(c.dir, ".wal-*")
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), c.path(e))
		}
		if err != nil {
			return errors.Join(err, os.Remove(f.Name()))
		}
		return nil
	}()
	if err != nil {
		c.log.Info("cannot remember which WAL is there", zap.Error(fmt.Errorf("write to %s: %w", c.dir, err)))
	}
}
