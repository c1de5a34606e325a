package backup

import (
	"errors"
	"io"

	"github.com/walkeep/walkeep/repo"
)

// cursor goes through a parent's manifest beside the walk through PGDATA: both
// have the same order, so that neither needs to be held in memory.
type cursor struct {
	// read is the next entry and the packs that its chunks name, or io.EOF;
	// valid until it is called again.
	read  func() (repo.FileEntry, map[int]repo.PackRef, error)
	next  repo.FileEntry
	packs map[int]repo.PackRef
	have  bool
	ended bool
}

// manifestCursor goes through a whole manifest.
func manifestCursor(m *repo.ManifestReader) cursor {
	return cursor{read: func() (repo.FileEntry, map[int]repo.PackRef, error) {
		f, err := m.Next()
		return f, m.Packs(), err
	}}
}

// advance makes sure that next is there, or ended is set.
func (c *cursor) advance() error {
	if c.have || c.ended {
		return nil
	}
	f, packs, err := c.read()
	if errors.Is(err, io.EOF) {
		c.ended = true
		return nil
	}
	if err != nil {
		return err
	}
	c.next, c.packs, c.have = f, packs, true
	// What follows this one comes after all others.
	c.ended = f.Path == repo.LabelFile
	return nil
}

// find is the parent's file of that path, or nil. Paths must come in the order
// of manifests. Of several entries of one path the last one counts: a journal
// has the beginnings of files before it has the files.
func (c *cursor) find(path string) (found *parentFile, err error) {
	for {
		if err := c.advance(); err != nil || c.ended {
			return found, err
		}
		order := -1
		if c.next.Path != "." {
			order = repo.ComparePaths(c.next.Path, path)
		}
		if order > 0 {
			return found, nil
		}
		if order == 0 && c.next.Type == repo.RegularFile {
			found = newParentFile(c.next, c.packs)
		}
		c.have = false
	}
}
