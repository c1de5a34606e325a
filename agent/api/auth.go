package api

import (
	"crypto/tls"
	"errors"
	"net/http"

	"github.com/walkeep/walkeep/internal/credentials"
)

// auth is who may: a certificate, which the handshake checks, a token, or both.
type auth struct {
	tls    *credentials.TLS
	tokens *credentials.Tokens // nil: none is asked for
}

func newAuth(o Options) (a *auth, err error) {
	a = &auth{}
	a.tls, err = credentials.NewTLS(credentials.TLSOptions{
		CertFile: o.CertFile, KeyFile: o.KeyFile, ClientCAFile: o.ClientCAFile, Log: o.Log,
	})
	if err == nil && o.TokenFile != "" {
		a.tokens, err = credentials.NewTokens(o.TokenFile, o.Log)
	}
	return a, err
}

func (a *auth) tlsConfig() *tls.Config { return a.tls.Config() }

var (
	errNoToken    = errors.New("a bearer token is needed")
	errWrongToken = errors.New("this bearer token is not valid")
)

// check lets a request pass, or says why not. Certificates were checked in the
// handshake.
func (a *auth) check(r *http.Request) error {
	if a.tokens == nil {
		return nil
	}
	token, ok := credentials.Bearer(r)
	switch {
	case !ok:
		return errNoToken
	case !a.tokens.Has(token):
		return errWrongToken
	}
	return nil
}
