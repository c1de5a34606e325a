package backup

import "strings"

// The rules of this file are those of PostgreSQL's own pg_basebackup
// (basebackup.c, reinit.c, fd.c), for servers 13 to 18.

// emptiedDirs are kept as directories but without what is in them: the server
// removes or rebuilds the contents when it starts.
var emptiedDirs = map[string]bool{
	"pg_stat_tmp":  true,
	"pg_replslot":  true,
	"pg_dynshmem":  true,
	"pg_notify":    true,
	"pg_serial":    true,
	"pg_snapshots": true,
	"pg_subtrans":  true,
}

// leftOutFiles belong to the running server, or to the backup that it was
// once restored from, and never to this backup. backup_label and
// tablespace_map come from pg_backup_stop instead.
var leftOutFiles = map[string]bool{
	"postmaster.pid":           true,
	"postmaster.opts":          true,
	"postgresql.auto.conf.tmp": true,
	"current_logfiles.tmp":     true,
	"backup_label":             true,
	"tablespace_map":           true,
	"backup_manifest":          true,
	".DS_Store":                true,
}

// leftOut says whether a file or directory is left out whole because of its
// name alone, wherever it lies.
func leftOut(name string) bool {
	return leftOutFiles[name] ||
		strings.HasPrefix(name, "pgsql_tmp") ||
		strings.HasPrefix(name, "pg_internal.init")
}

// fork is one of the files that make up a relation.
type fork string

// The forks by the ending of their file names.
const (
	forkMain fork = ""
	forkFSM  fork = "fsm"
	forkVM   fork = "vm"
	forkInit fork = "init"
)

// relFile is what the name of a relation's file says.
type relFile struct {
	number  string // relfilenumber, decimal
	fork    fork
	segment uint32 // 0 for the first gigabyte
}

// parseRelFile reads "<digits>[_fork][.segment]". Names that only look
// similar (leading zero, segment 0) are not relation files: PostgreSQL never
// makes them.
func parseRelFile(name string) (relFile, bool) {
	n := digits(name)
	if n == 0 || n > 10 || name[0] == '0' {
		return relFile{}, false
	}
	f, seg, ok := parseForkSegment(name[n:])
	return relFile{number: name[:n], fork: f, segment: seg}, ok
}

// isTempRelFile recognises "t<backend>_<digits>[_fork][.segment]", a file of a
// temporary relation, which no other session and no restored server can use.
func isTempRelFile(name string) bool {
	if name == "" || name[0] != 't' {
		return false
	}
	rest := name[1:]
	n := digits(rest)
	if n == 0 || n == len(rest) || rest[n] != '_' {
		return false
	}
	rest = rest[n+1:]
	n = digits(rest)
	if n == 0 {
		return false
	}
	_, _, ok := parseForkSegment(rest[n:])
	return ok
}

func parseForkSegment(s string) (fork, uint32, bool) {
	f := forkMain
	if strings.HasPrefix(s, "_") {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		f = fork(s[1:end])
		if f != forkFSM && f != forkVM && f != forkInit {
			return "", 0, false
		}
		s = s[end:]
	}
	if s == "" {
		return f, 0, true
	}
	if s[0] != '.' || len(s) < 2 || len(s) > 7 || s[1] == '0' || digits(s[1:]) != len(s)-1 {
		return "", 0, false
	}
	var seg uint32
	for i := 1; i < len(s); i++ {
		seg = seg*10 + uint32(s[i]-'0')
	}
	return f, seg, true
}

// digits counts the decimal digits that s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func allDigits(s string) bool { return s != "" && digits(s) == len(s) }

// isDatabaseDir says whether a directory (path relative to PGDATA) holds the
// relations of one database: base/<oid> and pg_tblspc/<oid>/PG_…/<oid>.
func isDatabaseDir(path string) bool {
	part := strings.Split(path, "/")
	switch len(part) {
	case 2:
		return part[0] == "base" && allDigits(part[1])
	case 4:
		return part[0] == "pg_tblspc" && allDigits(part[3])
	}
	return false
}
