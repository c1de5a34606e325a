//go:build cgo

package pg

/*
#include "checksum.h"
*/
import "C"

import "unsafe"

func verifyPages(buf []byte, firstBlock uint32) []uint32 {
	pages := len(buf) / PageSize
	at := unsafe.Pointer(unsafe.SliceData(buf))
	n := C.walkeep_verify_pages(at, C.size_t(pages), C.uint32_t(firstBlock), nil)
	if n == 0 {
		return nil
	}
	// Rare: once more, now with room for the numbers. A caller that lets the
	// buffer change meanwhile has broken it anyway, but not our bounds.
	bad := make([]uint32, pages)
	n = C.walkeep_verify_pages(at, C.size_t(pages), C.uint32_t(firstBlock), (*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(bad))))
	return bad[:n]
}
