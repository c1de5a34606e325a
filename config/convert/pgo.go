package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/walkeep/walkeep/config"
)

// postgresCluster is what this package reads of PGO's resource
// postgres-operator.crunchydata.com/v1beta1, and v1.
type postgresCluster struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"metadata"`
	Spec struct {
		PostgresVersion int `yaml:"postgresVersion"`
		Instances       []struct {
			Name string `yaml:"name"`
		} `yaml:"instances"`
		DataSource any `yaml:"dataSource"`
		Standby    any `yaml:"standby"`
		Backups    struct {
			PgBackRest *pgoBackRest `yaml:"pgbackrest"`
			Snapshots  any          `yaml:"snapshots"`
		} `yaml:"backups"`
	} `yaml:"spec"`
}

type pgoBackRest struct {
	Configuration any            `yaml:"configuration"`
	Global        map[string]any `yaml:"global"`
	Repos         []pgoRepo      `yaml:"repos"`
	Manual        *struct {
		RepoName string   `yaml:"repoName"`
		Options  []string `yaml:"options"`
	} `yaml:"manual"`
	Restore  any `yaml:"restore"`
	Image    any `yaml:"image"`
	Jobs     any `yaml:"jobs"`
	RepoHost any `yaml:"repoHost"`
	Sidecars any `yaml:"sidecars"`
	Metadata any `yaml:"metadata"`
	Log      any `yaml:"log"`
}

type pgoRepo struct {
	Name string `yaml:"name"`
	S3   *struct {
		Bucket   string `yaml:"bucket"`
		Endpoint string `yaml:"endpoint"`
		Region   string `yaml:"region"`
	} `yaml:"s3"`
	GCS *struct {
		Bucket string `yaml:"bucket"`
	} `yaml:"gcs"`
	Azure *struct {
		Container string `yaml:"container"`
	} `yaml:"azure"`
	Volume    any `yaml:"volume"`
	Schedules struct {
		Full         string `yaml:"full"`
		Differential string `yaml:"differential"`
		Incremental  string `yaml:"incremental"`
	} `yaml:"schedules"`
}

// FromPGO converts the backups of a PostgresCluster. The file may hold other
// resources too; cluster names one if there are several.
func FromPGO(data []byte, cluster string) (*Result, error) {
	c, err := findCluster(data, cluster)
	if err != nil {
		return nil, err
	}
	b := c.Spec.Backups.PgBackRest
	if b == nil {
		return nil, fmt.Errorf("%w: the cluster has no spec.backups.pgbackrest", ErrNothing)
	}
	r := &Result{Config: &config.Config{Cluster: c.Metadata.Name}}
	// PGO makes CronJobs of schedules, which run in the zone of Kubernetes'
	// controller manager: UTC unless somebody changed it.
	if err := r.Config.TimeZone.UnmarshalText([]byte("UTC")); err != nil {
		return nil, fmt.Errorf("load time zone: %w", err)
	}
	o := options{}
	for name, v := range b.Global {
		if v != nil {
			o[name] = fmt.Sprint(v)
		}
	}
	seen := map[string]bool{}
	for _, p := range b.Repos {
		if !seen[p.Name] {
			r.pgoRepository(o, p)
		}
		seen[p.Name] = true
	}
	for _, name := range repoNames(o) {
		if !seen[name] {
			r.rest(o, name+"-")
		}
	}
	r.global(o)
	r.pgoNotes(c, b)
	return r, r.finish()
}

// findCluster looks through the documents of a file.
func findCluster(data []byte, name string) (c *postgresCluster, err error) {
	// The library panics on some malformed documents.
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, fmt.Errorf("%w: not YAML", ErrInput)
		}
	}()
	if len(data) > maxInput {
		return nil, fmt.Errorf("%w: more than 1 MiB", ErrInput)
	}
	var found []*postgresCluster
	var names []string
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc postgresCluster
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			switch {
			case len(found) == 1:
				return found[0], nil
			case len(found) == 0 && name != "":
				return nil, fmt.Errorf("%w: no PostgresCluster %q (there is %s)", ErrNothing, name, strings.Join(names, ", "))
			case len(found) == 0:
				return nil, fmt.Errorf("%w: no resource of kind PostgresCluster", ErrNothing)
			}
			return nil, fmt.Errorf("%w: %d clusters, %s: say which one; walkeep has a configuration for each", ErrInput, len(found), strings.Join(names, ", "))
		case err != nil:
			var syntax yaml.Error
			if errors.As(err, &syntax) && syntax.GetToken() != nil && syntax.GetToken().Position != nil {
				return nil, fmt.Errorf("%w: line %d: %s", ErrInput, syntax.GetToken().Position.Line, syntax.GetMessage())
			}
			return nil, fmt.Errorf("%w: not YAML", ErrInput)
		}
		if doc.Kind != "PostgresCluster" {
			continue
		}
		names = append(names, doc.Metadata.Name)
		if name == "" || name == doc.Metadata.Name {
			found = append(found, &doc)
		}
	}
}

func (r *Result) pgoRepository(o options, p pgoRepo) {
	c := config.Repo{Name: p.Name}
	switch {
	case p.S3 != nil:
		c.S3 = &config.S3{Bucket: p.S3.Bucket, Endpoint: p.S3.Endpoint, Region: p.S3.Region}
		r.note(NeedsYou, p.Name+".s3", "mount the keys as files and name them (access-key-id-file, secret-access-key-file), or give the pods' service account a role")
	case p.GCS != nil:
		c.GCS = &config.GCS{Bucket: p.GCS.Bucket}
		r.note(NeedsYou, p.Name+".gcs", "mount the service account's key and name it (credentials-file), or use workload identity")
	case p.Azure != nil:
		c.Azure = &config.Azure{Container: p.Azure.Container}
		r.note(NeedsYou, p.Name+".azure", "mount the key and name it (account-key-file), or use workload identity")
	case p.Volume != nil:
		c.Filesystem = &config.Filesystem{Path: "/pgbackrest/" + p.Name}
		r.note(NeedsYou, p.Name+".volume", "mount a volume that all nodes share (ReadWriteMany) at %s: there is no repository host", c.Filesystem.Path)
	default:
		r.note(NeedsYou, p.Name, "it has none of s3, gcs, azure and volume; left out")
		return
	}
	r.schedule(&c.Schedules.Full, p.Name+".schedules.full", p.Schedules.Full)
	r.schedule(&c.Schedules.Differential, p.Name+".schedules.differential", p.Schedules.Differential)
	r.schedule(&c.Schedules.Incremental, p.Name+".schedules.incremental", p.Schedules.Incremental)
	r.repository(o, c)
}

func (r *Result) schedule(c *config.Cron, name, text string) {
	if text == "" {
		return
	}
	if err := c.UnmarshalText([]byte(text)); err != nil {
		*c = config.Cron{}
		r.note(NeedsYou, name, "%q: %v; left out", text, err)
	}
}

// pgoNotes says what becomes of the rest of the resource.
func (r *Result) pgoNotes(c *postgresCluster, b *pgoBackRest) {
	version := "NN"
	if c.Spec.PostgresVersion > 0 {
		version = fmt.Sprint(c.Spec.PostgresVersion)
	}
	r.note(NeedsYou, "spec.instances", "set postgres: patroni with the members' addresses, or nodes; pgdata is /pgdata/pg%s", version)
	if b.Manual != nil {
		kind := "incremental"
		for _, opt := range b.Manual.Options {
			for from, to := range map[string]string{"full": "full", "diff": "differential", "incr": "incremental"} {
				if strings.HasSuffix(opt, "type="+from) || strings.HasSuffix(opt, "type "+from) {
					kind = to
				}
			}
		}
		r.note(NotNeeded, "manual", "walkeep backup --repo %s --type %s, the page, or POST /v1/backups", b.Manual.RepoName, kind)
	}
	for _, n := range []struct {
		is    any
		kind  Kind
		name  string
		about string
	}{
		{b.Configuration, NeedsYou, "configuration", "its secrets hold options of pgBackRest: mount them as files of one value each"},
		{b.Restore, NoCounterpart, "restore", "walkeep restore, in a Job: deploy/kubernetes/restore-job.yaml"},
		{c.Spec.DataSource, NoCounterpart, "spec.dataSource", "walkeep restore, in a Job, fills the volume of the new cluster"},
		{c.Spec.Standby, NoCounterpart, "spec.standby", "walkeep restore --type standby"},
		{b.RepoHost, NoCounterpart, "repoHost", "there is no repository host: nodes talk to the store themselves"},
		{b.Image, NotNeeded, "image", "the manifests in deploy/kubernetes name walkeep's"},
		{b.Jobs, NotNeeded, "jobs", "backups run in the agent beside a server"},
		{b.Sidecars, NotNeeded, "sidecars", "the agent's resources are in deploy/kubernetes"},
		{b.Metadata, NotNeeded, "metadata", "labels are in deploy/kubernetes"},
		{b.Log, NotNeeded, "log", "the log goes to standard error"},
		{c.Spec.Backups.Snapshots, NoCounterpart, "spec.backups.snapshots", "walkeep makes no volume snapshots"},
	} {
		if n.is != nil {
			r.note(n.kind, n.name, "%s", n.about)
		}
	}
}
