package faulty_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walkeep/walkeep/repo/object"
	"github.com/walkeep/walkeep/repo/object/faulty"
	"github.com/walkeep/walkeep/repo/object/filesystem"
	"github.com/walkeep/walkeep/repo/object/memory"
	"github.com/walkeep/walkeep/repo/object/storetest"
)

func TestStoreWithoutRules(t *testing.T) {
	storetest.Run(t, func(*testing.T) object.Store { return faulty.New(memory.New()) },
		storetest.Keys(1100), storetest.Large(12<<20))
}

const content = "0123456789"

// try makes one call of each kind, on a store with the object "k", and says how
// each went.
func try(t *testing.T, rule faulty.Rule) (map[faulty.Op]error, *faulty.Store) {
	t.Helper()
	store := faulty.New(memory.New())
	_, err := store.Put(t.Context(), "k", strings.NewReader(content), object.PutOptions{})
	require.NoError(t, err)
	store.SetRules(rule)
	errs := map[faulty.Op]error{}
	r, err := store.Get(t.Context(), "k", 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
	}
	errs[faulty.Get] = err
	_, errs[faulty.Stat] = store.Stat(t.Context(), "k")
	errs[faulty.List] = store.List(t.Context(), "", object.ListOptions{}, func(object.Info) error { return nil })
	_, errs[faulty.Put] = store.Put(t.Context(), "new", strings.NewReader(content), object.PutOptions{})
	errs[faulty.Delete] = store.Delete(t.Context(), "k", "k2")
	store.SetRules()
	return errs, store
}

