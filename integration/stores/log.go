package stores

import (
	"os"
	"strings"
)

// Log returns the last lines of what the server said.
func (s *Server) Log(lines int) string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
