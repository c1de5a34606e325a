// Package config is the walkeep configuration file: one YAML file per cluster,
// decoded strictly and once.
//
// [Load] reads the file into a [Config], fills in the defaults and checks
// everything that can be checked without asking a server or a store. What is
// wrong is not found one by one: a [*Error] lists every problem with file,
// line, column, field, what was found and what was expected.
//
// Secrets never stand in the file. Stores take them from files that are named
// here or from the cloud SDKs' own chains; PostgreSQL from a password file. So
// a configuration can be printed, mailed and committed. The values of the file
// are used as they are: no environment variable is expanded.
//
// The JSON schema of the file, for editors, is generated from the types of
// this package (schema.json, [Schema]).
package config

import (
	"time"
)

// Config is a whole configuration file: one cluster and its repositories.
type Config struct {
	// Cluster is the name of the cluster, and the default prefix of its keys
	// in every repository. Letters, digits, '.', '_' and '-'; at most 63.
	Cluster string `yaml:"cluster" jsonschema:"required"`
	// TimeZone is the IANA name of the zone that schedules run in and that
	// times are shown in. Default: the machine's zone.
	TimeZone TimeZone `yaml:"timezone,omitempty"`
	// Postgres says where the servers of the cluster are. It can be left out
	// where nothing but the repositories is used (restore, list).
	Postgres Postgres `yaml:"postgres,omitempty"`
	// Archive is how WAL is archived.
	Archive Archive `yaml:"archive"`
	// Agent is the agent beside each server.
	Agent Agent `yaml:"agent,omitempty"`
	// Service is the service, walkeep serve.
	Service Service `yaml:"service,omitempty"`
	// Backup is how backups are taken.
	Backup Backup `yaml:"backup,omitempty"`
	// Restore is how backups are restored.
	Restore Restore `yaml:"restore,omitempty"`
	// Drills are how restores are rehearsed.
	Drills Drills `yaml:"drills,omitempty"`
	// Repos are the repositories, one to four.
	Repos []Repo `yaml:"repos" jsonschema:"required,minItems=1,maxItems=4"`
}

// Location is the zone to show times in and to run schedules in.
func (c *Config) Location() *time.Location { return c.TimeZone.Location() }

// Repo returns the repository of that name.
func (c *Config) Repo(name string) (Repo, bool) {
	for _, r := range c.Repos {
		if r.Name == name {
			return r, true
		}
	}
	return Repo{}, false
}

// Required is the number of repositories that must hold a segment before
// PostgreSQL is told that it is archived.
func (c *Config) Required() int {
	if c.Archive.Require.All() {
		return len(c.Repos)
	}
	return c.Archive.Require.Number()
}

// Postgres says where the servers are: Nodes or Patroni, not both.
type Postgres struct {
	// Nodes are the servers of the cluster, named one by one.
	Nodes []Node `yaml:"nodes,omitempty"`
	// Patroni asks Patroni's REST API for the servers instead.
	Patroni *Patroni `yaml:"patroni,omitempty"`
	// BackupFrom says which server backups are read from: prefer-standby (the
	// default), standby or primary.
	BackupFrom BackupFrom `yaml:"backup-from,omitempty"`
	// BackupSource says how backups read the data directory: files, by an agent or
	// where it is on this machine; sql, through the server; or auto (the
	// default), over SQL where no node has its files read.
	BackupSource BackupSource `yaml:"backup-source,omitempty"`
}

// Node is one PostgreSQL server.
type Node struct {
	// Name is what the node is called in messages; unique. Default: node1,
	// node2 and so on.
	Name string `yaml:"name,omitempty"`
	// ConnInfo is a libpq connection string or URI, without a password: that
	// comes from a password file (passfile=, ~/.pgpass).
	ConnInfo string `yaml:"conninfo" jsonschema:"required"`
	// Agent is the URL of the walkeep agent beside the server, if one runs.
	Agent string `yaml:"agent,omitempty"`
	// PGData is the data directory on that node; an absolute path. Default:
	// the server is asked.
	PGData string `yaml:"pgdata,omitempty"`
}

// Patroni says how to find the servers through Patroni.
type Patroni struct {
	// URLs are the REST addresses of some members; the first that answers is
	// used.
	URLs []string `yaml:"urls" jsonschema:"required,minItems=1"`
	// CAFile is a PEM file with the authorities that the members' certificates
	// are checked against, besides the system's.
	CAFile string `yaml:"ca-file,omitempty"`
	// ConnInfo is added to the host and port that Patroni reports: user,
	// dbname, sslmode. No password.
	ConnInfo string `yaml:"conninfo,omitempty"`
	// PGData is the data directory on every member; an absolute path.
	PGData string `yaml:"pgdata,omitempty"`
	// AgentPort is the port of the walkeep agent beside each member. Default:
	// there is none.
	AgentPort int `yaml:"agent-port,omitempty" jsonschema:"minimum=1,maximum=65535"`
}

