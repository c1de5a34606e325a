package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Privilege is one thing that the role must, or should, be allowed to do.
type Privilege struct {
	Name     string // a function with its argument types, or a predefined role
	Needed   string // for what
	Required bool   // without it no backup can be taken
	Granted  bool
	Grant    string // the statement that grants it
}

type wanted struct {
	name, needed string
	role         bool // a predefined role, not a function
	required     bool
	from, to     int // major versions, inclusive
}

// readPrivileges are what Files needs besides.
var readPrivileges = []wanted{
	{"pg_ls_dir(text, boolean, boolean)", "list the data directory over SQL", false, true, MinMajor, MaxMajor},
	{"pg_stat_file(text, boolean)", "look at files over SQL", false, true, MinMajor, MaxMajor},
	{"pg_read_binary_file(text, bigint, bigint, boolean)", "read files over SQL", false, true, MinMajor, MaxMajor},
}

var wantedPrivileges = []wanted{
	{"pg_backup_start(text, boolean)", "begin a backup", false, true, 15, MaxMajor},
	{"pg_backup_stop(boolean)", "end a backup", false, true, 15, MaxMajor},
	{"pg_start_backup(text, boolean, boolean)", "begin a backup", false, true, MinMajor, 14},
	{"pg_stop_backup(boolean, boolean)", "end a backup", false, true, MinMajor, 14},
	{"pg_control_system()", "know which cluster this is", false, true, MinMajor, MaxMajor},
	{"pg_control_checkpoint()", "know the timeline of a standby", false, true, MinMajor, MaxMajor},
	{"pg_control_recovery()", "know the timeline of a standby", false, true, MinMajor, MaxMajor},
	{"pg_switch_wal()", "have the last segment of a standby's backup archived soon, and check archiving", false, false, MinMajor, MaxMajor},
	{"pg_create_restore_point(text)", "check archiving on an idle server", false, false, MinMajor, MaxMajor},
	{"pg_monitor", "see data_directory and the state of replication", true, false, MinMajor, MaxMajor},
}

func (c *Conn) wanted() []wanted {
	var out []wanted
	all := wantedPrivileges
	if c.reads {
		all = slices.Concat(all, readPrivileges)
	}
	for _, w := range all {
		if c.Major() >= w.from && c.Major() <= w.to {
			out = append(out, w)
		}
	}
	return out
}

func (c *Conn) grant(w wanted) string {
	user := `"` + strings.ReplaceAll(c.user, `"`, `""`) + `"`
	if w.role {
		return fmt.Sprintf("GRANT %s TO %s;", w.name, user)
	}
	return fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_catalog.%s TO %s;", w.name, user)
}

// grants is the advice for a role that may not do enough.
func (c *Conn) grants() string {
	lines := []string{fmt.Sprintf("Run this as a superuser, in database %q of the primary (grants on functions count in one database only):", c.db)}
	for _, w := range c.wanted() {
		lines = append(lines, c.grant(w))
	}
	return strings.Join(lines, "\n")
}

// GrantAdvice is all that a role needs, as SQL with a sentence before it.
func (c *Conn) GrantAdvice() string { return c.grants() }

// Privileges reports what the session's role may do.
func (c *Conn) Privileges(ctx context.Context) ([]Privilege, error) {
	return c.privileges(ctx, c.wanted())
}

// ReadPrivileges reports what it may do of what [Files] needs besides.
func (c *Conn) ReadPrivileges(ctx context.Context) ([]Privilege, error) {
	return c.privileges(ctx, readPrivileges)
}

func (c *Conn) privileges(ctx context.Context, all []wanted) ([]Privilege, error) {
	var out []Privilege
	for _, w := range all {
		sql := `select has_function_privilege(current_user, $1::text, 'execute')`
		if w.role {
			sql = `select pg_has_role(current_user, $1::name, 'usage')`
		}
		p := Privilege{Name: w.name, Needed: w.needed, Required: w.required, Grant: c.grant(w)}
		if err := c.queryRow(ctx, "read privileges", sql, []any{w.name}, &p.Granted); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
