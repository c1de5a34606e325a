package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
)

// TLSOptions of NewTLS. CertFile and KeyFile are required.
type TLSOptions struct {
	CertFile, KeyFile string // PEM
	// ClientCAFile has the authorities of clients' certificates; "": none is
	// asked for.
	ClientCAFile string
	// Optional lets clients in that have no certificate, but none whose
	// certificate is not good.
	Optional bool
	Log      *zap.Logger
}

// TLS is the server's side of TLS from files.
type TLS struct {
	opts TLSOptions

	mu     sync.Mutex // guards what follows
	stamps stamps
	config *tls.Config
}

// NewTLS reads the files.
func NewTLS(o TLSOptions) (*TLS, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	t := &TLS{opts: o, stamps: stamps{}}
	t.stamps.changed(o.CertFile, o.KeyFile, o.ClientCAFile) // before reading: a change in between is seen
	var err error
	if t.config, err = t.load(); err != nil {
		return nil, err
	}
	return t, nil
}

// Config is for a listener; each handshake gets what the files have then.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         protocols(),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.now(), nil },
	}
}

func protocols() []string { return []string{"h2", "http/1.1"} }

func (t *TLS) now() *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stamps.changed(t.opts.CertFile, t.opts.KeyFile, t.opts.ClientCAFile) {
		if c, err := t.load(); err != nil {
			// Maybe half of a change: certificate and key are two files.
			t.opts.Log.Error("the certificate was changed and cannot be used; the one before stays", zap.Error(err))
			delete(t.stamps, t.opts.CertFile) // look again
		} else {
			t.config = c
			t.opts.Log.Info("certificate read again")
		}
	}
	return t.config
}

func (t *TLS) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.opts.CertFile, t.opts.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s and its key: %w", t.opts.CertFile, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protocols(), Certificates: []tls.Certificate{cert}}
	if t.opts.ClientCAFile != "" {
		if c.ClientCAs, err = ReadPool(t.opts.ClientCAFile); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
		if t.opts.Optional {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	return c, nil
}

// ReadPool reads the authorities of a PEM file.
func ReadPool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read authorities from %s: no PEM certificate in it", path)
	}
	return pool, nil
}
