package repo

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// process names one process for all time: a boot of a kernel, a namespace of
// process ids (containers share the kernel, not the ids), an id in it, and
// when that process began (ids are used again).
type process struct {
	Host      string `json:"host"`
	Boot      string `json:"boot_id,omitempty"` // "": unknown, so nothing can be said
	Namespace string `json:"pid_namespace,omitempty"`
	PID       int    `json:"pid"`
	Start     string `json:"pid_start,omitempty"` // clock ticks after boot
}

// currentProcess describes this process. Where there is no Linux /proc, it
// leaves the boot empty, and leases are only taken over after their TTL.
func currentProcess() (process, error) {
	host, err := os.Hostname()
	if err != nil {
		return process{}, fmt.Errorf("find the host name: %w", err)
	}
	p := process{Host: host, PID: os.Getpid()}
	boot, err1 := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, err2 := os.Readlink("/proc/self/ns/pid")
	start, err3 := processStart(p.PID)
	if err1 == nil && err2 == nil && err3 == nil {
		p.Boot, p.Namespace, p.Start = strings.TrimSpace(string(boot)), namespace, start
	}
	return p, nil
}

// processStart reads field 22 of /proc/<pid>/stat (proc_pid_stat(5)).
// os.ErrNotExist: the process has ended.
func processStart(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// The second field is the name in parentheses, which may hold anything.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("read /proc/%d/stat: not as expected", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" { // ended, its parent has not looked yet
		return "", os.ErrNotExist
	}
	return fields[19], nil
}

// sameHost reports whether p's id can be looked up by q.
func (p process) sameHost(q process) bool {
	return p.Boot != "" && p.Boot == q.Boot && p.Namespace == q.Namespace
}

// dead reports whether p certainly runs no more. False if it cannot be known.
func (p process) dead() bool {
	self, err := currentProcess()
	if err != nil || !p.sameHost(self) {
		return false
	}
	start, err := processStart(p.PID)
	if err == nil {
		return start != p.Start
	}
	if !errors.Is(err, os.ErrNotExist) {
		return false
	}
	// Some systems hide the processes of other users (hidepid): ask the kernel.
	_, stat := os.Stat("/proc/" + strconv.Itoa(p.PID))
	return stat == nil || errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH)
}
