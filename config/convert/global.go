package convert

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/walkeep/walkeep/config"
)

// global takes the options that are not of one repository.
func (r *Result) global(o options) {
	c := r.Config
	r.compression(o)
	if n := r.number(o, "process-max"); n > 0 {
		c.Backup.Workers = min(n, 64)
	}
	if v, ok := o.take("backup-standby"); ok {
		switch v {
		case "y":
			c.Postgres.BackupFrom = config.FromStandby
		case "n":
			c.Postgres.BackupFrom = config.FromPrimary
		case "prefer":
			c.Postgres.BackupFrom = config.PreferStandby
		}
	}
	if v, ok := o.take("archive-push-queue-max"); ok {
		if c.Archive.QueueLimit = size(v); c.Archive.QueueLimit == 0 {
			r.note(NeedsYou, "archive-push-queue-max", "%q is not a size of 1 MB or more; left out", v)
		} else {
			r.note(NoCounterpart, "archive-push-queue-max", "archive.queue-limit is the same limit, but for each repository: what one drops, the others keep")
		}
	}
	if v, ok := o.take("archive-get-queue-max"); ok {
		if c.Archive.Spool.Size = size(v); c.Archive.Spool.Size == 0 {
			r.note(NeedsYou, "archive-get-queue-max", "%q is not a size of 1 MB or more; left out", v)
		}
	}
	r.rest(o, "")
}

// compression is one setting for all repositories.
func (r *Result) compression(o options) {
	kind, _ := o.take("compress-type")
	level, leveled := o.take("compress-level")
	if v, ok := o.take("compress"); ok && v == "n" {
		kind = "none"
	}
	var out config.Compression
	high := 0
	switch kind {
	case "":
	case "zst":
		out.Codec, high = "zstd", 19
	case "lz4":
		out.Codec, high = "lz4", 9
	case "none":
		out.Codec = "none"
	default:
		r.note(NoCounterpart, "compress-type", "walkeep has no %s; zstd, the default, is smaller and faster", kind)
	}
	if n, err := strconv.Atoi(level); leveled && err == nil && n >= 1 && n <= high {
		out.Level = n
	} else if leveled {
		r.note(NoCounterpart, "compress-level", "level %s is not one of the codec's; the default is used", level)
	}
	for i := range r.Config.Repos {
		r.Config.Repos[i].Compression = out
	}
}