func present(t *testing.T, store object.Store, key string) bool {
	t.Helper()
	_, err := store.Stat(t.Context(), key)
	if !errors.Is(err, object.ErrNotFound) {
		require.NoError(t, err)
	}
	return err == nil
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		rule          faulty.Rule
		failing       []faulty.Op
		put, deleted  bool
		also          error
		permanent     bool
		retryAfter    time.Duration
		hasRetryAfter bool
	}{
		{rule: faulty.Rule{Fault: faulty.Fail}, failing: []faulty.Op{"get", "stat", "list", "put", "delete"}},
		{rule: faulty.Rule{Fault: faulty.Fail, Err: syscall.ENOSPC}, failing: []faulty.Op{"get", "stat", "list", "put", "delete"}, also: syscall.ENOSPC},
		{rule: faulty.Rule{Fault: faulty.Fail, Op: "put"}, failing: []faulty.Op{"put"}, deleted: true},
		{rule: faulty.Rule{Fault: faulty.Fail, Key: "ne"}, failing: []faulty.Op{"put"}, deleted: true},
		{rule: faulty.Rule{Fault: faulty.Fail, At: 2}, failing: []faulty.Op{"stat"}, put: true, deleted: true},
		{rule: faulty.Rule{Fault: faulty.Deny, Op: "get"}, failing: []faulty.Op{"get"}, put: true, deleted: true, also: object.ErrDenied, permanent: true},
		{rule: faulty.Rule{Fault: faulty.Throttle, Op: "get", Delay: time.Minute}, failing: []faulty.Op{"get"}, put: true, deleted: true, hasRetryAfter: true, retryAfter: time.Minute},
		{rule: faulty.Rule{Fault: faulty.Truncate, Bytes: 1}, failing: []faulty.Op{"get", "put", "delete"}, deleted: true},
		{rule: faulty.Rule{Fault: faulty.Truncate}, failing: []faulty.Op{"get", "list", "put", "delete"}},
		{rule: faulty.Rule{Fault: faulty.Truncate, Bytes: 100}, failing: []faulty.Op{"get", "put", "delete"}, deleted: true},
		{rule: faulty.Rule{Fault: faulty.LoseAnswer}, failing: []faulty.Op{"get", "stat", "list", "put", "delete"}, put: true, deleted: true},
		{rule: faulty.Rule{Fault: faulty.Lose}},
		{rule: faulty.Rule{Fault: faulty.Delay, Delay: time.Millisecond}, put: true, deleted: true},
	} {
		t.Run(fmt.Sprintf("%+v", c.rule), func(t *testing.T) {
			errs, store := try(t, c.rule)
			var failing []faulty.Op
			for op, err := range errs {
				if err == nil {
					continue
				}
				failing = append(failing, op)
				if c.rule.Err == nil {
					require.ErrorIs(t, err, faulty.ErrFault)
				}
				if c.also != nil {
					require.ErrorIs(t, err, c.also)
				}
				require.Equal(t, c.permanent, object.IsPermanent(err))
				after, ok := object.RetryAfter(err)
				require.Equal(t, c.hasRetryAfter, ok)
				require.Equal(t, c.retryAfter, after)
			}
			require.ElementsMatch(t, c.failing, failing)
			require.Equal(t, c.put, present(t, store, "new"))
			require.Equal(t, c.deleted, !present(t, store, "k"))
		})
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := faulty.New(memory.New(), faulty.Rule{Fault: faulty.Delay, Delay: time.Hour}, faulty.Rule{Fault: faulty.Fail})
		began := time.Now()
		_, err := store.Stat(t.Context(), "k")
		require.ErrorIs(t, err, faulty.ErrFault, "a delay goes on to the next rule")
		require.Equal(t, time.Hour, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = store.Stat(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestCounts(t *testing.T) {
	_, store := try(t, faulty.Rule{Fault: faulty.Fail})
	require.Equal(t, 6, store.Count(""))
	require.Equal(t, 2, store.Count(faulty.Put))
	require.Equal(t, "put k", store.Calls()[0].String())
}

func TestParse(t *testing.T) {
	rules, err := faulty.Parse("put#3=kill,get@wal/=truncate:1000,=delay:50ms,put@summary#2=lose,kill-not=fail")
	require.ErrorContains(t, err, `"kill-not=fail"`)
	require.Nil(t, rules)
	rules, err = faulty.Parse("put#3=kill,get@wal/=truncate:1000,=delay:50ms,put@summary#2=lose")
	require.NoError(t, err)
	require.Equal(t, []faulty.Rule{
		{Op: faulty.Put, At: 3, Fault: faulty.Kill},
		{Op: faulty.Get, Key: "wal/", Fault: faulty.Truncate, Bytes: 1000},
		{Fault: faulty.Delay, Delay: 50 * time.Millisecond},
		{Op: faulty.Put, Key: "summary", At: 2, Fault: faulty.Lose},
	}, rules)
	for _, bad := range []string{"put", "put#0=fail", "put#x=fail", "put=explode", "put=truncate:x", "=delay:5", "put=lose:3"} {
		_, err := faulty.Parse(bad)
		require.Error(t, err, bad)
	}
}

// TestKill runs this test's own binary as the process that is killed, while it
// puts into a directory, and looks at what it left.
func TestKill(t *testing.T) {
	run := func(store object.Store) error {
		for _, k := range []string{"a", "b", "c"} {
			if _, err := store.Put(context.Background(), k, strings.NewReader(content), object.PutOptions{IfAbsent: true}); err != nil { //nolint:usetesting // a process of its own
				return err
			}
		}
		return nil
	}
	if dir := os.Getenv("FAULTY_TEST_DIR"); dir != "" {
		below, err := filesystem.New(filesystem.Options{Path: dir})
		require.NoError(t, err)
		rules, err := faulty.Parse(os.Getenv("FAULTY_TEST_RULES"))
		require.NoError(t, err)
		require.NoError(t, run(faulty.New(below, rules...)))
		return
	}
	for rules, want := range map[string]string{
		"put#1=kill":       "",
		"put#2=kill":       "a",
		"put#2=kill:5":     "a",
		"put#2=kill-after": "ab",
		"put@c=kill":       "ab",
		"put@z=kill":       "abc",
	} {
		t.Run(rules, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
			cmd.Env = append(os.Environ(), "FAULTY_TEST_DIR="+dir, "FAULTY_TEST_RULES="+rules)
			out, err := cmd.CombinedOutput()
			if want != "abc" {
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit, string(out))
				require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
			} else {
				require.NoError(t, err, string(out))
			}
			store, err := filesystem.New(filesystem.Options{Path: dir})
			require.NoError(t, err)
			got := ""
			require.NoError(t, store.List(t.Context(), "", object.ListOptions{}, func(i object.Info) error {
				require.Equal(t, int64(len(content)), i.Size)
				got += i.Key
				return nil
			}))
			require.Equal(t, want, got)
		})
	}
}
