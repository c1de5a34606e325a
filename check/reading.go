package check

import (
	"context"

	"github.com/walkeep/walkeep/pg/server"
)

// OverSQL says when backups are read over SQL: in the words of the configuration's
// postgres.backup-source.
type OverSQL string

// The values. "" is OverSQLWhereNeeded.
const (
	OverSQLWhereNeeded OverSQL = "auto" // where no node has an agent or its data directory here
	OverSQLNever       OverSQL = "files"
	OverSQLAlways      OverSQL = "sql"
)

// checkReading finds out whether backups can be read over SQL, if that is how
// they would be taken from here.
func (o Options) checkReading(ctx context.Context, nodes []*node) {
	if o.OverSQL == OverSQLNever {
		return
	}
	for _, n := range nodes {
		if n.files && o.OverSQL != OverSQLAlways {
			return
		}
	}
	for _, n := range nodes {
		if n.known {
			n.checkReading(ctx, o.OverSQL == OverSQLAlways)
		}
	}
}

// checkReading looks at the privileges, and, if they are there, reads. Without
// them nothing else is wrong where only the check runs on this machine.
func (n *node) checkReading(ctx context.Context, required bool) {
	const name = "read_over_sql"
	privileges, err := n.conn.ReadPrivileges(ctx)
	if err != nil {
		n.failErr(name, err, n.conn.GrantAdvice())
		return
	}
	missing := false
	for _, p := range privileges {
		if p.Granted {
			continue
		}
		missing = true
		c := Check{
			Name: "privilege", Target: p.Name, Status: Warning, Advice: grantAdvice(p),
			Detail: "missing; needed to " + p.Needed + ": no node has an agent or its data directory on this machine, so a backup from here would be read that way",
		}
		if required {
			c.Status, c.Detail = Failed, "missing; needed to "+p.Needed
		}
		n.add(c)
	}
	if missing {
		return
	}
	files, err := server.OpenFiles(ctx, n.of.ConnInfo, n.conn, 2, nil)
	if err != nil {
		n.failErr(name, err, "Let conninfo lead to one server, in which the role may have at least three sessions.")
		return
	}
	defer files.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only read
	n.ok(name, "backups can be read over SQL")
}
