// Package faulty breaks an [object.Store] on purpose, for tests: by rules it
// fails, delays, truncates, loses what it was given while it says that all is
// well, loses the answer to what it did, or kills the process.
//
// A test that claims "whatever call fails, the repository is whole" counts the
// calls of a run without rules, and then runs once per call and fault:
//
//	for k := 1; k <= calls; k++ {
//		store := faulty.New(below, faulty.Rule{At: k, Fault: faulty.Fail})
//		…
//	}
//
// [Parse] reads rules from text, for a process under test that is to be killed.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/repo/object"
)

// Op is a method of a store.
type Op string

// The methods. A Get counts when it is opened.
const (
	Get    Op = "get"
	Stat   Op = "stat"
	List   Op = "list"
	Put    Op = "put"
	Delete Op = "delete"
)

// Fault is what a rule does to a call.
type Fault string

const (
	// Fail fails the call before anything happened.
	Fail Fault = "fail"
	// Throttle fails it with [object.Throttled], an hour of patience at most.
	Throttle Fault = "throttle"
	// Deny fails it with [object.ErrDenied], which no retry cures.
	Deny Fault = "deny"
	// Truncate breaks it in the middle, after Rule.Bytes of the body of a Put or
	// a Get, and after as many keys of a List or Delete. Nothing is put.
	Truncate Fault = "truncate"
	// LoseAnswer does it, and then fails. A Get breaks at its end.
	LoseAnswer Fault = "lose-answer"
	// Lose says that it is done, but is not: a Put reads its body and stores
	// nothing, a Delete deletes nothing. No other method can lose.
	Lose Fault = "lose"
	// Delay waits for Rule.Delay before it goes on.
	Delay Fault = "delay"
	// Kill sends SIGKILL to the own process: before the call, or in the middle
	// of it after Rule.Bytes, if those are not 0.
	Kill Fault = "kill"
	// KillAfter does it, and then sends SIGKILL before anyone learns of it.
	KillAfter Fault = "kill-after"
)

// ErrFault is what all injected failures are.
var ErrFault = errors.New("injected fault")

// Rule says which calls get which fault.
type Rule struct {
	Op    Op     // only these calls; "" is all
	Key   string // only calls for a key (or prefix of a List) that contains this
	At    int    // only the At-th call that matches, counted from 1; 0 is all
	Every int    // only every Every-th call that matches; 0 is all
	Fault Fault
	Bytes int64         // for Truncate and Kill
	Delay time.Duration // for Delay; for Throttle how long to stay away
	Err   error         // what to fail with instead of ErrFault
}

// Call is one call that was made.
type Call struct {
	Op  Op
	Key string // the prefix of a List, the first key of a Delete
}

func (c Call) String() string { return fmt.Sprintf("%s %s", c.Op, c.Key) }

// Store is an object.Store that breaks. Make one with [New].
type Store struct {
	object.Store

	mu    sync.Mutex // guards what follows
	rules []Rule
	seen  []int // how many calls each rule matched
	calls []Call
}

var _ object.Store = (*Store)(nil)

// New breaks store by rules. The first rule that strikes a call is the one that
// counts, except that a Delay goes on to the next.
func New(store object.Store, rules ...Rule) *Store {
	return &Store{Store: store, rules: rules, seen: make([]int, len(rules))}
}

// Calls returns all calls so far, in the order in which they came.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Count returns how many calls of op there were, of any if op is "".
func (s *Store) Count(op Op) int {
	n := 0
	for _, c := range s.Calls() {
		if op == "" || c.Op == op {
			n++
		}
	}
	return n
}

// SetRules replaces the rules; what was counted for them begins anew.
func (s *Store) SetRules(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules, s.seen = rules, make([]int, len(rules))
}

// strike notes a call and returns the rules that apply: any number of delays,
// then at most one other.
func (s *Store) strike(op Op, key string) (delays []Rule, rule Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{op, key})
	for i, r := range s.rules {
		if r.Op != "" && r.Op != op || !strings.Contains(key, r.Key) {
			continue
		}
		s.seen[i]++
		switch {
		case r.At != 0 && r.At != s.seen[i], r.Every != 0 && s.seen[i]%r.Every != 0:
		case r.Fault == Delay:
			delays = append(delays, r)
		case rule.Fault == "":
			rule = r
		}
	}
	return delays, rule
}

