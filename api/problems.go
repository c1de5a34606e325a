package api

// The codes of problems. Each has a chapter in docs/runbook.md and an alert in
// deploy/alerts.yaml; a test compares the three.
const (
	WALGap          = "wal-gap"
	RepositoryDown  = "repository-down"
	BackupOld       = "backup-old"
	BackupFailed    = "backup-failed"
	WALBehind       = "wal-behind"
	WALConflict     = "wal-conflict"
	HistoryConflict = "history-conflict"
	NodeDown        = "node-down"
	NoPrimary       = "no-primary"
	QueueDropped    = "queue-dropped"
	VerifyOld       = "verify-old"
	VerifyFailed    = "verify-failed"
	DrillOld        = "drill-old"
	DrillFailed     = "drill-failed"
	ExpireFailed    = "expire-failed"
	ConfigInvalid   = "config-invalid"
	NoLeader        = "no-leader"
)

// ProblemCodes are all of them.
func ProblemCodes() []string {
	return []string{
		WALGap, RepositoryDown, BackupOld, BackupFailed, WALBehind, WALConflict, HistoryConflict, NodeDown, NoPrimary,
		QueueDropped, VerifyOld, VerifyFailed, DrillOld, DrillFailed, ExpireFailed, ConfigInvalid, NoLeader,
	}
}
