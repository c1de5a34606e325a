package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/walkeep/walkeep/backup"
	"github.com/walkeep/walkeep/pg/server"
)

// node is a server and what was found out about it.
type node struct {
	Section
	conn *server.Conn // nil if there is none
	info server.Info  // valid if known
	of   Node
	// files: its data directory is here, or it has an agent.
	files bool
	// known says that info could be read.
	known bool
}

func (n *node) close(ctx context.Context) {
	if n.conn != nil {
		_ = n.conn.Close(context.WithoutCancel(ctx)) // nothing is at stake
	}
}

// checkNode does what concerns one node alone, but for its settings.
func (o Options) checkNode(ctx context.Context, of Node) *node {
	n := &node{Section: Section{Kind: KindNode, Name: of.Name}, of: of, files: of.Agent != ""}
	connectCtx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := server.Connect(connectCtx, of.ConnInfo, o.Log)
	switch {
	case errors.Is(err, server.ErrUnsupported):
		n.ok("connection", "connected")
		n.failErr("version", err, "Upgrade walkeep, or the server.")
		return n
	case err != nil:
		n.failErr("connection", err, "Is the server running, and does conninfo lead to it?")
		return n
	}
	n.conn, n.Place = conn, conn.Node()
	n.checkPrivileges(ctx)
	before := o.Clock()
	if n.info, err = conn.Info(ctx); err != nil {
		n.failErr("settings", err, conn.GrantAdvice())
		return n
	}
	after := o.Clock()
	n.known = true
	n.Checks = append([]Check{
		{Name: "connection", Status: OK, Detail: n.role() + fmt.Sprintf(", timeline %d", n.info.Timeline)},
		{Name: "version", Status: OK, Detail: "PostgreSQL " + n.info.Settings["server_version"]},
		{Name: "system_identifier", Status: OK, Detail: n.info.SystemID.String()},
	}, n.Checks...)
	n.checkDataDir(ctx, of)
	n.checkClock(before, after)
	return n
}

func (n *node) role() string {
	if n.info.InRecovery {
		return "standby"
	}
	return "primary"
}

// grantAdvice says how to grant one privilege.
func grantAdvice(p server.Privilege) string {
	return fmt.Sprintf("As a superuser, on the primary, in the database that conninfo names: %s", p.Grant)
}

func (n *node) checkPrivileges(ctx context.Context) {
	privileges, err := n.conn.Privileges(ctx)
	if err != nil {
		n.failErr("privileges", err, n.conn.GrantAdvice())
		return
	}
	granted := 0
	for _, p := range privileges {
		switch advice := grantAdvice(p); {
		case p.Granted:
			granted++
		case p.Required:
			n.add(Check{Name: "privilege", Target: p.Name, Status: Failed, Detail: "missing; needed to " + p.Needed, Advice: advice})
		default:
			n.add(Check{Name: "privilege", Target: p.Name, Status: Warning, Detail: "missing; needed to " + p.Needed, Advice: advice})
		}
	}
	if granted == len(privileges) {
		n.ok("privileges", "all %d granted", granted)
	}
}

// checkDataDir looks at the data directory, if it is on this machine: one that
// is configured and exists here is believed to be meant; one that the server
// names only if the server is on this machine.
func (n *node) checkDataDir(ctx context.Context, of Node) {
	dir := of.PGData
	if dir == "" {
		if dir = n.info.DataDirectory; dir == "" {
			n.warn("pgdata", "not known: it is not configured, and the role may not see the server's data_directory",
				"Grant the role pg_monitor, or set pgdata for the node.")
			return
		}
		if !n.local() {
			n.skip("pgdata", "%s is on another machine", dir)
			return
		}
	}
	const asServer = "Run walkeep as the user that the server runs as, which can read its data directory."
	switch _, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		n.skip("pgdata", "%s is not on this machine", dir)
		return
	case err != nil:
		n.failErr("pgdata", err, asServer)
		return
	}
	switch err := backup.CheckDataDir(ctx, dir, n.info); {
	case errors.Is(err, fs.ErrPermission):
		n.failErr("pgdata", err, asServer)
	case err != nil:
		n.failErr("pgdata", err, "Correct pgdata or conninfo of the node: they belong to two different servers.")
	default:
		n.files = true
		n.ok("pgdata", "%s", dir)
	}
}

// local reports whether the connection leads to this machine, as far as its
// address tells.
func (n *node) local() bool {
	host := n.conn.Node()
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "127.") || strings.HasPrefix(host, "localhost:") || strings.HasPrefix(host, "[::1]")
}

// Clocks: commit times in WAL come from servers, and lie at the heart of a
// restore to a time.
const (
	skewWarning = 10 * time.Second
	skewFailure = 5 * time.Minute
)

const clockAdvice = "Run a time service (chrony, systemd-timesyncd) on both machines."

func (n *node) checkClock(before, after time.Time) {
	at, err := time.Parse(time.RFC3339Nano, n.info.ServerTime)
	if err != nil {
		n.failErr("clock", err, "Report this as a defect of walkeep.")
		return
	}
	n.clock(at, before, after, 0)
}

// clock judges a foreign clock that was read between two readings of ours. It
// may be cut to a granularity.
func (s *Section) clock(at, before, after time.Time, granularity time.Duration) {
	skew := time.Duration(0)
	switch {
	case at.Add(granularity).Before(before):
		skew = at.Add(granularity).Sub(before)
	case at.After(after):
		skew = at.Sub(after)
	}
	detail := fmt.Sprintf("differs from this machine's by %s", skew.Abs().Round(time.Second))
	switch {
	case skew.Abs() >= skewFailure:
		s.fail("clock", detail, clockAdvice)
	case skew.Abs() >= skewWarning:
		s.warn("clock", detail, clockAdvice)
	default:
		s.ok("clock", "%s", detail)
	}
}
