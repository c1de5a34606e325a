package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/walkeep/walkeep/pg"
)

// control finds the pg_control of the data directory that a file of pg_wal
// belongs to: beside pg_wal as the path names it (which may be a link), or in
// the working directory, where PostgreSQL runs its commands. nil if there is
// none.
func control(path string) (*pg.Control, error) {
	for _, dir := range []string{filepath.Join(filepath.Dir(path), ".."), "."} {
		c, err := pg.ReadControl(dir)
		if err == nil {
			return &c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, err
		}
	}
	return nil, nil
}

// expect is the system identifier that a file at path must be of: what the
// options say, else what pg_control says, else 0. c may be nil.
func (a *Archive) expect(path string) (id pg.SystemID, c *pg.Control, err error) {
	c, err = control(path)
	if err != nil {
		return 0, nil, fmt.Errorf("find out which cluster %s belongs to: %w", path, err)
	}
	id = a.opts.SystemID
	if c == nil {
		return id, nil, nil
	}
	if id != 0 && id != c.SystemID {
		return 0, nil, refused(path, "it lies in the data directory of cluster %s, not %s", c.SystemID, id)
	}
	return c.SystemID, c, nil
}
