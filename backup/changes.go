package backup

// changeSet is which blocks of the main forks of relations have changed since
// a moment, as WAL tells.
type changeSet struct {
	segmentBlocks uint32 // blocks per file
	relations     map[relation]*relationChanges
}

// relationChanges is what happened to one relation.
type relationChanges struct {
	// limit is the lowest block from which on the fork was cut or new.
	limited bool
	limit   uint32
	files   map[uint32]*pageSet // by segment: the blocks that were written to
}

func newChangeSet(segmentBlocks uint32) *changeSet {
	return &changeSet{segmentBlocks: segmentBlocks, relations: map[relation]*relationChanges{}}
}

func (c *changeSet) relation(r relation) *relationChanges {
	rc := c.relations[r]
	if rc == nil {
		rc = &relationChanges{files: map[uint32]*pageSet{}}
		c.relations[r] = rc
	}
	return rc
}

// block says that a block was written to.
func (c *changeSet) block(r relation, block uint32) {
	files := c.relation(r).files
	n := block / c.segmentBlocks
	s := files[n]
	if s == nil {
		s = &pageSet{}
		files[n] = s
	}
	s.add(block % c.segmentBlocks)
}

// limit says that a relation was cut to so many blocks, or, with 0, that it is
// new. With the relation's number 0 it is about all of the database in that
// tablespace.
func (c *changeSet) limit(r relation, block uint32) {
	rc := c.relation(r)
	if !rc.limited || block < rc.limit {
		rc.limited, rc.limit = true, block
	}
}

// of is which pages of one file of a relation have changed. whole: WAL does
// not tell.
//
// A relation that was cut and then grew again may have grown by pages that no
// record names: so the file in which it was cut is taken whole, like those
// behind it.
func (c *changeSet) of(r relation, segment uint32) (changed *pageSet, whole bool) {
	if all := c.relations[relation{r.tablespace, r.database, 0}]; all != nil {
		return nil, true
	}
	rc := c.relations[r]
	if rc == nil {
		return &pageSet{}, false
	}
	if rc.limited && uint64(rc.limit) < (uint64(segment)+1)*uint64(c.segmentBlocks) {
		return nil, true
	}
	if s := rc.files[segment]; s != nil {
		return s, false
	}
	return &pageSet{}, false
}
