package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/pg"
)

// Options of New. CertFile, KeyFile, PGData, and ClientCAFile or TokenFile are
// required.
type Options struct {
	Listen            string // host:port
	CertFile, KeyFile string // PEM
	// ClientCAFile has the authorities of clients' certificates; "": none is
	// asked for.
	ClientCAFile string
	// TokenFile has bearer tokens, one a line, so that a new one can be added
	// before the old one goes; "": none is asked for.
	TokenFile string

	PGData  string // whose pg_wal is served; "": there is none here
	Node    string
	Version string
	// Agent and Streaming make the parts of the status; nil: missing.
	Agent     func() any
	Streaming func() any
	Backup    Backup // nil: this agent takes no backups
	Log       *zap.Logger
	// Slow is how long a client may take to accept 256 KiB. 0 = 30 s.
	Slow time.Duration
}

// Bounds of what clients can do to us.
const (
	maxHeader   = 16 << 10
	maxBody     = 64 << 10
	maxRequests = 64
	maxRuns     = 100 // remembered
)

// Server serves the API. Make one with New, and Run it once.
type Server struct {
	opts     Options
	instance string
	auth     *auth
	runs     *runs
	wal      *walFiles
	slots    chan struct{} // requests in progress
	listener net.Listener
	stop     context.CancelFunc // of runs
}

// New reads certificates and tokens and begins to listen.
func New(o Options) (*Server, error) {
	switch {
	case o.CertFile == "" || o.KeyFile == "":
		return nil, errors.New("agent API: no certificate")
	case o.ClientCAFile == "" && o.TokenFile == "":
		return nil, errors.New("agent API: neither client certificates nor tokens are asked for: everybody could read all data")
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Slow <= 0 {
		o.Slow = 30 * time.Second
	}
	a, err := newAuth(o)
	if err != nil {
		return nil, fmt.Errorf("agent API: %w", err)
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("agent API: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		opts: o, instance: rand.Text(), auth: a, slots: make(chan struct{}, maxRequests), listener: l, stop: stop,
		runs: newRuns(ctx, o.Backup, o.Log), wal: &walFiles{known: map[string]examined{}},
	}
	if o.PGData != "" {
		s.wal.dir = filepath.Join(o.PGData, "pg_wal")
	}
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends. Then it takes no new requests, cancels running
// backups, which end cleanly on the server, and waits for both, bounded.
func (s *Server) Run(ctx context.Context) error {
	defer s.stop()
	h := &http.Server{
		Handler:           s.Handler(),
		TLSConfig:         s.auth.tlsConfig(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		// What a client does wrong in its handshake is worth no more.
		ErrorLog: log.New(debugWriter{s.opts.Log}, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- h.ServeTLS(s.listener, "", "") }()
	s.opts.Log.Info("agent API", zap.String("listen", s.Addr()))
	select {
	case err := <-done:
		return fmt.Errorf("agent API: %w", err)
	case <-ctx.Done():
	}
	s.stop() // runs end, and with them the event streams
	s.runs.wait(time.Minute)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := h.Shutdown(end); err != nil {
		_ = h.Close() // whoever is still there is cut off
	}
	<-done
	return nil
}

type debugWriter struct{ log *zap.Logger }

func (w debugWriter) Write(b []byte) (int, error) {
	w.log.Debug("agent API", zap.ByteString("message", b))
	return len(b), nil
}

// Handler is the API without its listener.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/wal", s.inventory)
	mux.HandleFunc("GET /v1/wal/{name}", s.fetch)
	mux.HandleFunc("POST /v1/backups", s.backup)
	mux.HandleFunc("GET /v1/runs", s.listRuns)
	mux.HandleFunc("GET /v1/runs/{id}", s.run)
	mux.HandleFunc("GET /v1/runs/{id}/events", s.events)
	mux.HandleFunc("POST /v1/runs/{id}/cancel", s.cancel)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing under this path and method")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := s.auth.check(r); err != nil {
			s.opts.Log.Warn("request refused", zap.String("from", r.RemoteAddr), zap.Error(err))
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem(w, http.StatusUnauthorized, err.Error())
			return
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			w.Header().Set("Retry-After", "1")
			problem(w, http.StatusServiceUnavailable, "too many requests at a time")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(s.deadlined(w), r)
	})
}

// slowWriter gives each write its own deadline: a client may be slow, or long,
// but must not stand still.
type slowWriter struct {
	http.ResponseWriter
	rc   *http.ResponseController
	slow time.Duration
}

func (s *Server) deadlined(w http.ResponseWriter) http.ResponseWriter {
	return &slowWriter{w, http.NewResponseController(w), s.opts.Slow}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.slow)) // a recorder in a test has none
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *slowWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{Instance: s.instance, Node: s.opts.Node, Version: s.opts.Version}
	for _, part := range []struct {
		to   *json.RawMessage
		from func() any
	}{{&st.Agent, s.opts.Agent}, {&st.Streaming, s.opts.Streaming}} {
		if part.from == nil {
			continue
		}
		b, err := json.Marshal(part.from())
		if err != nil {
			problem(w, http.StatusInternalServerError, err.Error())
			return
		}
		*part.to = b
	}
	reply(w, http.StatusOK, st)
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that went away
}

func problem(w http.ResponseWriter, status int, detail string) {
	sendProblem(w, Problem{Status: status, Detail: detail})
}

func sendProblem(w http.ResponseWriter, p Problem) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	b, _ := json.Marshal(p) // strings and a number
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

// knownName reports whether PostgreSQL archives files of that name.
func knownName(name string) bool { return pg.KindOf(name) != pg.FileUnknown }