// before does what happens before the call and returns the rule for the rest.
func (s *Store) before(ctx context.Context, op Op, key string) (Rule, error) {
	delays, rule := s.strike(op, key)
	for _, d := range delays {
		select {
		case <-time.After(d.Delay):
		case <-ctx.Done():
			return rule, ctx.Err()
		}
	}
	err := rule.error(op, key)
	switch rule.Fault {
	case Fail:
		return rule, err
	case Throttle:
		return rule, object.Throttled(err, rule.Delay)
	case Deny:
		return rule, fmt.Errorf("%w: %w", err, object.ErrDenied)
	case Kill:
		if rule.Bytes == 0 {
			kill()
		}
	}
	return rule, nil
}

func (r Rule) error(op Op, key string) error {
	err := r.Err
	if err == nil {
		err = ErrFault
	}
	return fmt.Errorf("%s %s: %w", op, key, err)
}

// after does what happens after the call.
func (r Rule) after(op Op, key string, err error) error {
	switch {
	case r.Fault == KillAfter:
		kill()
	case r.Fault == LoseAnswer && err == nil:
		return r.error(op, key)
	}
	return err
}

// kill ends the process without a chance to clean up.
func kill() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// Get implements [object.Reader].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	rule, err := s.before(ctx, Get, key)
	if err != nil {
		return nil, err
	}
	r, err := s.Store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	switch rule.Fault {
	case Truncate, Kill, LoseAnswer, KillAfter:
		return struct {
			io.Reader
			io.Closer
		}{&breaking{r: r, left: rule.Bytes, rule: rule, op: Get, key: key}, r}, nil
	}
	return r, nil
}

// Stat implements [object.Reader].
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	rule, err := s.before(ctx, Stat, key)
	if err != nil {
		return object.Info{}, err
	}
	i, err := s.Store.Stat(ctx, key)
	return i, rule.after(Stat, key, err)
}

// List implements [object.Reader].
func (s *Store) List(ctx context.Context, prefix string, opts object.ListOptions, fn func(object.Info) error) error {
	rule, err := s.before(ctx, List, prefix)
	if err != nil {
		return err
	}
	seen := int64(0)
	err = s.Store.List(ctx, prefix, opts, func(i object.Info) error {
		if seen++; seen > rule.Bytes {
			switch rule.Fault {
			case Truncate:
				return rule.error(List, prefix)
			case Kill:
				kill()
			}
		}
		return fn(i)
	})
	return rule.after(List, prefix, err)
}

// Put implements [object.Store].
func (s *Store) Put(ctx context.Context, key string, body io.Reader, opts object.PutOptions) (object.Info, error) {
	rule, err := s.before(ctx, Put, key)
	if err != nil {
		return object.Info{}, err
	}
	switch rule.Fault {
	case Lose:
		n, err := io.Copy(io.Discard, body)
		return object.Info{Key: key, Size: n, Modified: time.Now(), Version: "lost"}, err
	case Truncate, Kill:
		// No Seeker: a driver that seeks back would get past the break.
		body = &breaking{r: body, left: rule.Bytes, rule: rule, op: Put, key: key}
	}
	i, err := s.Store.Put(ctx, key, body, opts)
	if err = rule.after(Put, key, err); err != nil {
		return object.Info{}, err
	}
	return i, nil
}

// Delete implements [object.Store].
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	first := ""
	if len(keys) > 0 {
		first = keys[0]
	}
	rule, err := s.before(ctx, Delete, first)
	if err != nil {
		return err
	}
	switch rule.Fault {
	case Lose:
		return nil
	case Truncate, Kill:
		n := min(int(rule.Bytes), len(keys))
		err := s.Store.Delete(ctx, keys[:n]...)
		if rule.Fault == Kill {
			kill()
		}
		return errors.Join(err, rule.error(Delete, first))
	}
	return rule.after(Delete, first, s.Store.Delete(ctx, keys...))
}

// breaking breaks after left bytes, or at the end, as its rule says.
type breaking struct {
	r    io.Reader
	left int64
	rule Rule
	op   Op
	key  string
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.rule.Fault == LoseAnswer || b.rule.Fault == KillAfter {
		n, err := b.r.Read(p)
		if err == io.EOF {
			err = b.rule.after(b.op, b.key, nil)
		}
		return n, err
	}
	if b.left <= 0 {
		if b.rule.Fault == Kill {
			kill()
		}
		return 0, b.rule.error(b.op, b.key)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF { // shorter than the break is far
		err = b.rule.error(b.op, b.key)
	}
	return n, err
}

// AbortUploads implements [object.Aborter], as a Delete of the prefix.
func (s *Store) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	rule, err := s.before(ctx, Delete, prefix)
	if err != nil || rule.Fault == Lose {
		return 0, err
	}
	n, err := object.AbortUploads(ctx, s.Store, prefix, before)
	return n, rule.after(Delete, prefix, err)
}
