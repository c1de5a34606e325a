//go:build !cgo

package pg

func verifyPages(buf []byte, firstBlock uint32) []uint32 { return verifyPagesGo(buf, firstBlock) }
