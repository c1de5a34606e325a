package backup

import (
	"hash/crc32"
	"os/user"
	"strconv"

	"github.com/walkeep/walkeep/repo"
)

// read counts bytes that were read of a file.
func (pc *piece) read(b []byte) {
	pc.crc = crc32.Update(pc.crc, castagnoli, b)
	pc.size += int64(len(b))
}

// lastFile is a file that is written after all others, from memory.
type lastFile struct {
	entry entry
	data  []byte
}

// assembler makes manifest entries of results that come in order.
type assembler struct {
	p *pipeline

	// The large file whose ranges are coming in.
	file  piece
	begun bool

	beginnings int64 // how far the journals know of the file
}

const (
	// beginningBytes of a large file are noted in the journals at a time.
	beginningBytes = 64 << 20
	// largestBeginning is how large such a file may be: each note lists all
	// that came before it.
	largestBeginning = 4 << 30
)

// add takes the result of the next unit.
func (a *assembler) add(r *result) {
	if r.unit.file != nil {
		a.addRange(r)
		return
	}
	for i, e := range r.unit.batch {
		if pc := r.pieces[i]; !pc.gone {
			a.entry(e, r.unit.plans[i], pc)
		}
	}
}

// addRange takes the next range of a large file. A file that ended early ends
// for good: what later ranges found beyond it was written after a truncation,
// which replay knows about.
func (a *assembler) addRange(r *result) {
	if !a.begun {
		a.begun = true
		a.file = a.p.newPiece()
	}
	pc := r.pieces[0]
	a.file.gone = a.file.gone || pc.gone
	if !a.file.short {
		a.file.crc = repo.CombineCRC(a.file.crc, pc.crc, pc.size)
		a.file.crcUnknown = a.file.crcUnknown || pc.crcUnknown
		a.file.size += pc.size
		a.file.bad = append(a.file.bad, pc.bad...)
		a.file.short = pc.short
		for i := range pc.parts {
			for _, x := range pc.parts[i] {
				a.file.parts[i] = appendPart(a.file.parts[i], x)
			}
		}
	}
	switch {
	case r.unit.last:
		if !a.file.gone {
			a.entry(r.unit.entry, r.unit.plan, a.file)
		}
		a.begun, a.file, a.beginnings = false, piece{}, 0
	case !a.file.short && a.file.size-a.beginnings >= beginningBytes && r.unit.entry.size <= largestBeginning:
		a.beginnings = a.file.size
		a.put(r.unit.entry, r.unit.plan, a.file, (*repo.BackupWriter).AddBeginning)
	}
}

// entry writes one line into every manifest.
func (a *assembler) entry(e entry, plan *filePlan, pc piece) {
	a.put(e, plan, pc, (*repo.BackupWriter).AddFile)
}

func (a *assembler) put(e entry, plan *filePlan, pc piece, add func(*repo.BackupWriter, repo.FileEntry) error) {
	f := repo.FileEntry{
		Path: e.path, Mode: e.mode, UID: int(e.uid), GID: int(e.gid),
		Owner: a.p.owners.user(e.uid), Group: a.p.owners.group(e.gid),
		MTime: e.mtime,
	}
	switch e.kind {
	case kindDir:
		f.Type = repo.Directory
	case kindLink:
		f.Type, f.Link = repo.Symlink, e.link
	case kindFile:
		f.Type, f.Size, f.BadPages = repo.RegularFile, pc.size, pc.bad
	}
	for i, t := range a.p.targets {
		if t.out.Load() {
			continue
		}
		f.Chunks, f.Extents = nil, nil
		if e.kind == kindFile {
			var from *parentFile
			f.Detect = string(DetectWhole)
			if plan != nil && plan.from[i] != nil {
				from, f.Detect = plan.from[i], string(plan.detect)
			}
			f.CRC, f.CRCUnknown = checksum(pc, pc.parts[i], from)
			if err := a.place(i, from, pc.parts[i], &f); err != nil {
				t.fail(err)
				continue
			}
		}
		if err := add(t.writer, f); err != nil {
			t.fail(err)
		}
	}
}

// checksum is the CRC-32C of a file as it is stored. What was read is of no
// use where pages of the parent take its place: those can differ in hint bits,
// and in changes that replay makes again.
func checksum(pc piece, parts []part, from *parentFile) (crc uint32, unknown bool) {
	var own, parents int64
	for _, x := range parts {
		if x.own != nil {
			own += x.length
		} else {
			parents += x.length
		}
	}
	switch {
	case parents == 0 && !pc.crcUnknown:
		return pc.crc, false
	case own == 0 && parents == from.entry.Size:
		return from.entry.CRC, from.entry.CRCUnknown
	}
	return 0, true
}

// place says in a manifest's entry which chunks the parts of a file are in.
func (a *assembler) place(i int, from *parentFile, parts []part, f *repo.FileEntry) error {
	type source struct {
		own    *ownChunk
		parent int
	}
	known := map[source]int{}
	simple := true // the chunks one after the other
	var at int64
	for _, x := range parts {
		s := source{own: x.own}
		if x.own == nil {
			s.parent = x.parent
		}
		n, ok := known[s]
		if !ok {
			var c repo.Chunk
			if x.own != nil {
				c = x.own.at[i]
			} else {
				var err error
				if c, err = a.parentChunk(i, from, from.entry.Chunks[x.parent]); err != nil {
					return err
				}
			}
			n = len(f.Chunks)
			known[s] = n
			f.Chunks = append(f.Chunks, c)
		}
		simple = simple && !ok && x.off == 0 && x.length == int64(f.Chunks[n].Plain)
		f.Extents = append(f.Extents, repo.Extent{FileOffset: at, Length: x.length, Chunk: n, ChunkOffset: x.off})
		at += x.length
	}
	if simple {
		f.Extents = nil
	}
	return nil
}

// parentChunk is a chunk of the parent as our manifest calls it.
func (a *assembler) parentChunk(i int, from *parentFile, c repo.Chunk) (repo.Chunk, error) {
	var err error
	c.Pack, err = a.p.targets[i].writer.UsePack(from.packs[c.Pack])
	return c, err
}

// owners remembers the names of users and groups.
type owners struct{ users, groups map[uint32]string }

func newOwners() *owners {
	return &owners{users: map[uint32]string{noOwner: ""}, groups: map[uint32]string{noOwner: ""}}
}

// noOwner is the owner and group of a file whose owner is not known: the number
// that chown(2) takes as "leave it".
const noOwner = 1<<32 - 1

func (o *owners) user(id uint32) string {
	name, ok := o.users[id]
	if !ok {
		if u, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
			name = u.Username
		}
		o.users[id] = name
	}
	return name
}

func (o *owners) group(id uint32) string {
	name, ok := o.groups[id]
	if !ok {
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10)); err == nil {
			name = g.Name
		}
		o.groups[id] = name
	}
	return name
}
