package check

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// probePrefix begins the keys of probe objects.
const probePrefix = "lease/check-"

// staleProbe is the age at which another check's objects are garbage.
const staleProbe = time.Hour

// prober tries what a store promises, on objects of its own.
type prober struct {
	*Section
	store  object.Store
	clock  func() time.Time
	prefix string // of this run's keys

	largeSize int // bytes

	mu   sync.Mutex // guards keys
	keys []string   // that may exist
}

// probeStore runs all probes and removes their objects.
func (o Options) probeStore(ctx context.Context, p *repository) {
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		p.failErr("put", err, "The system has no random numbers.")
		return
	}
	t := &prober{Section: &p.Section, store: p.repo.Store(), clock: o.Clock, prefix: probePrefix + hex.EncodeToString(random) + "-", largeSize: o.largeSize}
	defer t.cleanUp(ctx)
	if !t.putAndGet(ctx) {
		p.skip("conditions", "of no use before put and get work")
		return
	}
	t.list(ctx)
	t.ifAbsent(ctx)
	t.raceIfAbsent(ctx)
	t.ifMatch(ctx)
	t.raceIfMatch(ctx)
	t.large(ctx)
	t.delete(ctx)
}

// key makes a key that will be cleaned up.
func (t *prober) key(name string) string {
	k := t.prefix + name
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = append(t.keys, k)
	return k
}

func (t *prober) put(ctx context.Context, key string, content []byte, o object.PutOptions) (object.Info, error) {
	o.Size = int64(len(content))
	return t.store.Put(ctx, key, bytes.NewReader(content), o)
}

func (t *prober) get(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	body, err := t.store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

const (
	lostAdvice   = "Do not use this store: it says that data is stored which is not. A caching or asynchronous gateway in front of the real store must be configured to write through."
	brokenAdvice = "Do not use this store: it returns other data than was put. If there is a proxy or gateway in front of it, try without."
)

// putAndGet stores an object and compares what comes back, whole and in part.
// It also reads the store's clock.
func (t *prober) putAndGet(ctx context.Context) bool {
	content := make([]byte, 100_000) // does not fit into one packet or page
	if _, err := rand.Read(content); err != nil {
		t.failErr("put", err, "The system has no random numbers.")
		return false
	}
	key := t.key("content")
	before := t.clock()
	if _, err := t.put(ctx, key, content, object.PutOptions{IfAbsent: true}); err != nil {
		t.failErr("put", err, storeAdvice(err, "write"))
		return false
	}
	after := t.clock()
	t.ok("put", "%d bytes", len(content))

	got, err := t.get(ctx, key, 0, -1)
	switch {
	case errors.Is(err, object.ErrNotFound):
		t.failErr("get", fmt.Errorf("the store accepted an object and lost it: %w", err), lostAdvice)
		return false
	case err != nil:
		t.failErr("get", err, storeAdvice(err, "read"))
		return false
	case !bytes.Equal(got, content):
		t.fail("get", fmt.Sprintf("%d bytes were put, and something else came back (%d bytes)", len(content), len(got)), brokenAdvice)
		return false
	}
	part, err := t.get(ctx, key, 65_000, 1000)
	if err != nil || !bytes.Equal(part, content[65_000:66_000]) {
		t.failErr("get", fmt.Errorf("a range of 1000 bytes came back as %d others (%w)", len(part), orWrong(err)), "Use a store, or a gateway, that answers ranged reads.")
		return false
	}
	t.ok("get", "whole and in part, as it was put")

	info, err := t.store.Stat(ctx, key)
	switch {
	case err != nil:
		t.failErr("stat", err, storeAdvice(err, "read"))
	case info.Size != int64(len(content)) || info.Version == "":
		t.fail("stat", fmt.Sprintf("size %d and version %q of an object of %d bytes", info.Size, info.Version, len(content)), brokenAdvice)
	default:
		t.Section.clock(info.Modified, before, after, time.Second)
	}
	return true
}

func orWrong(err error) error {
	if err == nil {
		return errors.New("wrong bytes")
	}
	return err
}

// list looks for the object under several prefixes.
func (t *prober) list(ctx context.Context) {
	const advice = "Use a store whose listings are complete and ordered at once; a caching gateway in between may be the reason that they are not."
	second := t.key("content-2")
	if _, err := t.put(ctx, second, []byte("second"), object.PutOptions{}); err != nil {
		t.failErr("list", err, storeAdvice(err, "write"))
		return
	}
	first := t.prefix + "content"
	for _, l := range []struct {
		prefix, after string
		want          []string
	}{
		{t.prefix, "", []string{first, second}},
		{first, "", []string{first, second}},
		{t.prefix, first, []string{second}},
		{t.prefix, second, nil},
	} {
		var got []string
		err := t.store.List(ctx, l.prefix, object.ListOptions{After: l.after}, func(i object.Info) error {
			got = append(got, i.Key)
			return nil
		})
		if err != nil {
			t.failErr("list", err, storeAdvice(err, "list"))
			return
		}
		if strings.Join(got, "\n") != strings.Join(l.want, "\n") {
			t.fail("list", fmt.Sprintf("%d objects are there, %d are listed (%s)", len(l.want), len(got), strings.Join(got, ", ")), advice)
			return
		}
	}
	t.ok("list", "complete and in order")
}

// delete removes one object and looks whether it is gone.
func (t *prober) delete(ctx context.Context) {
	key := t.prefix + "content"
	if err := t.store.Delete(ctx, key); err != nil {
		t.failErr("delete", err, storeAdvice(err, "delete")+" Expiry and leases need it.")
		return
	}
	if _, err := t.store.Stat(ctx, key); !errors.Is(err, object.ErrNotFound) {
		if err == nil {
			err = errors.New("the object is still there")
		}
		t.failErr("delete", err, "Use a store that deletes; with versioning or object lock, the current version must be hidden by a delete.")
		return
	}
	if _, err := t.get(ctx, key, 0, -1); !errors.Is(err, object.ErrNotFound) {
		t.fail("delete", "the object can still be read", "Use a store that deletes; a cache in between may be the reason that it does not.")
		return
	}
	t.ok("delete", "gone at once")
}

// cleanUp removes the objects of this run, and what killed runs left behind.
// It also runs when ctx has ended.
func (t *prober) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	t.mu.Lock()
	keys := t.keys
	t.mu.Unlock()
	_ = t.store.List(ctx, probePrefix, object.ListOptions{}, func(i object.Info) error {
		if t.clock().Sub(i.Modified) > staleProbe {
			keys = append(keys, i.Key)
		}
		return nil
	}) // the probe of list has said what is wrong with it
	if err := t.store.Delete(ctx, keys...); err != nil && !t.failed() {
		t.warn("clean_up", err.Error(), fmt.Sprintf("Delete the objects under %s of the repository.", probePrefix))
	}
}
