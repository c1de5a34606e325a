package archive

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/walkeep/walkeep/repo"
)

// downFor is how long a repository that did not answer is spared. A standby asks
// every 5 seconds (wal_retrieve_retry_interval) and once for every segment of its
// own that it replays again after a restart; each question to a repository that
// is silent costs StandbyPatience.
const downFor = 15 * time.Second

// memory is which repositories did not answer lately. Each Get of a server is a
// process of its own, so it is kept in files: empty ones, whose time counts. They
// may be lost, left over or written by two at once; then a repository is asked
// that could have been spared, or spared for downFor.
type memory struct {
	dir string // "": nothing is remembered
	of  string // the cluster and its repositories
	log *zap.Logger
}

// Remembering is this archive with a memory: a Get asks a repository that was
// silent a moment ago after the others, or not at all for a standby. The memory is
// kept in files in dir, which is made when there is something to remember; of
// tells apart clusters that share it.
func (a *Archive) Remembering(dir, of string) *Archive {
	return &Archive{opts: a.opts, ready: map[readyKey]*repo.Epoch{}, memory: memory{dir: dir, of: of, log: a.opts.Log}}
}

func (m memory) path(repository string) string {
	sum := sha256.Sum256([]byte(m.of + "\x00" + repository))
	return filepath.Join(m.dir, fmt.Sprintf("down-%x", sum[:8]))
}

// down reports whether the repository did not answer lately.
func (m memory) down(repository string) bool {
	if m.dir == "" {
		return false
	}
	st, err := os.Lstat(m.path(repository))
	if err != nil {
		return false
	}
	age := time.Since(st.ModTime())
	return age > -downFor && age < downFor // a clock that was set back does not count for long
}

// silent takes note of a repository that did not answer.
func (m memory) silent(repository string) {
	if m.dir == "" {
		return
	}
	path := m.path(repository)
	now := time.Now()
	err := os.Chtimes(path, now, now)
	if os.IsNotExist(err) {
		// Nothing above dir is made: if that is gone, so is the data directory.
		if err = os.Mkdir(m.dir, 0o700); err == nil || os.IsExist(err) {
			err = os.WriteFile(path, nil, 0o600)
		}
	}
	if err != nil {
		m.log.Debug("not remembered that a repository does not answer", zap.String("repository", repository), zap.Error(err))
	}
}

// answered forgets that.
func (m memory) answered(repository string) {
	if m.down(repository) {
		_ = os.Remove(m.path(repository)) // it also ends by itself
	}
}

// inOrder are the indexes of the repositories, those that were silent lately
// last, and how many are not among these.
func (a *Archive) inOrder() (order []int, well int) {
	var last []int
	for i, r := range a.opts.Repos {
		if a.memory.down(r.Name()) {
			last = append(last, i)
		} else {
			order = append(order, i)
		}
	}
	return append(order, last...), len(order)
}
