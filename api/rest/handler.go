package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
)

// Options of New. Service is required.
type Options struct {
	Service api.Service
	Version string
	// Authenticators say who sends a request; the one that allows most decides.
	// None lets nobody in.
	Authenticators []api.Authenticator
	// Mounts are served beside the API.
	Mounts []Mount

	Rate    int // requests a second of one client; 0 = 200
	Streams int // clients that follow runs at a time; 0 = 500
	// Slow is how long a client may take to accept 64 KiB. 0 = 30 s.
	Slow time.Duration
	// Timeout bounds a request that asks the service for more than its snapshot.
	// 0 = 1 min.
	Timeout time.Duration
	Now     func() time.Time // nil = time.Now
	Log     *zap.Logger
}

// Mount is something that is served beside the API.
type Mount struct {
	// Pattern of http.ServeMux, such as "GET /metrics" or "/".
	Pattern string
	Handler http.Handler
	// Role that is needed. With Nobody the handler looks itself, with
	// api.IdentityOf.
	Role api.Role
}

const (
	maxBody     = 64 << 10
	maxRequests = 64 // in progress
	keepAlive   = 15 * time.Second
	minInterval = 500 * time.Millisecond // between two events
)

// handler is what the operations share.
type handler struct {
	Options
	requests slots
	streams  slots
}

// New makes the handler of everything: /v1, /healthz, /readyz and the mounts.
func New(o Options) (http.Handler, error) {
	setDefaults(&o)
	h := &handler{Options: o, requests: make(slots, maxRequests), streams: make(slots, o.Streams)}
	v1 := http.NewServeMux()
	if err := h.v1(v1); err != nil {
		return nil, err
	}
	// A mux of their own: "GET /" and "/v1/" would not go together in one.
	mounts := http.NewServeMux()
	waiting := make(slots, o.Streams) // some of them wait for news
	for _, m := range o.Mounts {
		mounts.Handle(m.Pattern, allowed(m.Role, waiting.bound(m.Handler)))
	}
	versioned, beside := faults(v1), faults(mounts)
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	all.HandleFunc("GET /readyz", h.ready)
	all.Handle("/", &guard{
		opts: o, limits: newLimits(o.Rate, o.Now), cross: http.NewCrossOriginProtection(),
		next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/") {
				versioned.ServeHTTP(w, r)
				return
			}
			beside.ServeHTTP(w, r)
		}),
	})
	return all, nil
}

func setDefaults(o *Options) {
	if o.Rate <= 0 {
		o.Rate = 200
	}
	if o.Streams <= 0 {
		o.Streams = 500
	}
	if o.Slow <= 0 {
		o.Slow = 30 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
}

// ready: the service has looked at its cluster once. Whether all is well is
// another question, and no reason to send requests elsewhere.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	if s := h.Service.Snapshot(); s == nil || s.At.IsZero() {
		http.Error(w, "not yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// v1 registers the operations and the document that describes them.
func (h *handler) v1(mux *http.ServeMux) error {
	config := huma.Config{
		OpenAPI:                      document(h.Version),
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{faultOf},
	}
	a := humago.New(mux, config)
	h.state(a)
	h.backups(a)
	h.runs(a)
	h.jobs(a)
	files, err := describe(a.OpenAPI())
	if err != nil {
		return err
	}
	for path, f := range files {
		mux.Handle("GET "+path, allowed(api.Viewer, f))
	}
	return nil
}

// operation is one operation as the document shows it.
type operation struct {
	id, method, path     string
	summary, description string
	tag                  string
	role                 api.Role
	status               int   // 0 = 200
	errors               []int // besides those that every operation has
	stream               bool
}

// register adds an operation. Its function gets a context that is bounded in
// time, and only the requests of those who may.
func register[I, O any](h *handler, a huma.API, o operation, fn func(context.Context, *I) (*O, error)) {
	errs := append([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable}, o.errors...)
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: o.path, Summary: o.summary, Description: o.description + "\n\nNeeds the role " + o.role.String() + ".",
		Tags: []string{o.tag}, DefaultStatus: o.status, Errors: errs, MaxBodyBytes: maxBody, BodyReadTimeout: 10 * time.Second,
		Security: []map[string][]string{{"token": {}}, {"certificate": {}}},
	}
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) { h.enter(ctx, o, next) }}
	huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
		if o.stream {
			return fn(ctx, in)
		}
		ctx, cancel := context.WithTimeout(ctx, h.Timeout)
		defer cancel()
		out, err := fn(ctx, in)
		if err != nil {
			return nil, faultFor(err)
		}
		return out, nil
	})
}

// enter is what comes before an operation, when nothing of the body was read.
func (h *handler) enter(ctx huma.Context, o operation, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	if f := forbidden(r.Context(), o.role); f != nil {
		if f.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		fail(w, f)
		return
	}
	if ct := r.Header.Get("Content-Type"); r.ContentLength != 0 && !isJSON(ct) {
		fail(w, api.NewFault(http.StatusUnsupportedMediaType, "the body must be application/json", nil))
		return
	}
	in, wait := h.requests, patience
	if o.stream {
		in, wait = h.streams, 0
	}
	if !in.take(r.Context(), wait) {
		busy(w)
		return
	}
	defer in.give()
	next(ctx)
	if o.role == api.Operator {
		h.Log.Info("request", zap.String("operation", o.id), zap.String("path", r.URL.Path), zap.Int("status", ctx.Status()),
			zap.String("by", api.IdentityOf(r.Context()).Name), zap.String("from", r.RemoteAddr))
	}
}
