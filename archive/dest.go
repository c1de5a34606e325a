package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tempPrefix begins the names of files that are being written. PostgreSQL
// ignores them in pg_wal.
const tempPrefix = ".walkeep-get-"

// staleAfter is how long an unfinished file of a killed process is left alone.
const staleAfter = time.Hour

// destination is a file that appears under its name only when it is whole.
type destination struct {
	path    string
	file    *os.File
	err     error  // of a write
	arrived func() // called for every write, if not nil
}

// newDestination begins a file that will be at path.
func newDestination(path string) (*destination, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &destination{path: path, file: f}, nil
}

// Write remembers its error: a full disk is not the repository's fault.
func (d *destination) Write(b []byte) (int, error) {
	if d.arrived != nil {
		d.arrived()
	}
	n, err := d.file.Write(b)
	if err != nil {
		d.err = err
	}
	return n, err
}

// pad lengthens the file with zeroes.
func (d *destination) pad(size int64) error { return d.file.Truncate(size) }

// commit makes the file durable and gives it its name, in this order, so that
// whoever sees the name sees the whole file, after a crash too.
func (d *destination) commit() error {
	err := d.file.Sync()
	if err == nil {
		err = d.file.Chmod(0o600) // as the server's own
	}
	if err = errors.Join(err, d.file.Close()); err == nil {
		err = os.Rename(d.file.Name(), d.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.path, errors.Join(err, os.Remove(d.file.Name())))
	}
	return syncDir(filepath.Dir(d.path))
}

// abandon removes an unfinished file.
func (d *destination) abandon() {
	_ = d.file.Close()
	_ = os.Remove(d.file.Name())
}

// WriteFile makes a file of what fill writes. It appears under its name only
// when it is whole and durable.
func WriteFile(path string, fill func(io.Writer) error) error {
	d, err := newDestination(path)
	if err != nil {
		return err
	}
	if err := fill(d); err != nil {
		d.abandon()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return d.commit()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes unfinished files of killed processes. Failing to is harmless.
func sweep(dir string, now time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
