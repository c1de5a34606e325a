package pg

import (
	"encoding/binary"
	"hash/crc32"
)

// PageSize is the size in bytes of a page of a data file (BLCKSZ). Servers
// built with another one are refused elsewhere.
const PageSize = 8192

// castagnoli is the polynomial of PostgreSQL's CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Offsets in PageHeaderData (storage/bufpage.h).
const (
	pageLSN      = 0 // two 32-bit halves, the upper one first
	pageChecksum = 8
	pageUpper    = 14
)

// PageLSN is the LSN of the last WAL record that changed a page: the end of
// that record. 0 on a new page.
func PageLSN(page []byte) LSN {
	hi := binary.LittleEndian.Uint32(page[pageLSN:])
	lo := binary.LittleEndian.Uint32(page[pageLSN+4:])
	return LSN(hi)<<32 | LSN(lo)
}

// PageIsNew reports whether a page was never initialized (PageIsNew: pd_upper
// is 0). Such a page carries no checksum.
func PageIsNew(page []byte) bool { return page[pageUpper] == 0 && page[pageUpper+1] == 0 }

// StoredChecksum is the checksum that a page carries.
func StoredChecksum(page []byte) uint16 { return binary.LittleEndian.Uint16(page[pageChecksum:]) }

// PageChecksum computes the checksum of one page of PageSize bytes at block
// number block of its relation (pg_checksum_page in storage/checksum_impl.h).
// block counts from the start of the relation, over all its segment files.
func PageChecksum(page []byte, block uint32) uint16 {
	return reduceChecksum(blockChecksum((*[PageSize]byte)(page)), block)
}

// reduceChecksum mixes in the block number and makes 16 bits that are not 0.
func reduceChecksum(sum, block uint32) uint16 { return uint16((sum^block)%65535 + 1) }

// VerifyPages checks the pages in buf, whose length is a multiple of PageSize,
// and returns the block numbers of the bad ones. The first page is block
// firstBlock of its relation. A page that was never initialized is good if it
// is all zeroes, as in the server's PageIsVerified. A bad page of a running
// server may just have been torn by a concurrent write: read it again before
// calling it damaged.
//
// Built with cgo this runs at the speed of memory where there is AVX2, without
// cgo several times slower.
func VerifyPages(buf []byte, firstBlock uint32) (bad []uint32) {
	if len(buf)%PageSize != 0 {
		panic("pg.VerifyPages: not whole pages")
	}
	if len(buf) == 0 {
		return nil
	}
	return verifyPages(buf, firstBlock)
}

// checksumBase are the starting values of the 32 columns.
var checksumBase = [32]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

const fnvPrime = 16777619

// blockChecksum is pg_checksum_block with pd_checksum taken as 0, in Go. The
// page is 64 rows of 32 columns; each column is hashed alone. Eight columns at
// a time stay in registers and hide the latency of the multiplication.
func blockChecksum(page *[PageSize]byte) uint32 {
	var sum uint32
	for c := 0; c < 32; c += 8 {
		b := (*[8]uint32)(checksumBase[c:])
		s0, s1, s2, s3, s4, s5, s6, s7 := b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
		for at := c * 4; at < PageSize; at += 128 {
			row := (*[32]byte)(page[at:])
			v2 := binary.LittleEndian.Uint32(row[8:])
			if at == 0 {
				v2 &= 0xFFFF0000 // pd_checksum
			}
			s0 = mix(s0, binary.LittleEndian.Uint32(row[0:]))
			s1 = mix(s1, binary.LittleEndian.Uint32(row[4:]))
			s2 = mix(s2, v2)
			s3 = mix(s3, binary.LittleEndian.Uint32(row[12:]))
			s4 = mix(s4, binary.LittleEndian.Uint32(row[16:]))
			s5 = mix(s5, binary.LittleEndian.Uint32(row[20:]))
			s6 = mix(s6, binary.LittleEndian.Uint32(row[24:]))
			s7 = mix(s7, binary.LittleEndian.Uint32(row[28:]))
		}
		sum ^= last(s0) ^ last(s1) ^ last(s2) ^ last(s3) ^ last(s4) ^ last(s5) ^ last(s6) ^ last(s7)
	}
	return sum
}

func mix(sum, value uint32) uint32 {
	t := sum ^ value
	return t*fnvPrime ^ t>>17
}

// last adds the two rounds of zeroes.
func last(sum uint32) uint32 { return mix(mix(sum, 0), 0) }

// verifyPagesGo is verifyPages without cgo; with cgo the tests compare both.
func verifyPagesGo(buf []byte, firstBlock uint32) (bad []uint32) {
	for n := 0; n < len(buf)/PageSize; n++ {
		page := (*[PageSize]byte)(buf[n*PageSize:])
		block := firstBlock + uint32(n)
		if PageIsNew(page[:]) {
			if *page != [PageSize]byte{} {
				bad = append(bad, block)
			}
			continue
		}
		if reduceChecksum(blockChecksum(page), block) != StoredChecksum(page[:]) {
			bad = append(bad, block)
		}
	}
	return bad
}
