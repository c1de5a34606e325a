//go:build cgo

package codec

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>

typedef int (*compress_fn)(const char *, char *, int, int);

// LZ4_compress_default of the machine's own library, or NULL.
static void *find_lz4(void) {
	void *lib = dlopen("liblz4.so.1", RTLD_NOW | RTLD_LOCAL);
	return lib == NULL ? NULL : dlsym(lib, "LZ4_compress_default");
}

static int call_lz4(void *f, const void *src, void *dst, int n, int room) {
	return ((compress_fn)f)(src, dst, n, room);
}
*/
import "C"

import (
	"sync"
	"unsafe"

	"github.com/cloudflare/golz4"
)

// liblz4 is the machine's own library, or nil. PostgreSQL needs it, from 14 on,
// so that it is there as a rule; it is newer than what is compiled in, and a
// third faster. It is looked for when something is compressed, not before:
// walkeep-wal, which has the agent do that, starts without it. What both write
// is the same format.
var liblz4 = sync.OnceValue(func() unsafe.Pointer { return C.find_lz4() })

// lz4Fast compresses blocks at level 1.
type lz4Fast struct {
	lib unsafe.Pointer // nil: with what is compiled in
}

func newLZ4Fast() lz4Fast { return lz4Fast{lib: liblz4()} }

// compress writes the block of src, which is not empty, to room; 0: it does not
// fit.
func (f lz4Fast) compress(src, room []byte) (int, error) {
	if f.lib != nil && len(room) > 0 {
		return int(C.call_lz4(f.lib, unsafe.Pointer(&src[0]), unsafe.Pointer(&room[0]), C.int(len(src)), C.int(len(room)))), nil
	}
	n, err := lz4.Compress(src, room)
	if err != nil {
		// Its only error: not enough room.
		return 0, nil
	}
	return n, nil
}
