package config

// Repo is one repository: one place that keeps backups and WAL. Exactly one of
// S3, GCS, Azure and Filesystem is set.
type Repo struct {
	// Name is repo1, repo2, repo3 or repo4.
	Name string `yaml:"name" jsonschema:"required,enum=repo1,enum=repo2,enum=repo3,enum=repo4"`
	// S3 keeps the repository in a bucket of Amazon S3 or of a server that
	// speaks its protocol.
	S3 *S3 `yaml:"s3,omitempty"`
	// GCS keeps the repository in a bucket of Google Cloud Storage.
	GCS *GCS `yaml:"gcs,omitempty"`
	// Azure keeps the repository in a container of Azure Blob Storage.
	Azure *Azure `yaml:"azure,omitempty"`
	// Filesystem keeps the repository in a directory.
	Filesystem *Filesystem `yaml:"filesystem,omitempty"`
	// Prefix stands before every key, so that clusters can share a bucket.
	// Default: the name of the cluster.
	Prefix string `yaml:"prefix,omitempty"`
	// Compression is the codec of what is stored from now on. What is there
	// already is read whatever its codec.
	Compression Compression `yaml:"compression,omitempty"`
	// Encryption makes the repository an encrypted one.
	Encryption *Encryption `yaml:"encryption,omitempty"`
	// Schedules say when `walkeep serve` takes backups, and does the rest.
	Schedules Schedules `yaml:"schedules,omitempty"`
	// Retention says what is kept; without it nothing expires.
	Retention Retention `yaml:"retention,omitempty"`
	// Retry is how failed requests to the store are tried again.
	Retry Retry `yaml:"retry,omitempty"`
	// Limit bounds what walkeep asks of the store.
	Limit Limit `yaml:"limit,omitempty"`
}

// Kind is the kind of store: "s3", "gcs", "azure" or "filesystem".
func (r Repo) Kind() string {
	switch {
	case r.S3 != nil:
		return "s3"
	case r.GCS != nil:
		return "gcs"
	case r.Azure != nil:
		return "azure"
	case r.Filesystem != nil:
		return "filesystem"
	}
	return ""
}

// S3 is a bucket. Without credentials here the AWS SDK's chain is used:
// environment, shared files, web identity (IRSA), container and instance roles.
type S3 struct {
	// Bucket is the name of the bucket.
	Bucket string `yaml:"bucket" jsonschema:"required"`
	// Endpoint is the server, as host, host:port or URL, where it is not
	// Amazon's own of the region.
	Endpoint string `yaml:"endpoint,omitempty"`
	// Region is the region of the bucket. Default: the SDK's chain, then
	// us-east-1.
	Region string `yaml:"region,omitempty"`
	// PathStyle puts the bucket into the path of the URL instead of its host
	// name, as most servers other than Amazon's need it.
	PathStyle bool `yaml:"path-style,omitempty"`
	// CAFile is a PEM file with the authorities that the server's certificate
	// is checked against, besides the system's.
	CAFile string `yaml:"ca-file,omitempty"`
	// Profile is the profile in the shared configuration files.
	Profile string `yaml:"profile,omitempty"`
	// CredentialsFile is a shared credentials file to use instead of
	// ~/.aws/credentials.
	CredentialsFile string `yaml:"credentials-file,omitempty"`
	// AccessKeyIDFile and SecretAccessKeyFile are files that hold one value
	// each, as Kubernetes mounts secrets. Both or none.
	AccessKeyIDFile string `yaml:"access-key-id-file,omitempty"`
	// SecretAccessKeyFile is the other half of AccessKeyIDFile.
	SecretAccessKeyFile string `yaml:"secret-access-key-file,omitempty"`
	// SessionTokenFile goes with temporary keys.
	SessionTokenFile string `yaml:"session-token-file,omitempty"`
}

// GCS is a bucket. Without credentials here Google's default chain is used.
type GCS struct {
	// Bucket is the name of the bucket.
	Bucket string `yaml:"bucket" jsonschema:"required"`
	// Endpoint is the URL of the server, where it is not Google's own.
	Endpoint string `yaml:"endpoint,omitempty"`
	// CredentialsFile is a service account key or a workload identity
	// configuration, as JSON.
	CredentialsFile string `yaml:"credentials-file,omitempty"`
	// CAFile is a PEM file with the authorities that the server's certificate
	// is checked against, besides the system's.
	CAFile string `yaml:"ca-file,omitempty"`
	// Anonymous sends no credentials; for emulators.
	Anonymous bool `yaml:"anonymous,omitempty"`
}

// Azure is a container. Without a key or token here azidentity's default chain
// is used: environment, workload identity, managed identity.
type Azure struct {
	// Container is the name of the container.
	Container string `yaml:"container" jsonschema:"required"`
	// Account is the name of the storage account.
	Account string `yaml:"account" jsonschema:"required"`
	// Endpoint is the URL of the blob service of the account, where it is not
	// https://ACCOUNT.blob.core.windows.net.
	Endpoint string `yaml:"endpoint,omitempty"`
	// AccountKeyFile is a file that holds the account key.
	AccountKeyFile string `yaml:"account-key-file,omitempty"`
	// SASTokenFile is a file that holds a shared access signature.
	SASTokenFile string `yaml:"sas-token-file,omitempty"`
	// CAFile is a PEM file with the authorities that the server's certificate
	// is checked against, besides the system's.
	CAFile string `yaml:"ca-file,omitempty"`
}

// Filesystem is a directory, local or on a network file system.
type Filesystem struct {
	// Path is the directory; an absolute path.
	Path string `yaml:"path" jsonschema:"required"`
	// Create makes the directory if it is missing. Without it a missing
	// directory is an error: it may mean that something is not mounted.
	Create bool `yaml:"create,omitempty"`
}