// size reads a size such as 1GiB, 1GB or 1g, which are all powers of 1024 to
// pgBackRest. 0: it is none, or too small.
func size(v string) config.ByteSize {
	lower := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(v)), "b"), "i")
	units := map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
	digits := strings.TrimRight(lower, "kmgt")
	unit, ok := units[lower[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 1 || n > 1<<50/unit || n*unit < 1_000_000 {
		return 0
	}
	return config.ByteSize(n * unit)
}

// explained are options that walkeep has no setting for, with the reason; for
// options of a repository without the repoN-.
var explained = map[string]Note{
	"archive-async":             {NotNeeded, "", "the agent always archives ahead, in parallel"},
	"spool-path":                {NotNeeded, "", "pushing needs no spool; what get fetches ahead lies beside the data directory (archive.spool)"},
	"start-fast":                {NotNeeded, "", "backups start at once, unless --spread-checkpoint says otherwise"},
	"stop-auto":                 {NotNeeded, "", "a backup of a dead process is ended by the server"},
	"resume":                    {NotNeeded, "", "a killed backup's data is always used again"},
	"checksum-page":             {NotNeeded, "", "page checksums are always checked, where the cluster has them"},
	"page-header-check":         {NotNeeded, "", "page checksums are always checked, where the cluster has them"},
	"bundle":                    {NotNeeded, "", "small files always share packs"},
	"bundle-size":               {NotNeeded, "", "small files always share packs"},
	"bundle-limit":              {NotNeeded, "", "small files always share packs"},
	"block":                     {NotNeeded, "", "incremental backups always store changed pages only"},
	"expire-auto":               {NotNeeded, "", "walkeep serve expires after each backup"},
	"archive-check":             {NotNeeded, "", "a backup is complete only when its WAL is in the repository"},
	"archive-timeout":           {NotNeeded, "", "a backup waits for its WAL as long as it keeps arriving"},
	"archive-mode-check":        {NotNeeded, "", "archive_mode=always is fine with walkeep"},
	"archive-header-check":      {NotNeeded, "", "WAL is always examined"},
	"lock-path":                 {NotNeeded, "", "leases lie in the repositories"},
	"process-max":               {NotNeeded, "", "archive.workers, backup.workers and restore.workers have good defaults"},
	"neutral-umask":             {NotNeeded, "", "files have the modes of the cluster"},
	"io-timeout":                {NotNeeded, "", "repos.retry.stall has a good default"},
	"buffer-size":               {NotNeeded, "", "buffers are sized by what flows through them"},
	"protocol-timeout":          {NotNeeded, "", "agents are followed as long as they make progress"},
	"db-timeout":                {NotNeeded, "", "connections have good defaults"},
	"sck-keep-alive":            {NotNeeded, "", "connections are always kept alive"},
	"tcp-keep-alive-idle":       {NotNeeded, "", "connections are always kept alive"},
	"storage-upload-chunk-size": {NotNeeded, "", "packs are sized to the store"},
	"log-level-console":         {NotNeeded, "", "the log goes to standard error; --log-level sets how much"},
	"log-level-stderr":          {NotNeeded, "", "the log goes to standard error; --log-level sets how much"},
	"log-level-file":            {NotNeeded, "", "the log goes to standard error, for journald or Kubernetes"},
	"log-path":                  {NotNeeded, "", "the log goes to standard error, for journald or Kubernetes"},
	"log-timestamp":             {NotNeeded, "", "the log goes to standard error, for journald or Kubernetes"},
	"log-subprocess":            {NotNeeded, "", "there are no subprocesses"},
	"delta":                     {NoCounterpart, "", "walkeep restore --delta, each time: a restore over files is asked for, not configured"},
	"retention-history":         {NoCounterpart, "", "nothing of a removed backup is kept"},
	"storage-verify-tls":        {NoCounterpart, "", "certificates are always checked; name the authority in ca-file"},
	"s3-verify-tls":             {NoCounterpart, "", "certificates are always checked; name the authority in ca-file"},
	"storage-ca-path":           {NoCounterpart, "", "name one file: ca-file"},
	"s3-kms-key-id":             {NoCounterpart, "", "set the key as the bucket's default"},
	"s3-sse-customer-key":       {NoCounterpart, "", "use encryption with age"},
	"s3-role":                   {NotNeeded, "", "the SDK asks the machine for its role"},
	"s3-requester-pays":         {NoCounterpart, "", "the owner of the bucket pays"},
	"storage-tag":               {NoCounterpart, "", "set tags on the bucket"},
	"hardlink":                  {NoCounterpart, "", "backups share packs instead"},
	"symlink":                   {NoCounterpart, "", "walkeep list shows the newest backup"},
	"host":                      {NoCounterpart, "", "there is no repository host: nodes talk to the store themselves; share a directory, or run an object store"},
	"exclude":                   {NoCounterpart, "", "what PostgreSQL itself leaves out is left out, nothing else"},
	"archive-copy":              {NoCounterpart, "", "WAL is in the archive of the repository"},
	"link-all":                  {NoCounterpart, "", "walkeep restore --link-map"},
	"link-map":                  {NoCounterpart, "", "walkeep restore --link-map"},
	"tablespace-map":            {NoCounterpart, "", "walkeep restore --tablespace-map"},
	"tablespace-map-all":        {NoCounterpart, "", "walkeep restore --tablespace-map-all"},
	"recovery-option":           {NoCounterpart, "", "walkeep restore --set"},
	"annotation":                {NoCounterpart, "", "walkeep backup --annotate"},
	"tls-server-address":        {NoCounterpart, "", "the agent's API is agent.listen"},
	"tls-server-auth":           {NoCounterpart, "", "the agent's API is agent.listen, with agent.tls"},
	"tls-server-ca-file":        {NoCounterpart, "", "agent.tls"},
	"tls-server-cert-file":      {NoCounterpart, "", "agent.tls"},
	"tls-server-key-file":       {NoCounterpart, "", "agent.tls"},
}

// secrets are options whose value is never shown; their names end in this.
var secrets = []string{"-key", "-key-secret", "-pass", "-token", "-passphrase"}

// rest says of all options that begin with prefix, and were not taken, why.
func (r *Result) rest(o options, prefix string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		key := name
		if m := repoOption.FindStringSubmatch(name); m != nil {
			key = m[2]
		}
		note, ok := explained[key]
		switch {
		case ok:
		case strings.HasPrefix(key, "host-"):
			note = explained["host"]
		case strings.HasPrefix(key, "block-"):
			note = explained["block"]
		case slices.ContainsFunc(secrets, func(s string) bool { return strings.HasSuffix(name, s) }):
			note = Note{NoCounterpart, "", "walkeep has no such setting"}
		default:
			note = Note{NoCounterpart, "", "walkeep has no such setting (the value is " + strconv.Quote(o[name]) + ")"}
		}
		r.note(note.Kind, name, "%s", note.Text)
		delete(o, name)
	}
}
