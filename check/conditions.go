package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"

	"golang.org/x/sync/errgroup"

	"github.com/walkeep/walkeep/repo/object"
)

const (
	writers = 8 // of one key at a time
	rounds  = 3
)

const conditionAdvice = "Do not use this store for walkeep: two nodes that archive the same segment, or two backups, would overwrite each other. " +
	"S3 servers need conditional writes (If-None-Match and If-Match, Amazon has both since 2024): upgrade the server, or use another one."

// ifAbsent puts where something is already.
func (t *prober) ifAbsent(ctx context.Context) {
	key := t.key("absent")
	if _, err := t.put(ctx, key, []byte("first"), object.PutOptions{IfAbsent: true}); err != nil {
		t.failErr("put_if_absent", err, storeAdvice(err, "write"))
		return
	}
	_, err := t.put(ctx, key, []byte("second"), object.PutOptions{IfAbsent: true})
	got, getErr := t.get(ctx, key, 0, -1)
	switch {
	case getErr != nil:
		t.failErr("put_if_absent", getErr, storeAdvice(getErr, "read"))
	case string(got) != "first":
		t.fail("put_if_absent", "an object was overwritten, although the write was to happen only if there was none", conditionAdvice)
	case err == nil:
		t.fail("put_if_absent", "a write to a taken key was reported as done", conditionAdvice)
	case !errors.Is(err, object.ErrExists):
		t.failErr("put_if_absent", err, conditionAdvice)
	default:
		t.ok("put_if_absent", "refused where there is an object already")
	}
}

// outcome is what one of several writers of a key was told.
type outcome struct {
	content []byte
	err     error
}

// race lets several writers put different contents under one key at the same
// time, and judges: one is told that it won, its content is there, all others
// are told that they lost. lost is the error of those.
//
// A winner whose answer was lost and who tried again (package retry) is told
// that it lost. Then there is no winner, and nothing wrong; the round counts
// for nothing.
func (t *prober) race(ctx context.Context, key string, o object.PutOptions, lost error) error {
	results := make([]outcome, writers)
	start := make(chan struct{})
	var g errgroup.Group
	for i := range results {
		g.Go(func() error {
			content := fmt.Appendf(nil, "written by %d", i)
			<-start
			_, err := t.put(ctx, key, content, o)
			results[i] = outcome{content, err}
			return nil
		})
	}
	close(start)
	_ = g.Wait() // the errors are the results
	var won []outcome
	for _, r := range results {
		switch {
		case r.err == nil:
			won = append(won, r)
		case !errors.Is(r.err, lost):
			return r.err
		}
	}
	if len(won) > 1 {
		return fmt.Errorf("of %d writers of one key at the same time %d were told that they had won", writers, len(won))
	}
	got, err := t.get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	if len(won) == 1 && !bytes.Equal(got, won[0].content) {
		return errors.New("the content of a writer that was told it had lost is there, instead of the winner's")
	}
	return nil
}

func (t *prober) raceIfAbsent(ctx context.Context) {
	for round := range rounds {
		err := t.race(ctx, t.key(fmt.Sprintf("race-%d", round)), object.PutOptions{IfAbsent: true}, object.ErrExists)
		if err != nil {
			t.failErr("put_if_absent_race", err, raceAdvice(err))
			return
		}
	}
	t.ok("put_if_absent_race", "%d times %d writers at once, one winner each", rounds, writers)
}

func (t *prober) raceIfMatch(ctx context.Context) {
	for round := range rounds {
		key := t.key(fmt.Sprintf("match-race-%d", round))
		info, err := t.put(ctx, key, []byte("before"), object.PutOptions{})
		if err == nil {
			err = t.race(ctx, key, object.PutOptions{IfMatch: info.Version}, object.ErrChanged)
		}
		if err != nil {
			t.failErr("put_if_match_race", err, raceAdvice(err))
			return
		}
	}
	t.ok("put_if_match_race", "%d times %d writers at once, one winner each", rounds, writers)
}

func raceAdvice(err error) string {
	if errors.Is(err, object.ErrNotFound) { // of what was put a moment ago
		return lostAdvice
	}
	if errors.Is(err, object.ErrDenied) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return storeAdvice(err, "write")
	}
	return conditionAdvice
}