// Compression is the codec of new objects.
type Compression struct {
	// Codec is zstd (the default), lz4 or none.
	Codec string `yaml:"codec,omitempty" jsonschema:"enum=zstd,enum=lz4,enum=none"`
	// Level is 1 to 19 with zstd (default 3) and 1 to 9 with lz4 (default 1).
	Level int `yaml:"level,omitempty" jsonschema:"minimum=1,maximum=19"`
}

// Encryption says to whom the repository is encrypted, with age. Recipients
// are public keys and can decrypt nothing. With an identity file alone its own
// recipients are used.
type Encryption struct {
	// Recipients are age public keys (age1…) that data and metadata are
	// encrypted to.
	Recipients []string `yaml:"recipients,omitempty"`
	// RecipientsFile holds more recipients, one a line.
	RecipientsFile string `yaml:"recipients-file,omitempty"`
	// IdentityFile is the private key of the data. Restoring needs it; taking
	// backups and archiving do not, where metadata-identity-file is given.
	IdentityFile string `yaml:"identity-file,omitempty"`
	// MetadataIdentityFile is a private key for manifests and summaries only,
	// which nodes hold so that a stolen node reads names, not contents.
	MetadataIdentityFile string `yaml:"metadata-identity-file,omitempty"`
	// MetadataRecipients are the public keys of the nodes' metadata identities,
	// for machines that write to the repository without having one.
	MetadataRecipients []string `yaml:"metadata-recipients,omitempty"`
}

// Schedules say when `walkeep serve` does what: cron with five fields, or six
// with seconds first, or @daily and the like, in the configured time zone.
type Schedules struct {
	// Full is when full backups start.
	Full Cron `yaml:"full,omitempty"`
	// Differential is when differential backups start.
	Differential Cron `yaml:"differential,omitempty"`
	// Incremental is when incremental backups start.
	Incremental Cron `yaml:"incremental,omitempty"`
	// Expire is when retention removes what it does not keep, besides after each
	// backup.
	Expire Cron `yaml:"expire,omitempty"`
	// Verify is when what is stored is verified.
	Verify Cron `yaml:"verify,omitempty"`
	// Repair is when gaps of the WAL are filled, besides whenever one is found.
	Repair Cron `yaml:"repair,omitempty"`
	// Drill is when a restore is rehearsed, on the machine where walkeep serve
	// runs, which needs the server's programs and room: see drills.
	Drill Cron `yaml:"drill,omitempty"`
}

// Retention says what is kept. Zero keeps everything.
type Retention struct {
	// Full is how many full backups, or how many days, are kept.
	Full int `yaml:"full,omitempty" jsonschema:"minimum=1"`
	// FullType is count (the default): keep that many full backups; or time:
	// keep those younger than that many days, and the newest one older.
	FullType RetentionType `yaml:"full-type,omitempty"`
	// Differential is how many differential backups are kept; full ones count.
	Differential int `yaml:"differential,omitempty" jsonschema:"minimum=1"`
	// WAL is of how many backups the WAL is kept without a hole; of older ones
	// only what makes them consistent. Default: of all that full keeps.
	WAL int `yaml:"wal,omitempty" jsonschema:"minimum=1"`
	// WALType says which backups wal counts: full (the default); differential,
	// these too; incremental, all.
	WALType WALRetentionType `yaml:"wal-type,omitempty"`
	// Keep keeps, besides, the last backup of each of some days, weeks, months
	// and years.
	Keep Keep `yaml:"keep,omitempty"`
}

// Keep is grandfather-father-son: the last backup, of any type, of each of the
// last so many periods that have one, in the configured time zone.
type Keep struct {
	// Daily is the number of days.
	Daily int `yaml:"daily,omitempty" jsonschema:"minimum=1"`
	// Weekly is the number of weeks, which begin on Monday.
	Weekly int `yaml:"weekly,omitempty" jsonschema:"minimum=1"`
	// Monthly is the number of months.
	Monthly int `yaml:"monthly,omitempty" jsonschema:"minimum=1"`
	// Yearly is the number of years.
	Yearly int `yaml:"yearly,omitempty" jsonschema:"minimum=1"`
}

// WALRetentionType says which backups retention.wal counts.
type WALRetentionType string

// The values of wal-type.
const (
	WALOfFull         WALRetentionType = "full"
	WALOfDifferential WALRetentionType = "differential"
	WALOfIncremental  WALRetentionType = "incremental"
)

// RetentionType is the unit of retention.full.
type RetentionType string

// The values of full-type.
const (
	RetainCount RetentionType = "count"
	RetainTime  RetentionType = "time"
)

// Retry is how failed requests are tried again.
type Retry struct {
	// Total bounds the time of one request with all its repetitions. Default
	// 5m.
	Total Duration `yaml:"total,omitempty"`
	// FirstDelay is the pause before the first repetition; it doubles each
	// time. Default 300ms.
	FirstDelay Duration `yaml:"first-delay,omitempty"`
	// MaxDelay is the longest pause. Default 20s.
	MaxDelay Duration `yaml:"max-delay,omitempty"`
	// Stall is how long the store may do nothing before a request counts as
	// failed. Default 5m.
	Stall Duration `yaml:"stall,omitempty"`
}

// Limit bounds what is asked of a store. Zero is no bound.
type Limit struct {
	// Requests is the number of requests in flight, at least 4: some work holds
	// one answer open while it asks for the next.
	Requests int `yaml:"requests,omitempty" jsonschema:"minimum=4"`
	// Upload is the most that is sent to the store in a second ("50MB").
	Upload ByteRate `yaml:"upload,omitempty"`
	// Download is the most that is read from the store in a second.
	Download ByteRate `yaml:"download,omitempty"`
}
