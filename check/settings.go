package check

import (
	"fmt"
	"strings"

	"github.com/walkeep/walkeep/pg"
)

// archiveCommandAdvice is the setting to make.
const archiveCommandAdvice = `Set archive_command = '/usr/local/bin/walkeep-wal push "%p"' (the path where walkeep-wal is installed) and reload.`

// checkSettings judges the settings of a node in a cluster of so many.
func (n *node) checkSettings(nodes int) {
	if !n.known {
		return
	}
	i := n.info
	if i.WALLevel == "minimal" {
		n.fail("wal_level", "minimal: neither backups nor archiving are possible", "Set wal_level = replica and restart the server.")
	} else {
		n.ok("wal_level", "%s", i.WALLevel)
	}
	n.checkArchiveMode(nodes)
	n.checkArchiveCommand()
	n.checkFullPageWrites(nodes)
	if i.DataChecksums {
		n.ok("data_checksums", "on")
	} else {
		n.warn("data_checksums", "off: a page that the disk damaged is not noticed, and backed up as it is",
			"Stop the server and run pg_checksums --enable, one node after the other, standbys first.")
	}
	if i.ExclusiveBackup {
		n.warn("exclusive_backup", "somebody began an exclusive backup on this server and never ended it: after a crash it may not start",
			"If nobody knows of it, run SELECT pg_stop_backup() there.")
	}
}

func (n *node) checkArchiveMode(nodes int) {
	switch mode := n.info.ArchiveMode; {
	case mode == "off":
		n.fail("archive_mode", "off: nothing is archived", "Set archive_mode = always (or on) and restart the server.")
	case mode == "on" && (nodes > 1 || n.info.InRecovery):
		n.warn("archive_mode", "on: a standby archives nothing, so that WAL which a dead primary had not archived yet is missing after a failover",
			"Set archive_mode = always on every node and restart it, one after the other.")
	default:
		n.ok("archive_mode", "%s", mode)
	}
}

func (n *node) checkArchiveCommand() {
	i := n.info
	switch command := strings.TrimSpace(i.ArchiveCommand); {
	case i.ArchiveMode == "off":
		n.skip("archive_command", "of no use while archive_mode is off")
	case i.ArchiveLibrary != "":
		n.fail("archive_library", fmt.Sprintf("%q is used, and archive_command is not", i.ArchiveLibrary), "Set archive_library = '' and reload. "+archiveCommandAdvice)
	case command == "":
		n.fail("archive_command", "empty: WAL piles up in pg_wal", archiveCommandAdvice)
	case !strings.Contains(command, "%p"):
		n.fail("archive_command", fmt.Sprintf("%q does not pass the path of the segment (%%p)", command), archiveCommandAdvice)
	case !strings.Contains(command, "walkeep"):
		n.warn("archive_command", fmt.Sprintf("%q does not call walkeep, by its name", command), "If it is no wrapper around walkeep-wal: "+archiveCommandAdvice)
	default:
		n.ok("archive_command", "%s", command)
	}
}

func (n *node) checkFullPageWrites(nodes int) {
	const advice = "Set full_page_writes = on and reload, unless the file system never tears a page of 8 kB."
	switch {
	case n.info.FullPageWrites:
		n.ok("full_page_writes", "on")
	case !n.info.InRecovery && nodes > 1:
		n.fail("full_page_writes", "off on the primary: backups of its standbys are refused", "Set full_page_writes = on and reload.")
	default:
		n.warn("full_page_writes", "off: pages torn by a crash cannot be repaired, and standbys of this server cannot be backed up", advice)
	}
}

// checkCluster is what concerns all nodes together.
func (o Options) checkCluster(nodes []*node) Section {
	s := Section{Kind: KindCluster, Name: o.Cluster}
	if len(nodes) == 0 {
		s.skip("nodes", "none are configured (postgres.nodes): only the repositories were checked")
		return s
	}
	var primaries, unreached []string
	var first pg.SystemID
	for _, n := range nodes {
		switch {
		case !n.known:
			unreached = append(unreached, n.Name)
			continue
		case first == 0:
			first = n.info.SystemID
		case n.info.SystemID != first:
			s.fail("system_identifier", fmt.Sprintf("%s is of another cluster (%s) than the nodes before it (%s)", n.Name, n.info.SystemID, first),
				"One configuration is for one cluster: correct conninfo, or give the other cluster a configuration of its own.")
		}
		if !n.info.InRecovery {
			primaries = append(primaries, n.Name)
		}
	}
	switch {
	case len(primaries) == 1:
		s.ok("primary", "%s", primaries[0])
	case len(primaries) > 1:
		s.fail("primary", strings.Join(primaries, " and ")+" are both primaries",
			"Find out which is the right one, and stop the other before both archive: an old primary that came back must be rewound (pg_rewind).")
	case len(unreached) > 0:
		s.skip("primary", "none found, but not all nodes could be asked: %s", strings.Join(unreached, ", "))
	default:
		s.warn("primary", "all nodes are standbys, so archiving cannot be tried", "Add the primary to postgres.nodes, if there is one.")
	}
	return s
}
