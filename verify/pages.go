package verify

import (
	"regexp"
	"strconv"

	"github.com/walkeep/walkeep/pg"
)

// pageCheck looks at the page checksums of one file, as its bytes come.
type pageCheck struct {
	relation bool
	first    uint32 // block of the file's first page in its relation
	start    pg.LSN
	next     uint32 // number of the next page in the file
	rest     []byte // the beginning of it
	bad      []uint32
}

// relationPath matches the files of relations, all forks of them.
var relationPath = regexp.MustCompile(`^(?:global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(?:_(?:fsm|vm|init))?(?:\.(\d+))?$`)

func newPageCheck(path string, segmentBlocks uint32, start pg.LSN) pageCheck {
	m := relationPath.FindStringSubmatch(path)
	if m == nil {
		return pageCheck{}
	}
	segment, _ := strconv.ParseUint(m[1], 10, 32)
	return pageCheck{relation: true, first: uint32(segment) * segmentBlocks, start: start}
}

// add takes the next bytes of the file.
func (c *pageCheck) add(b []byte) {
	if !c.relation {
		return
	}
	if len(c.rest) > 0 {
		n := min(len(b), pg.PageSize-len(c.rest))
		c.rest = append(c.rest, b[:n]...)
		if b = b[n:]; len(c.rest) < pg.PageSize {
			return
		}
		c.whole(c.rest)
		c.rest = c.rest[:0]
	}
	n := len(b) &^ (pg.PageSize - 1)
	c.whole(b[:n])
	c.rest = append(c.rest, b[n:]...)
}

// whole checks whole pages. One that was written after the backup began may be
// torn, and is restored by replay.
func (c *pageCheck) whole(b []byte) {
	for _, block := range pg.VerifyPages(b, c.first+c.next) {
		n := block - c.first
		at := int(n-c.next) * pg.PageSize
		if pg.PageLSN(b[at:at+pg.PageSize]) < c.start {
			c.bad = append(c.bad, n)
		}
	}
	c.next += uint32(len(b) / pg.PageSize)
}

// controlFile has what all else is read by.
const controlFile = "global/pg_control"
