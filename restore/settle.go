package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrRecovering: the server of a data directory is in recovery, or will be when
// it starts, and needs its recovery settings.
var ErrRecovering = errors.New("the server is in recovery or will be when it starts")

// RecoveryEndCommand makes recovery_end_command out of a program with its
// arguments that calls [Settle]. Whatever comes of it, the server must open:
// it takes an exit status above 125 (the program is not there any more) for a
// reason to end itself (xlogarchive.c, ExecuteRecoveryCommand).
func RecoveryEndCommand(argv ...string) string {
	var words []string
	for _, a := range argv {
		words = append(words, strings.ReplaceAll(shellWord(a), "%", "%%"))
	}
	return strings.Join(append(words, "|| true"), " ")
}

// Settle removes the recovery settings from postgresql.auto.conf of a server
// that has reached its target. They do nothing to the server itself, but a
// standby made of it, or of a backup of it, would stop at the same target.
// It returns what it removed, by name.
//
// The server calls it by recovery_end_command, when recovery.signal is gone for
// good. Killed anywhere, it leaves the file as it was or as it is to be.
func Settle(pgdata string) (removed []string, err error) {
	for _, signal := range []string{"recovery.signal", "standby.signal"} {
		if _, err := os.Lstat(filepath.Join(pgdata, signal)); err == nil {
			return nil, fmt.Errorf("%w: %s is there", ErrRecovering, filepath.Join(pgdata, signal))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for %s: %w", signal, err)
		}
	}
	path := filepath.Join(pgdata, "postgresql.auto.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("remove the recovery settings: %w", err)
	}
	content, removed := withoutRecovery(old)
	if len(removed) == 0 {
		return nil, nil
	}
	if err := replaceFile(path, content); err != nil {
		return nil, fmt.Errorf("remove the recovery settings from %s: %w", path, err)
	}
	return removed, nil
}

// withoutRecovery drops the lines that editConf wrote, or that set what it
// takes for its own.
func withoutRecovery(old []byte) (content []byte, removed []string) {
	var b bytes.Buffer
	for line := range bytes.Lines(old) {
		name := settingOf(bytes.TrimRight(line, "\r\n"))
		switch {
		case obsolete[name]:
			removed = append(removed, name)
		case bytes.HasPrefix(line, []byte(writtenBy)):
		default:
			b.Write(line)
		}
	}
	return b.Bytes(), removed
}

// replaceFile writes a file anew, with the owner and mode that it has.
func replaceFile(path string, content []byte) (err error) {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	temp := path + ".walkeep"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	_, err = f.Write(content)
	if uid, gid, ok := ownerOf(st); ok && err == nil && os.Geteuid() == 0 {
		err = f.Chown(uid, gid)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