// ifMatch replaces an object, and then tries to replace it by what is no
// longer its version.
func (t *prober) ifMatch(ctx context.Context) {
	key := t.key("match")
	first, err := t.put(ctx, key, []byte("first"), object.PutOptions{})
	if err != nil {
		t.failErr("put_if_match", err, storeAdvice(err, "write"))
		return
	}
	second, err := t.put(ctx, key, []byte("second"), object.PutOptions{IfMatch: first.Version})
	if err != nil {
		t.failErr("put_if_match", fmt.Errorf("replace an object whose version did not change: %w", err), raceAdvice(err))
		return
	}
	if second.Version == first.Version {
		t.fail("put_if_match", "an object kept its version while its content changed", conditionAdvice)
		return
	}
	_, stale := t.put(ctx, key, []byte("third"), object.PutOptions{IfMatch: first.Version})
	_, missing := t.put(ctx, t.key("match-missing"), []byte("third"), object.PutOptions{IfMatch: first.Version})
	got, err := t.get(ctx, key, 0, -1)
	switch {
	case err != nil:
		t.failErr("put_if_match", err, storeAdvice(err, "read"))
	case string(got) != "second":
		t.fail("put_if_match", "an object was overwritten, although it had changed since it was read", conditionAdvice)
	case stale == nil:
		t.fail("put_if_match", "a write for an old version was reported as done", conditionAdvice)
	case !errors.Is(stale, object.ErrChanged):
		t.failErr("put_if_match", stale, conditionAdvice)
	case !errors.Is(missing, object.ErrChanged):
		t.failErr("put_if_match", fmt.Errorf("replace an object that does not exist: %w", orWrong(missing)), conditionAdvice)
	default:
		t.ok("put_if_match", "refused where the object has changed")
	}
}

// defaultLargeSize is more than drivers send in one request, so that it takes the
// road of packs: an upload in parts, whose size is not known before.
const defaultLargeSize = 9<<20 + 12345

// large lets two writers race with objects that are uploaded in parts; some
// servers check the condition for small objects only.
func (t *prober) large(ctx context.Context) {
	key := t.key("large")
	sums := make([][]byte, 2)
	errs := make([]error, 2)
	var g errgroup.Group
	for i := range sums {
		g.Go(func() error {
			body := newLargeBody(i, t.largeSize)
			_, errs[i] = t.store.Put(ctx, key, body, object.PutOptions{IfAbsent: true})
			sums[i] = body.sum.Sum(nil)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.fail("large_put", "two writers of one large object were both told that they had won", conditionAdvice)
			return
		case err == nil:
			winner = i
		case !errors.Is(err, object.ErrExists):
			t.failErr("large_put", err, storeAdvice(err, "write"))
			return
		}
	}
	body, err := t.store.Get(ctx, key, 0, -1)
	if err != nil {
		t.failErr("large_put", fmt.Errorf("the store accepted a large object and does not give it back: %w", err), lostAdvice)
		return
	}
	defer body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	switch {
	case err != nil:
		t.failErr("large_put", err, storeAdvice(err, "read"))
	case n != int64(t.largeSize) || winner >= 0 && !bytes.Equal(sum.Sum(nil), sums[winner]):
		t.fail("large_put", fmt.Sprintf("%d bytes were put, and something else came back (%d bytes)", t.largeSize, n), brokenAdvice)
	default:
		t.ok("large_put", "%d MiB in parts, two writers at once, one winner", t.largeSize>>20)
	}
}

// largeBody yields random bytes, its own for each writer, and hashes
// them. It cannot seek, as the body of a pack cannot.
type largeBody struct {
	random *rand.ChaCha8
	left   int
	sum    hash.Hash
}

func newLargeBody(writer, size int) *largeBody {
	return &largeBody{random: rand.NewChaCha8([32]byte{byte(writer)}), left: size, sum: sha256.New()}
}

func (b *largeBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.random.Read(p[:min(len(p), b.left)])
	b.left -= n
	b.sum.Write(p[:n])
	return n, err
}
