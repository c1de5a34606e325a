package main

import (
	"context"
	"slices"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/repo"
)

// backupDetails is what `show --json` prints: the summary's own fields, and
// what the manifest adds.
type backupDetails struct {
	api.BackupContents
	EveryFile []fileDetect `json:"every_file,omitempty"` // with --files
}

// fileDetect is how the changes of one file were detected.
type fileDetect struct {
	Path  string `json:"path"`
	By    string `json:"by"`
	Bytes int64  `json:"bytes"`
	Own   int64  `json:"own"` // stored by this backup itself
}

// describe adds what the manifest says.
func describe(ctx context.Context, b foundBackup, files bool) (d backupDetails, err error) {
	d.Repo, d.Summary = b.repository.Name(), b.summary
	var each func(repo.FileEntry, int64)
	if files {
		each = func(f repo.FileEntry, own int64) {
			d.EveryFile = append(d.EveryFile, fileDetect{f.Path, f.Detect, f.Size, own})
		}
	}
	d.Contents, err = b.epoch.Contents(ctx, b.summary, each)
	return d, err
}

// annotations are key=value pairs for people, in the order of their keys.
func annotations(m map[string]string) []string {
	var all []string
	for k, v := range m {
		all = append(all, printable(k+"="+v))
	}
	slices.Sort(all)
	return all
}
