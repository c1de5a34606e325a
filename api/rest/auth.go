package rest

import (
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/internal/credentials"
)

// Tokens lets those in who send a bearer token of a file.
type Tokens struct {
	tokens *credentials.Tokens
	id     api.Identity
}

// NewTokens reads the file; it is read again when it changes.
func NewTokens(path string, role api.Role, log *zap.Logger) (*Tokens, error) {
	t, err := credentials.NewTokens(path, log)
	if err != nil {
		return nil, err
	}
	return &Tokens{t, api.Identity{Name: role.String() + " token", Role: role}}, nil
}

// Authenticate is for api.Authenticator.
func (t *Tokens) Authenticate(r *http.Request) (api.Identity, error) {
	if token, ok := credentials.Bearer(r); ok && t.tokens.Has(token) {
		return t.id, nil
	}
	return api.Identity{}, nil
}

// Certificates lets those in whose certificate, which the handshake has
// verified, has one of the common names. "*" is every name.
type Certificates struct {
	Operators, Viewers []string
}

// Authenticate is for api.Authenticator.
func (c Certificates) Authenticate(r *http.Request) (api.Identity, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return api.Identity{}, nil
	}
	name := r.TLS.VerifiedChains[0][0].Subject.CommonName
	id := api.Identity{Name: name}
	switch has := func(l []string) bool { return slices.Contains(l, "*") || name != "" && slices.Contains(l, name) }; {
	case has(c.Operators):
		id.Role = api.Operator
	case has(c.Viewers):
		id.Role = api.Viewer
	}
	return id, nil
}

// Anonymous lets everybody look who does not say who he is.
type Anonymous struct{}

// Authenticate is for api.Authenticator.
func (Anonymous) Authenticate(r *http.Request) (api.Identity, error) {
	if r.Header.Get("Authorization") != "" {
		return api.Identity{}, nil
	}
	return api.Identity{Name: "anonymous", Role: api.Viewer}, nil
}
