package backup

import "fmt"

// Detect is a rung of the ladder of change detection: how it was found out
// which pages of a file are not as in the parent. Where a rung cannot be
// relied on, the next one below is taken.
type Detect string

// The rungs, the best first. DetectBest is none of them: the best that is
// possible for each file.
const (
	DetectBest      Detect = ""
	DetectSummaries Detect = "summaries" // the server's WAL summaries, 17 and newer
	DetectChanges   Detect = "changes"   // block changes taken from WAL as it was archived
	DetectScan      Detect = "scan"      // the LSN of every page
	DetectWhole     Detect = "whole"     // all of the file is stored
)

// ParseDetect reads the name of a rung.
func ParseDetect(s string) (Detect, error) {
	switch d := Detect(s); d {
	case DetectSummaries, DetectChanges, DetectScan, DetectWhole:
		return d, nil
	}
	return "", fmt.Errorf("unknown way to detect changes %q (expected summaries, changes, scan or whole)", s)
}

// DetectError: the rung that was asked for is not possible.
type DetectError struct {
	Detect Detect
	Why    string
}

func (e *DetectError) Error() string {
	return fmt.Sprintf("changes cannot be detected by %s: %s", e.Detect, e.Why)
}
