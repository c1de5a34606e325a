package config

import "fmt"

// Drills are rehearsals of restores, by `walkeep drill` or in the schedule of a
// repository.
type Drills struct {
	// Moment is newest (the default) or random: which moment is restored.
	Moment DrillMoment `yaml:"moment,omitempty"`
	// Scratch is the directory below which the cluster is restored; it needs the
	// room of one. Default: the system's directory for temporary files.
	Scratch string `yaml:"scratch,omitempty"`
	// BinDir is where the server's programs are. Default:
	// /usr/lib/postgresql/MAJOR/bin, then PATH.
	BinDir string `yaml:"bindir,omitempty"`
	// Username is a superuser of the cluster. Default: the user of the nodes'
	// conninfo, then postgres.
	Username string `yaml:"username,omitempty"`
	// AmCheck runs pg_amcheck over all databases. Default: true.
	AmCheck *bool `yaml:"amcheck,omitempty"`
	// Checks are statements that must hold in the restored cluster.
	Checks []DrillCheck `yaml:"checks,omitempty"`
}

// DrillCheck is one statement. It fails if it ends in an error, or yields a row
// whose first column is false.
type DrillCheck struct {
	// Name is for people. Default: the statement.
	Name string `yaml:"name,omitempty"`
	// Database is where it runs.
	Database string `yaml:"database" jsonschema:"required"`
	// SQL is the statement.
	SQL string `yaml:"sql" jsonschema:"required"`
}

// DrillMoment says which moment a drill restores.
type DrillMoment string

// The values of drills.moment.
const (
	NewestMoment DrillMoment = "newest"
	RandomMoment DrillMoment = "random"
)

func (k checker) drills(d *Drills) {
	if k.present("drills.moment") && d.Moment != NewestMoment && d.Moment != RandomMoment && !k.refused(k.positions["drills.moment"]) {
		k.refuse("drills.moment", "found "+quote(string(d.Moment)), "newest or random")
	}
	k.absolute("drills.scratch", d.Scratch)
	k.absolute("drills.bindir", d.BinDir)
	for i, c := range d.Checks {
		for name, value := range map[string]string{"database": c.Database, "sql": c.SQL} {
			if field := fmt.Sprintf("drills.checks[%d].%s", i, name); k.present(field) && value == "" {
				k.refuse(field, "found nothing", "a "+name)
			}
		}
	}
}
