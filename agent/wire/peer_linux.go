package wire

import (
	"fmt"
	"net"
	"syscall"
)

// PeerUID is the user that the process at the other end ran as when it
// connected, or listened (SO_PEERCRED, unix(7)).
func PeerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("find out who is at the other end: %w", credErr)
	}
	return int(cred.Uid), nil
}
