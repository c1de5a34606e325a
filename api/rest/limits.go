package rest

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/walkeep/walkeep/api"
)

// limits bounds how many requests each client sends. A client is an address and
// who it says it is: people behind one proxy do not slow one another down, and
// neither do two machines with one token.
type limits struct {
	rate rate.Limit
	now  func() time.Time

	mu      sync.Mutex // guards what follows
	clients map[client]*clientLimit
}

type client struct {
	addr netip.Addr // of IPv6 the network: a machine has all of it
	name string
}

type clientLimit struct {
	*rate.Limiter
	last time.Time
}

const (
	// burst is for how many seconds' worth of requests come at once: a page that
	// is opened, or many clients that were cut off together.
	burst = 5
	// maxClients bounds the memory for them; those beyond share one limit.
	maxClients = 4096
	// forget is when a client has its whole burst again, so that nothing is lost
	// with it.
	forget = burst * time.Second
)

func newLimits(perSecond int, now func() time.Time) *limits {
	return &limits{rate: rate.Limit(perSecond), now: now, clients: map[client]*clientLimit{}}
}

func (l *limits) allow(id api.Identity, r *http.Request) bool {
	return l.of(client{address(r.RemoteAddr), id.Name}).AllowN(l.now(), 1)
}

func (l *limits) of(c client) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	known := l.clients[c]
	if known == nil && len(l.clients) >= maxClients {
		for k, v := range l.clients {
			if now.Sub(v.last) > forget {
				delete(l.clients, k)
			}
		}
		if len(l.clients) >= maxClients {
			c = client{}
			known = l.clients[c]
		}
	}
	if known == nil {
		known = &clientLimit{Limiter: rate.NewLimiter(l.rate, burst*int(l.rate))}
		l.clients[c] = known
	}
	known.last = now
	return known.Limiter
}

func address(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		p, err := addr.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return addr
}

// slots bounds how much is done at a time.
type slots chan struct{}

// patience is how long a request waits for a slot.
const patience = 5 * time.Second

// take waits for a slot, bounded. false: there was none.
func (s slots) take(ctx context.Context, wait time.Duration) bool {
	select {
	case s <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case s <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (s slots) give() { <-s }

// bound answers 503 when there is no slot.
func (s slots) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.take(r.Context(), patience) {
			busy(w)
			return
		}
		defer s.give()
		next.ServeHTTP(w, r)
	})
}

func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "2")
	fail(w, api.NewFault(http.StatusServiceUnavailable, "too many requests at a time", nil))
}
