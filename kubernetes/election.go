package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ElectionOptions of NewElection. All but Log are required.
type ElectionOptions struct {
	Client *Client
	Lease  string // its name
	// Identity is what stands in the Lease: of no other service that stands.
	Identity string
	// TTL is how long after its last sign of life the leader's leases in the
	// repositories are stale. The election is a third quicker.
	TTL time.Duration
	Log *zap.Logger // nil: none
}

// Election says by a Lease of Kubernetes who is to lead.
//
// What is written, and what is left of it: the Lease is created, or updated under
// the condition that it is still the version that was read. Of several who
// want it one gets it. Killed before: nothing happened; killed afterwards:
// the Lease goes stale. An answer that got lost: the Lease is read, and has our name.
type Election struct {
	o      ElectionOptions
	valid  time.Duration // how long the Lease lasts without being renewed
	giveUp time.Duration // how long after a renewal the holder counts on it
	again  time.Duration // between looks, and renewals

	// Of Stand's goroutine:
	mine    *coordination.Lease // as we last wrote it; nil: not known
	version string              // the one under watch, "": none
	since   time.Time           // when it was first seen
	said    string              // the last trouble, so that it is said once

	mu      sync.Mutex // guards what follows
	until   time.Time  // when we stop to count as elected
	elected bool       // what was said last
	changed chan struct{}
}

// NewElection asks nothing yet.
func NewElection(o ElectionOptions) (*Election, error) {
	if o.Client == nil || o.Lease == "" || o.Identity == "" || o.TTL <= 0 {
		return nil, errors.New("kubernetes: client, lease, identity and TTL of an election are required")
	}
	if o.Client.namespace == "" {
		return nil, fmt.Errorf("kubernetes: in which namespace is the lease %s?", o.Lease)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.Log = o.Log.With(zap.String("lease", o.Client.namespace+"/"+o.Lease))
	return &Election{o: o, valid: o.TTL * 2 / 3, giveUp: o.TTL / 2, again: o.TTL / 8, changed: make(chan struct{})}, nil
}

// Elected is for service.Election.
func (e *Election) Elected() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Now().Before(e.until)
}

// Changed is for service.Election.
func (e *Election) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// count notes until when we count as elected.
func (e *Election) count(until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.until = until
	if is := time.Now().Before(until); is != e.elected {
		e.elected = is
		close(e.changed)
		e.changed = make(chan struct{})
		e.o.Log.Info("election", zap.Bool("elected", is))
	}
}

// Confirm is for service.Election.
func (e *Election) Confirm(ctx context.Context) error {
	lease, err := e.get(ctx)
	if err != nil {
		return err
	}
	if h := holder(lease); h != e.o.Identity {
		return fmt.Errorf("the lease %s of Kubernetes is held by %q", e.o.Lease, h)
	}
	return nil
}

// Stand is for service.Election.
func (e *Election) Stand(ctx context.Context) {
	for ctx.Err() == nil {
		e.say(ctx, e.look(ctx))
		// Not all at the same time.
		look := time.NewTimer(e.again*4/5 + rand.N(e.again*2/5+1))
		select {
		case <-ctx.Done():
		case <-look.C:
		}
		look.Stop()
	}
	if err := e.release(context.WithoutCancel(ctx)); err != nil {
		e.o.Log.Warn("the lease is left to go stale", zap.Error(err))
	}
}

// say logs what is new of a trouble.
func (e *Election) say(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if ctx.Err() != nil || text == e.said {
		return
	}
	e.said = text
	if err != nil {
		e.o.Log.Warn("the election cannot be held", zap.Error(err))
	} else {
		e.o.Log.Info("the election can be held again")
	}
}