// Archive is how WAL is archived.
type Archive struct {
	// Require is the number of repositories that must hold a segment before
	// PostgreSQL is told that it is archived: all (the default), or 1 to 4.
	Require Require `yaml:"require"`
	// Workers is the number of segments in transfer at a time, 1 to 64.
	// Default 4.
	Workers int `yaml:"workers,omitempty" jsonschema:"minimum=1,maximum=64"`
	// QueueLimit is how much WAL may wait for one repository before the agent no
	// longer waits for it: the oldest segments are dropped from its queue, which
	// leaves a gap there until it is back. Default: no limit, so that pg_wal
	// grows until the repository is back.
	QueueLimit ByteSize `yaml:"queue-limit,omitempty"`
	// Spool is where segments are kept that recovery has not asked for yet.
	Spool Spool `yaml:"spool,omitempty"`
	// Stream makes the agent receive WAL by replication too, and store the
	// growing segment every few seconds. The role of conninfo needs REPLICATION.
	// Default false.
	Stream bool `yaml:"stream,omitempty"`
	// StreamInterval is how often the growing segment is stored, 1s or more.
	// Default 5s.
	StreamInterval Duration `yaml:"stream-interval,omitempty"`
	// StreamSpool is a directory for what was received and is not stored yet; an
	// absolute path. Default: .walkeep-stream beside the data directory.
	StreamSpool string `yaml:"stream-spool,omitempty"`
	// Slot is a physical replication slot to stream with; it must exist on the
	// server. Default: none.
	Slot string `yaml:"slot,omitempty"`
}

// Agent is the agent beside each server.
type Agent struct {
	// Socket is the unix socket on which walkeep-wal asks the agent; an absolute
	// path of at most 100 bytes. Default /run/walkeep/agent.sock.
	Socket string `yaml:"socket,omitempty"`
	// StandbyDelay is how long a standby lets a new segment lie before it
	// pushes it, because the primary is about to. Default 2s.
	StandbyDelay Duration `yaml:"standby-delay,omitempty"`
	// Rescan is how often pg_wal is looked through without an occasion. Default
	// 10s.
	Rescan Duration `yaml:"rescan,omitempty"`
	// Listen is the host and port of the agent's HTTPS API. It needs tls, and
	// tls.client-ca-file or token-file. Default: none.
	Listen string `yaml:"listen,omitempty"`
	// TLS has the certificates of the API, of both ends.
	TLS TLS `yaml:"tls,omitempty"`
	// TokenFile has the bearer tokens that the API accepts, one a line; the
	// first one is what this machine sends to agents. An absolute path.
	TokenFile string `yaml:"token-file,omitempty"`
}

// TLS has the certificates of a connection. Paths are absolute, files are PEM
// and read again when they change.
type TLS struct {
	// CertFile and KeyFile are our certificate, as server and as client.
	CertFile string `yaml:"cert-file,omitempty"`
	KeyFile  string `yaml:"key-file,omitempty"`
	// ClientCAFile has the authorities of clients' certificates. Default: none
	// is asked for.
	ClientCAFile string `yaml:"client-ca-file,omitempty"`
	// CAFile has the authorities that agents' certificates are checked against.
	// Default: the system's.
	CAFile string `yaml:"ca-file,omitempty"`
}

// MaxSocket is the longest path of the agent's socket, bytes: the kernel takes
// 107 (unix(7)), and the agent makes it under a longer name first.
const MaxSocket = 100

// Spool is where get keeps segments that it fetched ahead of recovery.
type Spool struct {
	// Path is a directory on local disk, which is made if it can be; or none,
	// for no prefetching. Default: .walkeep-spool beside the data directory.
	Path string `yaml:"path,omitempty"`
	// Size bounds what one recovery keeps there. Default 128MiB.
	Size ByteSize `yaml:"size,omitempty"`
}

// NoSpool is the path that turns prefetching off.
const NoSpool = "none"

// Backup is how backups are taken.
type Backup struct {
	// Workers is the number of files read and compressed at a time, 1 to 64.
	// Default: the number of processors, at most 8.
	Workers int `yaml:"workers,omitempty" jsonschema:"minimum=1,maximum=64"`
	// RateLimit is how many bytes a second a backup sends to all repositories
	// together, as stored. Default: no limit.
	RateLimit ByteRate `yaml:"rate-limit,omitempty"`
	// ReadRate is how many bytes a second a backup reads from the data
	// directory. Default: no limit.
	ReadRate ByteRate `yaml:"read-rate,omitempty"`
}

// Restore is how backups are restored.
type Restore struct {
	// Workers is the number of files written at a time, 1 to 64. Default: the
	// number of processors, at most 8.
	Workers int `yaml:"workers,omitempty" jsonschema:"minimum=1,maximum=64"`
}

// BackupFrom says which server backups are read from.
type BackupFrom string

// The values of backup-from.
const (
	PreferStandby BackupFrom = "prefer-standby"
	FromStandby   BackupFrom = "standby"
	FromPrimary   BackupFrom = "primary"
)

// BackupSource says how backups read the data directory.
type BackupSource string

// The values of backup-source.
const (
	SourceAuto  BackupSource = "auto"
	SourceFiles BackupSource = "files"
	SourceSQL   BackupSource = "sql"
)
