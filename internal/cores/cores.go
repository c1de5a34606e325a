// Package cores says how many processors there are for us, and shares them out.
package cores

import (
	"os"
	"runtime"
)

// count is what Go found when the program began: the processors of the machine,
// fewer where affinity or a control group's limit says so, or $GOMAXPROCS.
var count = runtime.GOMAXPROCS(0)

// Count is how many processors there are for us, 1 and up. It is what numbers of
// workers are made of.
func Count() int { return count }

// perCore is how many threads may run Go code for each processor.
const perCore = 2

// Spread lets more threads run Go code than there are processors. libzstd and lz4
// compress for milliseconds in C, and Go does not see at once that a thread that
// does so needs no place among those that run Go code: who reads, hashes and sends
// would wait for a place while a processor has nothing to do. A backup takes a
// tenth less with it.
//
// Where $GOMAXPROCS is set, it counts. A limit that changes later is not followed.
func Spread() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(perCore * count)
	}
}
