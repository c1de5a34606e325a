// Package follow starts the server of a restored data directory and follows its
// recovery to the target.
//
// What the server does is learnt from what it leaves for everybody to see, so
// that nobody needs a password: the status line of postmaster.pid, the state in
// pg_control, the title of the startup process (which segment it recovers), the
// history file of the new timeline (where recovery stopped, and why), and the
// server's log. A connection, if one can be made, tells more exactly how far replay is,
// and whether it has paused at the target.
//
// A server is either left to itself ([Options.Tied] false): it goes on when the
// follower ends, whatever the reason; or tied to the process that started it:
// the kernel ends it when that process dies, even by SIGKILL.
package follow