// look renews the Lease if it is ours, takes it if it is nobody's.
func (e *Election) look(ctx context.Context) error {
	lease := e.mine
	if lease == nil {
		var err error
		lease, err = e.get(ctx)
		switch {
		case apierrors.IsNotFound(err):
			lease = &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: e.o.Lease, Namespace: e.o.Client.namespace}}
		case err != nil:
			// What happens meanwhile is not seen: whoever holds the Lease gets its
			// whole time when the API server is back.
			e.version = ""
			return err
		}
	}
	if e.mine == nil && !e.free(lease) {
		e.count(time.Time{})
		return nil
	}
	return e.take(ctx, lease)
}

// free reports whether the Lease that was read is ours or nobody's.
func (e *Election) free(lease *coordination.Lease) bool {
	if v := lease.ResourceVersion; e.version == "" || v != e.version {
		e.version, e.since = v, time.Now()
	}
	if h := holder(lease); h == "" || h == e.o.Identity {
		return true
	}
	valid := e.valid
	if s := lease.Spec.LeaseDurationSeconds; s != nil {
		valid = time.Duration(*s) * time.Second
	}
	return time.Since(e.since) >= valid
}

// take writes our name into the Lease, on condition that nobody else wrote.
func (e *Election) take(ctx context.Context, lease *coordination.Lease) error {
	lease = lease.DeepCopy()
	now, start := meta.NowMicro(), time.Now()
	s := &lease.Spec
	if holder(lease) != e.o.Identity {
		transitions := int32(0)
		if s.LeaseTransitions != nil {
			transitions = *s.LeaseTransitions + 1
		}
		s.HolderIdentity, s.AcquireTime, s.LeaseTransitions = &e.o.Identity, &now, &transitions
	}
	seconds := int32(math.Ceil(e.valid.Seconds()))
	s.RenewTime, s.LeaseDurationSeconds = &now, &seconds
	written, err := e.put(ctx, lease)
	switch {
	case err == nil:
		e.mine, e.version = written, ""
		e.count(start.Add(e.giveUp))
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		// Somebody else was faster, or removed it: the next look shows.
		e.mine = nil
		return nil
	}
	e.mine, e.version = nil, "" // it may have been written all the same
	if !e.Elected() {
		e.count(time.Time{})
	}
	return err
}

// release gives the Lease back if it is ours.
func (e *Election) release(ctx context.Context) error {
	if e.mine == nil && !e.Elected() {
		return nil
	}
	defer e.count(time.Time{})
	for {
		lease, err := e.get(ctx)
		if apierrors.IsNotFound(err) || err == nil && holder(lease) != e.o.Identity {
			return nil
		}
		if err != nil {
			return err
		}
		none, now, second := "", meta.NowMicro(), int32(1)
		lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.LeaseDurationSeconds = &none, &now, &second
		if _, err = e.put(ctx, lease); !apierrors.IsConflict(err) {
			return err
		}
	}
}

func holder(lease *coordination.Lease) string {
	if h := lease.Spec.HolderIdentity; h != nil {
		return *h
	}
	return ""
}

// bound is how long one request may take, so that a holder tries more than once
// before it gives up.
func (e *Election) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(answerTime, max(e.giveUp/2, time.Second)))
}

func (e *Election) get(ctx context.Context) (*coordination.Lease, error) {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	lease := &coordination.Lease{}
	err := e.o.Client.coordination.Get().Namespace(e.o.Client.namespace).Resource("leases").Name(e.o.Lease).Do(ctx).Into(lease)
	if err != nil {
		return nil, fmt.Errorf("read the lease %s of Kubernetes: %w", e.o.Lease, err)
	}
	return lease, nil
}

// put creates or updates the Lease. Without a version it creates.
func (e *Election) put(ctx context.Context, lease *coordination.Lease) (*coordination.Lease, error) {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	r := e.o.Client.coordination.Post()
	if lease.ResourceVersion != "" {
		r = e.o.Client.coordination.Put().Name(e.o.Lease)
	}
	written := &coordination.Lease{}
	if err := r.Namespace(e.o.Client.namespace).Resource("leases").Body(lease).Do(ctx).Into(written); err != nil {
		return nil, fmt.Errorf("write the lease %s of Kubernetes: %w", e.o.Lease, err)
	}
	return written, nil
}
