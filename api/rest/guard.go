package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
)

// guard is what every request passes but those of probes.
type guard struct {
	opts   Options
	limits *limits
	cross  *http.CrossOriginProtection
	next   http.Handler
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w = &slowWriter{ResponseWriter: w, rc: http.NewResponseController(w), slow: g.opts.Slow}
	defer g.recovered(w, r)
	if err := g.cross.Check(r); err != nil {
		fail(w, api.NewFault(http.StatusForbidden, "a page of another site sent this request", nil))
		return
	}
	id, err := g.identity(r)
	if !g.limits.allow(id, r) {
		h.Set("Retry-After", "1")
		fail(w, api.NewFault(http.StatusTooManyRequests, "too many requests in a short time", nil))
		return
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	g.next.ServeHTTP(w, r.WithContext(api.WithIdentity(r.Context(), id)))
}

// identity asks all authenticators; the one that allows most decides. Nobody is
// no error, unless the request says who sent it.
func (g *guard) identity(r *http.Request) (id api.Identity, err error) {
	for _, a := range g.opts.Authenticators {
		one, e := a.Authenticate(r)
		if e != nil {
			err = errors.Join(err, e)
		} else if one.Role > id.Role {
			id = one
		}
	}
	switch {
	case id.Role != api.Nobody:
		return id, nil
	case err == nil && r.Header.Get("Authorization") != "":
		err = api.ErrCredentials
	}
	return id, err
}

func (g *guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, api.ErrCredentials) {
		g.opts.Log.Error("cannot find out who sent a request", zap.String("from", r.RemoteAddr), zap.Error(err))
		fail(w, api.NewFault(http.StatusServiceUnavailable, "it cannot be found out at the moment who sent this request", nil))
		return
	}
	g.opts.Log.Warn("request refused", zap.String("from", r.RemoteAddr), zap.Error(err))
	w.Header().Set("WWW-Authenticate", "Bearer")
	fail(w, api.NewFault(http.StatusUnauthorized, "this token is not valid", api.ErrCredentials))
}

// recovered ends a request whose handler panicked. The answer may have begun:
// then the connection is cut, so that nobody takes a part for the whole.
func (g *guard) recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	switch {
	case p == nil:
		return
	case p == http.ErrAbortHandler || r.Context().Err() != nil: // nobody is there to answer
		panic(http.ErrAbortHandler)
	}
	g.opts.Log.Error("a request panicked", zap.String("path", r.URL.Path), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
	if w.(*slowWriter).begun {
		panic(http.ErrAbortHandler)
	}
	fail(w, api.NewFault(http.StatusInternalServerError, "the service has a fault here; its log says more", nil))
}

// allowed lets a request through that has the role.
func allowed(role api.Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := forbidden(r.Context(), role); f != nil {
			if f.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			fail(w, f)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// forbidden is why who asks may not, or nil.
func forbidden(ctx context.Context, role api.Role) *api.Fault {
	id := api.IdentityOf(ctx)
	switch {
	case id.Role >= role:
		return nil
	case id.Role == api.Nobody:
		return api.NewFault(http.StatusUnauthorized, "a bearer token or a client's certificate is needed", api.ErrCredentials)
	}
	return api.NewFault(http.StatusForbidden, id.Name+" is a "+id.Role.String()+"; this needs the role "+role.String(), nil)
}

// faults answers what no route matches: 404, or 405 with what is allowed.
func faults(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r) // not h, which does not see the values of the path
			return
		}
		said := &recorder{header: http.Header{}, status: http.StatusOK}
		h.ServeHTTP(said, r)
		if said.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", said.header.Get("Allow"))
			fail(w, api.NewFault(said.status, r.Method+" is not possible here, but "+said.header.Get("Allow"), nil))
			return
		}
		fail(w, api.NewFault(http.StatusNotFound, "there is nothing under this path", nil))
	})
}

// recorder keeps what http.ServeMux would have said.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

func fail(w http.ResponseWriter, f *api.Fault) {
	b, _ := json.Marshal(f) // strings and numbers
	w.Header().Set("Content-Type", f.ContentType(""))
	w.WriteHeader(f.Status)
	_, _ = w.Write(append(b, '\n')) // a client that went away
}

// slowWriter gives each write its own deadline: a client may be slow, or long,
// but must not stand still.
type slowWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	slow  time.Duration
	begun bool
}

// maxWrite is how much a client must take within one deadline, bytes.
const maxWrite = 64 << 10

func (w *slowWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *slowWriter) Write(b []byte) (n int, err error) {
	w.begun = true
	for {
		_ = w.rc.SetWriteDeadline(time.Now().Add(w.slow)) // a recorder in a test has none
		m, err := w.ResponseWriter.Write(b[:min(len(b), maxWrite)])
		n += m
		if b = b[m:]; err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (w *slowWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for handlers that ask for an http.Flusher.
func (w *slowWriter) Flush() {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.slow))
	_ = w.rc.Flush()
}

// isJSON reports whether a content type is JSON.
func isJSON(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(t), "application/json")
}
