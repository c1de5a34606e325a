//go:build !linux

package stores

import "syscall"

// ownGroup puts a server into a process group of its own, so that all of it can
// be killed.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
