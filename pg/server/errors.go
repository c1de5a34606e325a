package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// What callers branch on, with errors.Is. The error in between is an [*Error],
// which has a hint for the operator.
var (
	// ErrConnect: no connection: address, authentication, TLS, server starting up.
	ErrConnect = errors.New("cannot connect")
	// ErrUnsupported: a version of PostgreSQL that walkeep does not know.
	ErrUnsupported = errors.New("version of PostgreSQL is not supported")
	// ErrPrivileges: the role may not do this. The hint has the GRANTs.
	ErrPrivileges = errors.New("privileges are missing")
	// ErrPromoted: the standby became a primary during the backup.
	ErrPromoted = errors.New("the standby was promoted during the backup")
	// ErrFullPageWrites: a standby replayed WAL without full page images, so
	// pages that were torn while they were copied could not be repaired.
	ErrFullPageWrites = errors.New("WAL was written with full_page_writes=off")
	// ErrWALLevel: wal_level=minimal.
	ErrWALLevel = errors.New("wal_level is minimal")
	// ErrConnectionLost: the session is gone, and with it the backup.
	ErrConnectionLost = errors.New("the connection was lost")
	// ErrPooled: statements of this connection reach different sessions.
	ErrPooled = errors.New("the connection goes through a pooler")
	// ErrNoBackup: StopBackup without StartBackup.
	ErrNoBackup = errors.New("no backup is running on this connection")
	// ErrOtherServer: another session by the same conninfo leads to another server.
	ErrOtherServer = errors.New("conninfo led to another server than before")
	// ErrRecovery: only a primary can do this.
	ErrRecovery = errors.New("the server is a standby")
)

// Error is a failed operation on one server.
type Error struct {
	Op   string // what was tried: "start a backup"
	Node string // where: host and port, never a secret
	Err  error
	// Advice says what the operator can do, in sentences; "" if nothing is
	// known beyond the message.
	Advice string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s on %s: %v", e.Op, e.Node, e.Err)
	if e.Advice != "" {
		s += "\nhint: " + strings.ReplaceAll(e.Advice, "\n", "\n      ")
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Hint is Advice, for whoever looks for a method rather than a type.
func (e *Error) Hint() string { return e.Advice }

// SQLSTATEs (errcodes.txt).
const (
	stateInsufficientPrivilege = "42501"
	stateNotInPrerequisite     = "55000" // object_not_in_prerequisite_state
	stateTooManyConnections    = "53300"
	stateInvalidPassword       = "28P01"
	stateInvalidAuthorization  = "28000" // no pg_hba.conf entry
	stateSerializationFailure  = "40001" // also of a conflict with recovery
	stateUndefinedFile         = "58P01"
	stateInvalidCatalog        = "3D000" // no such database
	stateCannotConnectNow      = "57P03" // starting up, shutting down, not yet consistent
)

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// serverText is the server's own message with its detail and hint, in whatever
// language it speaks.
func serverText(err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return ""
	}
	return strings.Join(strings.Fields(strings.Join([]string{pgErr.Message, pgErr.Detail, pgErr.Hint}, " ")), " ")
}

// wrap is the one place where errors of statements get their meaning.
func (c *Conn) wrap(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Node: c.node, Err: err}
	switch {
	case ctx.Err() != nil:
		// What the driver says then is a consequence.
		e.Err = context.Cause(ctx)
	case c.pgx.IsClosed():
		e.Err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
		e.Advice = "The server was restarted, or somebody or something on the way ended the connection. The server's log says which."
	case sqlState(err) == stateInsufficientPrivilege:
		e.Err = fmt.Errorf("%w: %w", ErrPrivileges, err)
		e.Advice = c.grants()
	}
	return e
}

// advised adds a sentinel and advice to an error of a statement.
func (c *Conn) advised(op string, sentinel, err error, advice string) error {
	e := &Error{Op: op, Node: c.node, Err: sentinel, Advice: advice}
	if err != nil {
		e.Err = fmt.Errorf("%w: %w", sentinel, err)
	}
	return e
}
