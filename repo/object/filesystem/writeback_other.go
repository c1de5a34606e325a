//go:build !linux

package filesystem

import "os"

// startWriteBack is a hint that only Linux takes.
func startWriteBack(*os.File, int64, int64) {}
