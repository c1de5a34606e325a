//go:build !cgo

package codec

import (
	"os"
	"testing"
)

// TestInterop is the half of TestOtherBuild that runs without cgo.
func TestInterop(t *testing.T) {
	dir := os.Getenv("WALKEEP_INTEROP")
	if dir == "" {
		dir = t.TempDir()
	}
	interop(t, dir, "pure", "cgo")
}
