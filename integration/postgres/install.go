package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Majors are the PostgreSQL versions that walkeep serves, oldest first.
func Majors() []int { return []int{13, 14, 15, 16, 17, 18} }

// DebianMajor is the version that Debian 12 brings with all of its tools.
const DebianMajor = 15

// Install is one installed PostgreSQL.
type Install struct {
	Major  int
	BinDir string
	Debian bool // with all tools; 18 has some: scripts/install-programs.sh
}

// Path is the full path of one of its programs, or "" if it has none of that name.
func (i Install) Path(program string) string {
	p := filepath.Join(i.BinDir, program)
	if st, err := os.Stat(p); err != nil || st.IsDir() {
		return ""
	}
	return p
}

// Locate finds an installed server: for 15 Debian's, if it is there, for the
// others (and else) what scripts/install-postgres.sh put into .cache.
func Locate(major int) (Install, error) {
	if major == DebianMajor {
		if i, err := Debian(); err == nil {
			return i, nil
		}
	}
	cache, err := CacheDir()
	if err != nil {
		return Install{}, err
	}
	i := Install{Major: major, BinDir: filepath.Join(cache, strconv.Itoa(major), "bin")}
	if i.Path("postgres") == "" {
		return i, fmt.Errorf("PostgreSQL %d is not installed in %s: run scripts/install-postgres.sh", major, i.BinDir)
	}
	return i, nil
}

// Debian finds Debian's PostgreSQL 15, whose client programs and pg_amcheck
// also serve the other versions.
func Debian() (Install, error) {
	i := Install{Major: DebianMajor, BinDir: "/usr/lib/postgresql/15/bin", Debian: true}
	if i.Path("postgres") == "" || i.Path("psql") == "" {
		return i, errors.New("package postgresql-15 of Debian is not installed: run scripts/install-packages.sh")
	}
	return i, nil
}

// CacheDir is .cache/postgres of the checkout that holds the working
// directory, or $WALKEEP_POSTGRES_DIR.
func CacheDir() (string, error) {
	if d := os.Getenv("WALKEEP_POSTGRES_DIR"); d != "" {
		return filepath.Abs(d)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/walkeep/walkeep\n") {
			return filepath.Join(dir, ".cache", "postgres"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside a walkeep checkout: set WALKEEP_POSTGRES_DIR to the directory with PostgreSQL 13 to 18")
		}
		dir = up
	}
}
