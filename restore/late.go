package restore

import (
	"sync"
	"time"

	"github.com/walkeep/walkeep/repo"
)

// lateFiles are those whose checksum the backup's manifest does not know,
// because pages of several backups make them up. It is found out while they
// are written, and so they come last in backup_manifest, where the order says
// nothing. They are those that changed between an incremental backup and its
// parent.
type lateFiles struct {
	mu    sync.Mutex // guards files
	files map[string]*lateFile
	order []string
}

type lateFile struct {
	size  int64
	mtime time.Time
	crc   uint32
}

// expect remembers a file whose checksum will be found.
func (l *lateFiles) expect(e *repo.FileEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files == nil {
		l.files = map[string]*lateFile{}
	}
	l.files[e.Path] = &lateFile{size: e.Size, mtime: e.MTime}
	l.order = append(l.order, e.Path)
}

// found takes the checksum of what was written.
func (l *lateFiles) found(path string, crc uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[path].crc = crc
}

// list enters the files into backup_manifest, when all are written.
func (l *lateFiles) list(m *backupManifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, path := range l.order {
		f := l.files[path]
		m.add(path, f.size, f.mtime, f.crc)
	}
}
