package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walkeep/walkeep/pg"
	"github.com/walkeep/walkeep/repo"
	"github.com/walkeep/walkeep/repo/object"
)

// repository is a repository and what was found out about it.
type repository struct {
	Section
	repo *repo.Repository
	// answers says that the store could be asked, and the place is ours.
	answers bool
}

// checkRepository does what concerns one repository alone.
func (o Options) checkRepository(ctx context.Context, r *repo.Repository) *repository {
	p := &repository{Section: Section{Kind: KindRepository, Name: r.Name(), Place: r.Store().String()}, repo: r}
	marker, err := r.Marker(ctx)
	switch {
	case errors.Is(err, repo.ErrMismatch):
		p.ok("reachable", "it answers")
		p.failErr("cluster", err, "Correct cluster, prefix or encryption of the repository in the configuration, or use another place. Nothing was written.")
		return p // what follows writes
	case errors.Is(err, repo.ErrIntegrity):
		p.ok("reachable", "it answers")
		p.failErr("cluster", err, "The object that says whose repository this is (walkeep, below the prefix) is damaged: restore it from an older version or a copy of the bucket.")
		return p
	case errors.Is(err, repo.ErrNotFound):
		p.ok("reachable", "it answers")
		p.ok("cluster", "new: nothing was stored here yet")
	case err != nil:
		p.failErr("reachable", err, storeAdvice(err, "read"))
		return p
	default:
		p.ok("reachable", "it answers")
		p.ok("cluster", "%s, since %s", marker.Cluster, marker.Created.UTC().Format("2006-01-02"))
	}
	p.answers = true
	p.checkEncryption(marker)
	o.probeStore(ctx, p)
	return p
}

func (p *repository) checkEncryption(marker repo.Marker) {
	if !p.repo.Encrypted() {
		p.ok("encryption", "none configured")
		return
	}
	keys, err := p.repo.ProbeKeys()
	switch {
	case err != nil:
		p.failErr("encryption", err, "Correct the keys under encryption of the repository.")
		return
	case !keys.ReadsMetadata:
		p.warn("encryption", "can write, and read nothing back: no identity for metadata is configured here",
			"Set metadata-identity-file on nodes (identity-file where restores run): without it backups cannot be listed, nor archived segments compared.")
		return
	case marker.Encryption != nil && !keys.SameAs(marker.Encryption):
		p.warn("encryption", "other recipients are configured than when the repository was made: "+strings.Join(marker.Encryption.Recipients, ", "),
			"Keep the old identities for as long as objects from that time are needed: add them to identity-file, one a line.")
		return
	case !keys.ReadsData:
		p.ok("encryption", "writes data, reads metadata; to restore, the identity of %s is needed", strings.Join(keys.Recipients, " or "))
		return
	}
	p.ok("encryption", "writes and reads")
}

// checkEpoch compares what is stored with the servers.
func (p *repository) checkEpoch(ctx context.Context, nodes []*node) {
	if !p.answers {
		return
	}
	infos, err := p.repo.Epochs(ctx)
	switch {
	case errors.Is(err, repo.ErrNoIdentity):
		if !p.repo.Encrypted() {
			p.failErr("epoch", err, "Configure encryption for the repository.")
			return
		}
		// Said already, unless there are identities and they do not fit.
		if keys, probeErr := p.repo.ProbeKeys(); probeErr == nil && keys.ReadsMetadata {
			p.failErr("epoch", err, "Add the identity that the repository was written for to metadata-identity-file or identity-file.")
		}
		return
	case errors.Is(err, repo.ErrIntegrity):
		p.failErr("epoch", err, "Restore the object from an older version or a copy of the bucket; backups and WAL beside it are not affected.")
		return
	case err != nil:
		p.failErr("epoch", err, storeAdvice(err, "list"))
		return
	}
	var known []string
	ids := map[pg.SystemID]repo.EpochInfo{}
	for _, i := range infos {
		ids[i.SystemID] = i
		known = append(known, i.SystemID.String())
	}
	if len(infos) > 0 {
		p.checkConflicts(ctx, infos[len(infos)-1].SystemID)
	}
	at := slices.IndexFunc(nodes, func(n *node) bool { return n.known })
	switch {
	case len(infos) == 0:
		p.ok("epoch", "none yet")
	case at < 0:
		p.ok("epoch", "holds %s", strings.Join(known, ", "))
	default:
		p.compareEpoch(ids, nodes[at], known)
	}
}

// checkConflicts says whether two servers have written one timeline.
func (p *repository) checkConflicts(ctx context.Context, id pg.SystemID) {
	all, err := p.repo.Epoch(id).Conflicts(ctx, 0)
	if err != nil {
		p.failErr("conflicts", err, storeAdvice(err, "list"))
		return
	}
	for _, c := range all {
		if c.History() {
			p.fail("conflicts", fmt.Sprintf("two servers chose timeline %d: a second %s (xxh3 %s) is under conflict/", c.Name.Timeline(), c.Name.Name, c.Name.Conflict),
				"Decide which of them is the cluster and stop the other: only the WAL of the one that was first is restored from. Then take a full backup.")
			return
		}
	}
	if len(all) > 0 {
		p.warn("conflicts", fmt.Sprintf("%d files were archived with two contents, %s first: two servers wrote the same timeline", len(all), all[0].Name.File()),
			"Find the second server (an old primary, or a clone that archives here), and stop it or its archiving. What it archived is kept under conflict/; walkeep wal status lists it.")
	}
}

func (p *repository) compareEpoch(ids map[pg.SystemID]repo.EpochInfo, n *node, known []string) {
	i, ok := ids[n.info.SystemID]
	switch {
	case !ok:
		p.warn("epoch", fmt.Sprintf("holds %s, and nothing of the cluster that runs now (%s)", strings.Join(known, ", "), n.info.SystemID),
			"Right after pg_upgrade or a new initdb that is as it should be: take a full backup. Else conninfo or the repository is another cluster's.")
	case i.PGMajor != n.info.Major || i.SegmentSize != n.info.SegmentSize:
		p.fail("epoch", fmt.Sprintf("holds PostgreSQL %d with WAL segments of %d bytes, the server is %d with %d", i.PGMajor, i.SegmentSize, n.info.Major, n.info.SegmentSize),
			"wal_segment_size was changed with pg_resetwal: use another place or prefix for what follows.")
	default:
		p.ok("epoch", "holds this cluster (%s)", i.SystemID)
	}
}

// permissions are what a verb is called by those who grant it.
var permissions = map[string]string{
	"read":   "read objects (S3: s3:GetObject and s3:ListBucket; GCS: storage.objects.get; Azure: Storage Blob Data Contributor)",
	"write":  "write objects (S3: s3:PutObject and s3:AbortMultipartUpload; GCS: storage.objects.create and, for leases, storage.objects.delete; Azure: Storage Blob Data Contributor)",
	"list":   "list objects (S3: s3:ListBucket; GCS: storage.objects.list; Azure: Storage Blob Data Contributor)",
	"delete": "delete objects (S3: s3:DeleteObject; GCS: storage.objects.delete; Azure: Storage Blob Data Contributor)",
}

// storeAdvice is what to do about a store that refused a verb.
func storeAdvice(err error, verb string) string {
	switch {
	case errors.Is(err, object.ErrDenied):
		return "Let the credentials " + permissions[verb] + "; on a file system, the user that walkeep runs as."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "It took too long: is the store reachable from this machine, and not overloaded?"
	}
	return "Check the repository's settings (bucket, endpoint, region, path, credentials), and that the store is reachable from this machine."
}
