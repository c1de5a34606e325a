package restore

import (
	"os"
	"os/user"
	"strconv"
	"sync"
	"syscall"

	"github.com/walkeep/walkeep/repo"
)

// owners decides who gets the restored files. Only root can give files away;
// for anyone else they belong to who runs the restore.
type owners struct {
	root     bool
	uid, gid int // of the target directory: for owners that do not exist here

	mu     sync.Mutex // guards users and groups
	users  map[string]int
	groups map[string]int
}

// newOwners looks at the target directory, or, if we made that, at the one
// above.
func newOwners(p *place) *owners {
	o := &owners{root: os.Geteuid() == 0, users: map[string]int{}, groups: map[string]int{}}
	dir := "."
	if st, err := p.root.Stat(dir); err == nil {
		o.uid, o.gid, _ = ownerOf(st)
	}
	return o
}

// ownerOf is who has a file.
func ownerOf(st os.FileInfo) (uid, gid int, ok bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(sys.Uid), int(sys.Gid), true
}

// of is the owner and group for an entry; ok is false if nothing is to be
// changed.
func (o *owners) of(f *repo.FileEntry) (uid, gid int, ok bool) {
	if !o.root {
		return 0, 0, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return lookup(o.users, f.Owner, o.uid, userID), lookup(o.groups, f.Group, o.gid, groupID), true
}

// lookup finds a name's number; fallback if there is no such name here: a
// number alone means nothing on another machine.
func lookup(known map[string]int, name string, fallback int, find func(string) (int, error)) int {
	if name == "" {
		return fallback
	}
	id, ok := known[name]
	if !ok {
		var err error
		if id, err = find(name); err != nil {
			id = fallback
		}
		known[name] = id
	}
	return id
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
