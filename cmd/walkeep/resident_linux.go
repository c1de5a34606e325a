package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	firstRelease = 15 * time.Second // after the start, when all SDKs are set up
	nextRelease  = 10 * time.Minute
)

// releasePages gives back, now and then, the pages of the program that are mapped
// but were needed once: most of it is code and tables of SDKs that only the start
// touched, or that lie beside something that was (the kernel maps 64 KiB at a
// time). What is needed again comes back from the page cache.
func (r *root) releasePages(ctx context.Context) {
	after := firstRelease
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
		}
		after = nextRelease
		debug.FreeOSMemory()
		if err := releaseProgram(); err != nil {
			r.logger().Debug("pages of the program are not released", zap.Error(err))
			return
		}
	}
}

// releaseProgram drops the mapped pages of our own file. Only mappings that
// cannot be written and hold no page of their own are touched: of those the
// file has every byte, so nothing is lost.
func releaseProgram() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	var start, end uintptr // of the mapping that is read; 0: it is left alone
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		var perms string
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n == 3 {
			start, end = 0, 0
			if strings.HasSuffix(line, " "+exe) && strings.HasPrefix(perms, "r-") {
				start, end = from, to
			}
			continue
		}
		own, found := strings.CutPrefix(line, "Anonymous:")
		if !found || start == 0 || strings.TrimSpace(own) != "0 kB" {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("release pages of the program: %w", errno)
		}
	}
	return lines.Err()
}
