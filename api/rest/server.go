package rest

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"github.com/walkeep/walkeep/internal/credentials"
)

// ServerOptions of NewServer. Listen and Handler are required.
type ServerOptions struct {
	Listen  string // host:port
	Handler http.Handler
	// CertFile and KeyFile are PEM. Without them only this machine can be
	// listened to.
	CertFile, KeyFile string
	// ClientCAFile has the authorities of clients' certificates; "": none is
	// asked for. Who has none must say by other means who he is.
	ClientCAFile string
	// Connections bounds how many there are at a time; further ones wait. 0 =
	// 2000.
	Connections int
	// ReadTimeout bounds how long a client may take to send a request. 0 = 30 s.
	ReadTimeout time.Duration
	Log         *zap.Logger
}

// Server is the listener of the service. Make one with NewServer, and Run it
// once.
type Server struct {
	opts     ServerOptions
	tls      *credentials.TLS // nil: none
	listener net.Listener
	bound    net.Listener
}

const (
	maxHeader = 16 << 10
	// lastRequests is how long requests in progress may take when the server
	// ends.
	lastRequests = 5 * time.Second
)

// NewServer reads certificates and begins to listen.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Connections <= 0 {
		o.Connections = 2000
	}
	if o.ReadTimeout <= 0 {
		o.ReadTimeout = 30 * time.Second
	}
	s := &Server{opts: o}
	var err error
	if o.CertFile != "" {
		s.tls, err = credentials.NewTLS(credentials.TLSOptions{
			CertFile: o.CertFile, KeyFile: o.KeyFile, ClientCAFile: o.ClientCAFile, Optional: true, Log: o.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("service API: %w", err)
		}
	}
	if s.listener, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, fmt.Errorf("service API: %w", err)
	}
	if addr, ok := s.listener.Addr().(*net.TCPAddr); s.tls == nil && (!ok || !addr.IP.IsLoopback()) {
		_ = s.listener.Close() // nothing was said yet
		return nil, fmt.Errorf("service API: listen on %s: %w", o.Listen, errPlain)
	}
	s.bound = netutil.LimitListener(s.listener, o.Connections)
	return s, nil
}

var errPlain = errors.New("tokens would be sent in clear over a network: a certificate is needed")

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is where clients reach the server.
func (s *Server) URL() string {
	if s.tls == nil {
		return "http://" + s.Addr()
	}
	return "https://" + s.Addr()
}

// Run serves until ctx ends. Then it takes no new requests, ends streams, and
// waits for the others, bounded.
func (s *Server) Run(ctx context.Context) error {
	base, endStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer endStreams()
	h := &http.Server{
		Handler:           s.opts.Handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: min(10*time.Second, s.opts.ReadTimeout),
		ReadTimeout:       s.opts.ReadTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		// What a client does wrong in its handshake is worth no more.
		ErrorLog: log.New(debugWriter{s.opts.Log}, "", 0),
	}
	done := make(chan error, 1)
	go func() {
		if s.tls == nil {
			done <- h.Serve(s.bound)
			return
		}
		h.TLSConfig = s.tls.Config()
		done <- h.ServeTLS(s.bound, "", "")
	}()
	s.opts.Log.Info("service API", zap.String("listen", s.URL()))
	select {
	case err := <-done:
		return fmt.Errorf("service API: %w", err)
	case <-ctx.Done():
	}
	endStreams()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRequests)
	defer cancel()
	if err := h.Shutdown(end); err != nil {
		_ = h.Close() // whoever is still there is cut off
	}
	<-done
	return nil
}

type debugWriter struct{ log *zap.Logger }

func (w debugWriter) Write(b []byte) (int, error) {
	w.log.Debug("service API", zap.ByteString("message", b))
	return len(b), nil
}
