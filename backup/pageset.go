package backup

import "math/bits"

// pageSet is a set of pages of one file, by number.
type pageSet struct{ words []uint64 }

func (s *pageSet) add(page uint32) {
	for int(page>>6) >= len(s.words) {
		s.words = append(s.words, 0)
	}
	s.words[page>>6] |= 1 << (page & 63)
}

func (s *pageSet) has(page int64) bool {
	return page>>6 < int64(len(s.words)) && s.words[page>>6]&(1<<(page&63)) != 0
}

func (s *pageSet) empty() bool { return s.count() == 0 }

func (s *pageSet) count() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}
