package restore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/walkeep/walkeep/repo"
)

// firstNormalOID is the first OID of what users make (transam.h,
// FirstNormalObjectId).
const firstNormalOID = 16384

// databases says which databases of a backup are left out. Their files are made
// all the same, in their size but of zeroes, which takes no room: replay finds
// them, and DROP DATABASE removes them. PG_VERSION stays, by which the server
// takes the directory for a database's.
type databases struct {
	leftOut map[string]string // OID, as in a path, to name
}

// chooseDatabases decides about those that the backup lists. Without include all
// others are taken; the server's own (template0, template1, postgres) always
// are. One that was made while the backup ran is in no list, and is taken.
func chooseDatabases(h repo.Header, include, exclude []string) (*databases, error) {
	d := &databases{leftOut: map[string]string{}}
	if len(include)+len(exclude) == 0 {
		return d, nil
	}
	if len(h.Databases) == 0 {
		return nil, fmt.Errorf("%w: backup %s does not say which databases it has", ErrBadRequest, h.Label)
	}
	find := func(flag string, wanted []string) (map[uint32]bool, error) {
		found := map[uint32]bool{}
		for _, w := range wanted {
			i := slices.IndexFunc(h.Databases, func(db repo.Database) bool { return db.Name == w })
			if i < 0 {
				i = slices.IndexFunc(h.Databases, func(db repo.Database) bool { return strconv.FormatUint(uint64(db.OID), 10) == w })
			}
			if i < 0 {
				return nil, fmt.Errorf("%w: %s %s: backup %s has no such database, only %s", ErrBadRequest, flag, w, h.Label, names(h.Databases))
			}
			found[h.Databases[i].OID] = true
		}
		return found, nil
	}
	in, err := find("--db-include", include)
	if err != nil {
		return nil, err
	}
	out, err := find("--db-exclude", exclude)
	if err != nil {
		return nil, err
	}
	for _, db := range h.Databases {
		switch {
		case out[db.OID] && (in[db.OID] || isOwn(db)):
			return nil, fmt.Errorf("%w: --db-exclude %s: it cannot be left out", ErrBadRequest, db.Name)
		case isOwn(db) || in[db.OID]:
		case out[db.OID] || len(include) > 0:
			d.leftOut[strconv.FormatUint(uint64(db.OID), 10)] = db.Name
		}
	}
	return d, nil
}

// isOwn reports whether the server needs a database itself.
func isOwn(db repo.Database) bool {
	return db.OID < firstNormalOID || db.Name == "postgres" || db.Name == "template1" || db.Name == "template0"
}

func names(dbs []repo.Database) string {
	var all []string
	for _, db := range dbs {
		all = append(all, db.Name)
	}
	return strings.Join(all, ", ")
}

// has reports whether a file is of a database that is left out. Paths are
// base/OID/… and pg_tblspc/OID/PG_15_202209061/OID/….
func (d *databases) has(path string) bool {
	if d == nil || len(d.leftOut) == 0 {
		return false
	}
	parts := strings.Split(path, "/")
	n := 1
	switch {
	case parts[0] == "pg_tblspc":
		n = 3
	case parts[0] != "base":
		return false
	}
	if len(parts) < n+2 || parts[len(parts)-1] == "PG_VERSION" {
		return false
	}
	_, out := d.leftOut[parts[n]]
	return out
}

// list is the names of what is left out, sorted.
func (d *databases) list() []string {
	var all []string
	for _, name := range d.leftOut {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// crcOfZeroes is the CRC-32C of n bytes of zeroes: what comes out of the
// register's initial ones, shifted by n bytes, inverted as always.
func crcOfZeroes(n int64) uint32 { return repo.CombineCRC(^uint32(0), ^uint32(0), n) }
