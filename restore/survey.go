package restore

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/walkeep/walkeep/repo"
)

// survey is what one reading of the manifest tells before anything is written.
type survey struct {
	files int64
	bytes int64
	// need is how much room each place takes, in whole blocks: "" is PGDATA,
	// the others are pg_tblspc/<oid>.
	need  map[string]int64
	links map[string]string // pg_tblspc/<oid> → recorded location
	// top are the directories in PGDATA, and those of them that are mapped
	// elsewhere.
	top map[string]bool
}

// blockSize is what a file takes at least, for the estimate of the room.
const blockSize = 4096

// surveyManifest reads the whole manifest, so that one that breaks the rules
// is refused before the target is touched. It checks, besides what its reader
// does, what a restore relies on.
//
// mapped are directories in PGDATA that go elsewhere.
func surveyManifest(m *repo.ManifestReader, mapped map[string]string, d *databases) (*survey, error) {
	s := &survey{need: map[string]int64{}, links: map[string]string{}, top: map[string]bool{}}
	for name := range mapped {
		s.top[name] = true
	}
	last := ""
	seen := map[string]bool{}
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if f.Type == repo.Directory && f.Path != "." && !strings.Contains(f.Path, "/") {
			if _, ok := s.top[f.Path]; !ok {
				s.top[f.Path] = false
			}
			seen[f.Path] = true
		}
		if d.has(f.Path) {
			f.Size = 0 // no room, no work
		}
		if f.Type == repo.Symlink {
			if filepath.IsAbs(f.Link) {
				s.links[f.Path] = f.Link
			}
		} else {
			s.need[s.placeOf(f.Path)] += (f.Size + blockSize - 1 + blockSize) / blockSize * blockSize
		}
		if f.Type == repo.RegularFile {
			s.files++
			s.bytes += f.Size
		}
		last = f.Path
	}
	if last != controlFile {
		return nil, &repo.DamageError{Key: "backup/" + string(m.Header().Label) + "/manifest", Why: "it does not end with " + controlFile}
	}
	for name := range mapped {
		if !seen[name] {
			return nil, fmt.Errorf("%w: --link-map %s: the backup has no such directory in the data directory", ErrBadRequest, name)
		}
	}
	return s, m.Rewind()
}

const controlFile = "global/pg_control"

// placeOf is the link that a path is behind, of a tablespace or a directory
// that is mapped elsewhere; or "".
func (s *survey) placeOf(path string) string {
	const below = "pg_tblspc/"
	rest, ok := strings.CutPrefix(path, below)
	if !ok {
		if first, _, _ := strings.Cut(path, "/"); s.top[first] {
			return first
		}
		return ""
	}
	oid, _, _ := strings.Cut(rest, "/")
	if _, ok := s.links[below+oid]; ok {
		return below + oid
	}
	return ""
}

// linkedPlaces decides where every tablespace and every mapped directory goes,
// by its link.
func linkedPlaces(s *survey, h repo.Header, o *Options) (map[string]string, error) {
	names := map[string]string{}
	for _, t := range h.Tablespaces {
		if t.Name != "" {
			names[strconv.FormatUint(uint64(t.OID), 10)] = t.Name
		}
	}
	dest := map[string]string{}
	used := map[string]bool{}
	taken := map[string]string{o.PGData: "the data directory"}
	for link, recorded := range s.links {
		oid := filepath.Base(link)
		dir, way := recorded, ""
		for _, key := range []string{oid, names[oid], recorded} {
			if d, ok := o.Tablespaces[key]; ok && key != "" {
				used[key], dir, way = true, d, key
			}
		}
		if way == "" && o.TablespacesBelow != "" {
			dir = filepath.Join(o.TablespacesBelow, oid)
		}
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("%w: tablespace %s: %q is not an absolute path", ErrBadRequest, oid, dir)
		}
		dir = filepath.Clean(dir)
		if err := takeDir(taken, "tablespace "+oid, dir, o.PGData); err != nil {
			return nil, err
		}
		dest[link] = dir
	}
	for name, dir := range o.Links {
		if err := takeDir(taken, "directory "+name, dir, o.PGData); err != nil {
			return nil, err
		}
		dest[name] = dir
	}
	for key := range o.Tablespaces {
		if !used[key] {
			return nil, fmt.Errorf("%w: the backup has no tablespace %q (by OID, name or recorded location)", ErrBadRequest, key)
		}
	}
	return dest, nil
}

// takeDir notes that a directory is what's; nothing else may be in it or around
// it.
func takeDir(taken map[string]string, what, dir, pgdata string) error {
	if within(dir, pgdata) || within(pgdata, dir) {
		return fmt.Errorf("%w: %s would go to %s, which overlaps with the data directory %s: map it elsewhere", ErrBadRequest, what, dir, pgdata)
	}
	for other, whose := range taken {
		if other == dir || within(dir, other) || within(other, dir) {
			return fmt.Errorf("%w: %s would go to %s, like %s", ErrBadRequest, what, dir, whose)
		}
	}
	taken[dir] = what
	return nil
}

// within reports whether a is below b.
func within(a, b string) bool { return strings.HasPrefix(a, b+"/") }

// checkSpace compares what is needed with what is free, by file system.
func checkSpace(s *survey, places map[string]*place) error {
	type volume struct {
		need, free int64
		path       string
	}
	volumes := map[[2]int32]*volume{}
	for link, p := range places {
		var st unix.Statfs_t
		if err := unix.Statfs(p.path, &st); err != nil {
			return fmt.Errorf("ask for the free space of %s: %w", p.path, err)
		}
		var dev unix.Stat_t
		if err := unix.Stat(p.path, &dev); err != nil {
			return fmt.Errorf("look at %s: %w", p.path, err)
		}
		key := [2]int32{int32(unix.Major(dev.Dev)), int32(unix.Minor(dev.Dev))}
		v := volumes[key]
		if v == nil {
			v = &volume{free: int64(st.Bavail) * st.Bsize, path: p.path}
			volumes[key] = v
		}
		v.need += s.need[link]
		if p.again {
			v.free += occupied(p.path)
		}
	}
	for _, v := range volumes {
		if v.need > v.free {
			return fmt.Errorf("%w: the restore takes %s, and %s has %s free", ErrNoSpace, bytesText(v.need), v.path, bytesText(v.free))
		}
	}
	return nil
}

func oidOf(link string) uint32 {
	n, _ := strconv.ParseUint(filepath.Base(link), 10, 32)
	return uint32(n)
}
