package stores

import "syscall"

// ownGroup puts a server into a process group of its own, so that all of it can
// be killed, and has the kernel kill it when we die.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
