package api

import (
	"context"
	"errors"
	"net/http"
)

// Role is what somebody may do. Each one may do what those before it may.
type Role int

// The roles.
const (
	Nobody   Role = iota // nothing but healthz and readyz
	Viewer               // look
	Operator             // look, start and cancel runs, expire, pause
)

// String is the role's name.
func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	}
	return "nobody"
}

// Identity is who sent a request.
type Identity struct {
	// Name is for people: it stands beside the runs that were started, and in
	// the log. "": unknown.
	Name string
	Role Role
}

// ErrCredentials: what a request carries to say who sent it is not valid.
var ErrCredentials = errors.New("not valid")

// Authenticator tells who sent a request. Its methods are called from many
// goroutines, and before the limit of requests applies: one that asks another
// machine bounds itself how often it does.
type Authenticator interface {
	// Authenticate returns Nobody and no error for a request that says nothing
	// that this authenticator understands, or that another may understand: the
	// next one is asked then. An error that is not ErrCredentials says that it
	// could not find out.
	Authenticate(r *http.Request) (Identity, error)
}

type identityKey struct{}

// WithIdentity notes who sent the request of a context.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// IdentityOf is who sent the request of ctx. Handlers that are mounted beside
// the REST API can rely on it.
func IdentityOf(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}
