package follow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Errors of Wait that callers branch on with errors.Is.
var (
	// ErrExited: the server ended before the target; the error is an
	// *ExitedError.
	ErrExited = errors.New("the server ended before it reached the target")
	// ErrTargetNotReached: it ended because the WAL did.
	ErrTargetNotReached = errors.New("recovery ended before the target was reached")
	// ErrTimeout: it took longer than was allowed. The server goes on.
	ErrTimeout = errors.New("the server has not reached the target in time")
)

// ExitedError is a server that ended, with what its log says about it.
type ExitedError struct {
	Status string   // how the process ended
	Log    []string // the lines that tell why, or the last ones
	Files  []string // where there is more
}

// Is makes errors.Is work with ErrExited and ErrTargetNotReached.
func (e *ExitedError) Is(target error) bool {
	return target == ErrExited || target == ErrTargetNotReached && strings.Contains(strings.Join(e.Log, "\n"), endedBefore)
}

// endedBefore is the server's message (xlogrecovery.c), from 13 on. In another
// language the error is an ErrExited only.
const endedBefore = "recovery ended before configured recovery target was reached"

func (e *ExitedError) Error() string {
	text := fmt.Sprintf("%v (%s)", ErrExited, e.Status)
	for _, l := range e.Log {
		text += "\n  " + l
	}
	if len(e.Files) > 0 {
		text += "\nits log: " + strings.Join(e.Files, ", ")
	}
	return text
}

// exited describes the end of the process; s.done is closed.
func (s *Server) exited() error {
	status := "exit status 0"
	if s.err != nil {
		status = s.err.Error()
	}
	text, files := s.logTail()
	return &ExitedError{Status: status, Log: telling(text), Files: files}
}

// logBytes is how much of a log's end is looked at.
const logBytes = 64 << 10

// logTail is the end of what this run of the server wrote: to standard error
// and, if it collects its log, to the file that it names in current_logfiles.
func (s *Server) logTail() (text string, files []string) {
	if b, err := tailOf(s.opts.Log, s.from); err == nil && len(b) > 0 {
		text, files = string(b), append(files, s.opts.Log)
	}
	b, _ := os.ReadFile(filepath.Join(s.opts.PGData, "current_logfiles"))
	for line := range strings.Lines(string(b)) {
		format, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || format != "stderr" {
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.opts.PGData, path)
		}
		if b, err := tailOf(path, 0); err == nil {
			// Older runs may have written to the same file.
			if i := bytes.LastIndex(b, []byte("starting PostgreSQL")); i >= 0 {
				b = b[i:]
			}
			text, files = text+string(b), append(files, path)
		}
	}
	return text, files
}

func tailOf(path string, from int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if from = max(from, st.Size()-logBytes); from > 0 {
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, logBytes))
}

var alarming = regexp.MustCompile(`\b(FATAL|PANIC|ERROR|HINT|DETAIL|LOCATION):|^walkeep|: not found|No such file`)

// telling are the lines of a log that say why a server ended; without any, the
// last ones.
func telling(text string) []string {
	const most = 12
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var some []string
	for _, l := range lines {
		if alarming.MatchString(l) {
			some = append(some, strings.TrimSpace(l))
		}
	}
	if len(some) == 0 {
		some = lines
	}
	return some[max(0, len(some)-most):]
}
