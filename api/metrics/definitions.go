package metrics

import "strings"

// definition is a metric. Its name follows walkeep_, its labels follow cluster.
type definition struct {
	name, help string
	labels     []string
	counter    bool
}

// definitions are all metrics, in the order of docs/metrics.md, which a test
// compares with them.
var definitions = []definition{
	{"info", "Version of the service; the value is 1.", []string{"version"}, false},
	{"leader", "Whether this service leads the cluster.", nil, false},
	{"level", "How well all is: 0 ok, 1 warning, 2 critical.", nil, false},
	{"problem", "Something that is not well, by its code; the value is 1.", []string{"code", "level", "repo", "node"}, false},
	{"snapshot_timestamp_seconds", "When the state that these metrics show last changed.", nil, false},

	{"repository_up", "Whether the repository could be looked at.", []string{"repo"}, false},
	{"repository_level", "How well the repository is: 0 ok, 1 warning, 2 critical.", []string{"repo"}, false},
	{"repository_paused", "Whether scheduled runs of the repository are paused.", []string{"repo"}, false},
	{"repository_looked_at_timestamp_seconds", "When the repository was last looked at with success.", []string{"repo"}, false},
	{"repository_stored_bytes", "Size of all backups in the repository.", []string{"repo"}, false},

	{"backups", "Number of backups.", []string{"repo", "type"}, false},
	{"backup_since_last_completion_seconds", "Age of the newest backup of the type, or of one that does its work.", []string{"repo", "type"}, false},
	{"backup_last_timestamp_seconds", "When the newest backup of the type ended.", []string{"repo", "type"}, false},
	{"backup_last_duration_seconds", "How long the newest backup of the type took.", []string{"repo", "type"}, false},
	{"backup_last_bytes", "Size of the cluster in the newest backup of the type.", []string{"repo", "type"}, false},
	{"backup_last_stored_bytes", "What the newest backup of the type stored.", []string{"repo", "type"}, false},
	{"backup_last_page_errors", "Pages with a wrong checksum in the newest backup of the type.", []string{"repo", "type"}, false},
	{"recovery_window_earliest_timestamp_seconds", "First moment that can be restored to, in the window that reaches furthest.", []string{"repo"}, false},
	{"recovery_window_latest_timestamp_seconds", "Last moment that can be restored to.", []string{"repo"}, false},

	{"wal_behind_segments", "Segments that the cluster has written and the repository does not hold.", []string{"repo"}, false},
	{"wal_behind_seconds", "For how long the oldest of these segments is missing.", []string{"repo"}, false},
	{"wal_segments", "Segments that the repository holds.", []string{"repo"}, false},
	{"wal_gaps", "Gaps: ranges of WAL that are needed and not there.", []string{"repo"}, false},
	{"wal_gap_segments", "Segments in these gaps.", []string{"repo"}, false},
	{"wal_conflicts", "Files that two nodes archived with different contents.", []string{"repo"}, false},

	{"node_up", "Whether the node answers.", []string{"node", "role"}, false},
	{"node_timeline", "Timeline of the node.", []string{"node"}, false},
	{"node_lag_bytes", "WAL that the node has not replayed.", []string{"node"}, false},
	{"agent_up", "Whether the agent beside the node answers.", []string{"node"}, false},
	{"agent_error", "Whether the agent's last attempt at the repository failed.", []string{"node", "repo"}, false},
	{"agent_queue_files", "WAL files that wait for the repository on the node.", []string{"node", "repo"}, false},
	{"agent_queue_bytes", "Size of these files.", []string{"node", "repo"}, false},
	{"agent_queue_oldest_seconds", "For how long the oldest of these files waits; 0 if none does.", []string{"node", "repo"}, false},
	{"agent_pushed_total", "WAL files that the agent stored.", []string{"node", "repo"}, true},
	{"agent_deduplicated_total", "WAL files that the agent found stored by another node.", []string{"node", "repo"}, true},
	{"agent_repaired_total", "WAL files that the agent stored to fill gaps.", []string{"node", "repo"}, true},
	{"agent_conflicting_total", "WAL files that differed from what was stored.", []string{"node", "repo"}, true},
	{"agent_dropped_total", "WAL files that the agent gave up, because of archive.queue-limit.", []string{"node", "repo"}, true},

	{"runs", "Runs under way, by state: queued or running.", []string{"repo", "kind", "state"}, false},
	{"run_copied_bytes", "What the running run has read.", []string{"repo", "kind"}, false},
	{"run_total_bytes", "What the running run has to read; 0 if unknown.", []string{"repo", "kind"}, false},
	{"run_last_success", "Whether the last run of the kind ended well.", []string{"repo", "kind"}, false},
	{"run_last_duration_seconds", "How long the last run of the kind that ended well took.", []string{"repo", "kind"}, false},
	{"run_last_failed_timestamp_seconds", "When a run of the kind last failed.", []string{"repo", "kind"}, false},
	{"next_run_timestamp_seconds", "When the next run of the kind is due.", []string{"repo", "kind"}, false},
	{"verify_last_timestamp_seconds", "When a verification of the repository last ended well.", []string{"repo"}, false},
	{"verify_since_last_completion_seconds", "How long ago that was.", []string{"repo"}, false},
	{"drill_last_success", "Whether the last rehearsal of a restore passed.", []string{"repo"}, false},
	{"drill_last_timestamp_seconds", "When the last rehearsal of a restore ended.", []string{"repo"}, false},
	{"drill_last_successful_timestamp_seconds", "When the last rehearsal of a restore that passed ended.", []string{"repo"}, false},
	{"drill_since_last_success_seconds", "How long ago that was.", []string{"repo"}, false},
	{"drill_last_duration_seconds", "How long each part of it took: restore, recovery, checks.", []string{"repo", "part"}, false},
	{"expire_last_timestamp_seconds", "When an expiry of the repository last ended well.", []string{"repo"}, false},
	{"expire_since_last_completion_seconds", "How long ago that was.", []string{"repo"}, false},
}

// valid makes label values UTF-8, without which a scrape fails as a whole.
func valid(labels []string) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	return out
}
