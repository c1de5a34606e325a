package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// sample is one run of one program.
type sample struct {
	took   time.Duration
	rss    int64 // peak of the largest process, bytes
	stored int64 // bytes in the repository, where that was measured
}

// row is a line of the table.
type row struct {
	work         string
	ours, theirs []sample
	goal         string
	onlyOurs     bool
	text         string // instead of all that follows from samples
	perRun       int    // runs of the program in each sample; 0 means one
}

func (r row) String() string {
	if r.text != "" {
		return r.work + "\t" + r.text
	}
	a := median(r.ours)
	stored := ""
	if r.onlyOurs || len(r.theirs) == 0 {
		if a.stored > 0 {
			stored = bytesText(a.stored)
		}
		return fmt.Sprintf("%s\t%s\t\t\t%s\t%s\t%s", r.work, r.each(a), r.goal, bytesText(a.rss), stored)
	}
	b := median(r.theirs)
	if a.stored > 0 {
		stored = bytesText(a.stored) + " / " + bytesText(b.stored)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%.2f\t%s\t%s / %s\t%s", r.work, r.each(a), r.each(b),
		b.took.Seconds()/a.took.Seconds(), r.goal, bytesText(a.rss), bytesText(b.rss), stored)
}

// each is the time of one run of the program.
func (r row) each(s sample) string {
	d := s.took / time.Duration(max(r.perRun, 1))
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func median(s []sample) sample {
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b sample) int { return int(a.took - b.took) })
	m := s[len(s)/2]
	for _, x := range s {
		m.rss = max(m.rss, x.rss)
	}
	return m
}

// timed runs a program to its end. Maxrss is in KiB (getrusage(2)).
func timed(cmd *exec.Cmd) (sample, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err := cmd.Run()
	s := sample{took: time.Since(begin)}
	if err != nil {
		return s, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out.String())
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = u.Maxrss << 10
	}
	return s, nil
}

// timeOf is how long f takes.
func timeOf(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}

// dirSize is the sum of the sizes of the files below dir.
func dirSize(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// alternate lets walkeep and the other tool, if it is there, take turns.
func (b *bench) alternate(ctx context.Context, rounds int, r *row, ours, theirs func() (sample, error)) error {
	if b.alone {
		theirs = nil
	}
	return takeTurns(ctx, rounds, r, ours, theirs)
}

// takeTurns lets two programs take turns; theirs may be nil. Each begins with a
// disk that has nothing left to write of the one before.
func takeTurns(ctx context.Context, rounds int, r *row, ours, theirs func() (sample, error)) error {
	for range rounds {
		for _, turn := range []struct {
			f  func() (sample, error)
			to *[]sample
		}{{ours, &r.ours}, {theirs, &r.theirs}} {
			if turn.f == nil {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			unix.Sync()
			s, err := turn.f()
			if err != nil {
				return fmt.Errorf("%s: %w", r.work, err)
			}
			*turn.to = append(*turn.to, s)
		}
	}
	return nil
}
