package pg

// RelFile names a relation's files, as WAL does: by tablespace, database (0 for
// shared relations) and relfilenumber. Number 0 stands for all of a database
// in a tablespace.
type RelFile struct {
	Tablespace, Database, Number uint32
}

// RelChanges is what a piece of WAL does to the main fork of a relation.
type RelChanges struct {
	// Limited: the fork was cut to Limit blocks, or, with 0, is new or gone.
	Limited bool
	Limit   uint32
	Blocks  []uint32 // that were written to, ascending
}

// BlockChanges is what one WAL segment does to the main forks of relations,
// and what is needed to account for the records at its borders.
type BlockChanges struct {
	// Unknown, if not "", says what was not understood: then nothing can be
	// concluded from the rest.
	Unknown string
	// Minimal: wal_level was set to minimal, so that not all changes are in
	// the WAL.
	Minimal   bool
	Relations map[RelFile]*RelChanges
	// Open is the record that goes on in the next segment, if it cannot be
	// understood without that.
	Open *OpenRecord
	// Rest is the beginning of what is left of the record that began in an
	// earlier segment.
	Rest *RecordRest
}

// OpenRecord is the part of a record that lies in the segment it began in.
type OpenRecord struct {
	LSN  LSN
	Data []byte // header included; never the contents of a block
}

// RecordRest is what a record from an earlier segment goes on with.
type RecordRest struct {
	Length uint32 // what is missing of the record at the beginning of the segment
	Data   []byte // the first bytes of it, MaxRest at most
}

// MaxRest is how many bytes of a record's rest are kept: enough for the ends
// of nearly all headers, and little of the contents behind them.
const MaxRest = 256
