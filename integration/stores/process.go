package stores

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/walkeep/walkeep/integration/ports"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 3 * time.Second
	// starts is how often a start is tried: between choosing a port and
	// listening on it, somebody else may have taken it.
	starts = 3
)

// Options of a server. The zero value is a plain server in a directory for
// temporary files.
type Options struct {
	// TLS makes the server speak https; clients need CAFile.
	TLS bool
	// Dir is an existing directory for data and log, kept by Stop. Empty: a
	// new one, removed by Stop.
	Dir string
}

// Server is one running server; S3, GCS and Azure embed it.
type Server struct {
	URL    string // http(s)://127.0.0.1:port
	CAFile string // PEM, with Options.TLS
	Dir    string

	port   *ports.Port
	log    string
	keep   bool // Dir was given
	client *http.Client
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// program is how to run one kind of server.
type program struct {
	name string
	// command is built for a port; s has Dir and, with TLS, the certificates.
	command func(s *Server, port string) *exec.Cmd
	// ready tells whether resp is the answer of a server that works to GET of
	// path.
	path  string
	ready func(resp *http.Response) bool
}

func start(ctx context.Context, p program, o Options) (*Server, error) {
	s := &Server{Dir: o.Dir, keep: o.Dir != "", client: http.DefaultClient}
	if !s.keep {
		dir, err := os.MkdirTemp("", "walkeep-"+p.name+"-")
		if err != nil {
			return nil, err
		}
		s.Dir = dir
	}
	err := s.start(ctx, p, o)
	if err == nil {
		return s, nil
	}
	err = fmt.Errorf("start %s: %w; its log:\n%s", p.name, err, s.Log(40))
	return nil, errors.Join(err, s.Stop())
}

func (s *Server) start(ctx context.Context, p program, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	scheme := "http"
	if o.TLS {
		scheme = "https"
		if err := s.certificates(); err != nil {
			return err
		}
	}
	s.log = filepath.Join(s.Dir, "server.log")
	var err error
	for range starts {
		s.port.Close()
		if s.port, err = ports.Reserve(); err != nil {
			return err
		}
		s.URL = scheme + "://" + s.port.Address()
		if err = s.run(p.command(s, s.port.String())); err != nil {
			return err
		}
		if err = s.await(ctx, p); err == nil || ctx.Err() != nil {
			return err
		}
		s.kill()
	}
	return err
}

// run starts cmd in a process group of its own, with its output in the log.
func (s *Server) run(cmd *exec.Cmd) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.Dir
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	return nil
}

// await returns when the server answers, and is the one that we started.
func (s *Server) await(ctx context.Context, p program) error {
	var last error
	for {
		last = s.probe(ctx, p, last)
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %s", s.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", errors.Join(last, ctx.Err()))
		default:
		}
		if last == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// probe asks once. When it is cut off by ctx it returns what was wrong before.
func (s *Server) probe(ctx context.Context, p program, before error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+p.path, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if ctx.Err() != nil {
		return before
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !p.ready(resp) {
		return fmt.Errorf("GET %s: %s", p.path, resp.Status)
	}
	return nil
}

// Stop ends the server and everything it started, and removes Dir unless it
// was given. It may be called twice.
func (s *Server) Stop() error {
	s.kill()
	s.port.Close()
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	if s.keep {
		return nil
	}
	return os.RemoveAll(s.Dir)
}

func (s *Server) kill() {
	if s.cmd == nil {
		return
	}
	group := -s.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // whoever is left of the group
	<-s.exited
	s.cmd = nil
}

// certificates makes an authority and a certificate of the server in Dir, and a
// client that trusts them.
func (s *Server) certificates() error {
	ca, err := makeCertificates(s.Dir)
	if err != nil {
		return err
	}
	s.CAFile = filepath.Join(s.Dir, "ca.pem")
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	return nil
}

func (s *Server) certFile() string { return filepath.Join(s.Dir, "cert.pem") }
func (s *Server) keyFile() string  { return filepath.Join(s.Dir, "key.pem") }

// random returns 2n hex digits.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// secret writes value into a file of Dir that only we can read.
func (s *Server) secret(name, value string) (string, error) {
	path := filepath.Join(s.Dir, name)
	return path, os.WriteFile(path, []byte(value+"\n"), 0o600)
}
