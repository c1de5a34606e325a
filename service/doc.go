// Package service is the engine of `walkeep serve`: it looks at the
// repositories and nodes of one cluster, runs what is scheduled, and implements
// [api.Service], through which REST, web page and metrics see it.
//
// # Who leads
//
// Several services may run for one cluster; one leads. There is a lease "service"
// in every repository, and a run of a repository starts only while its lease is
// held and was found to be ours a moment before. So the right to change a repository
// lies in that repository: one that is away is worked on by nobody, and holds
// nothing back in the others.
//
// A service campaigns for the lease of the first repository, and for that of
// the next one only if the first does not answer. Who has got one takes the
// others too. If two services lead, because each sees another part of the
// repositories, then each the ones whose leases it holds; when they see the same
// again, the one that holds the lease of the earlier repository goes on, and the
// other gives its leases up.
//
// # With an election
//
// In a Kubernetes cluster [Options.Election] says who is to lead: who is elected
// takes the leases at once, also from a leader that lives (it finds that at its next
// renewal, and at the fence before that), and who is not stands back. So a leader
// that dies is replaced as quickly as it is known to Kubernetes. The election gives no right,
// and takes none: a run starts under the lease of its repository, as everywhere.
// Therefore nothing is lost with an election that cannot be held. A leader
// that is not elected any more goes on until it is deposed; and if no
// lease was held or renewed in the first repository that answers for three times
// as long as it lasts, whoever sees that leads, elected or not. That covers an API server
// that is away, rights that are missing, and an elected service that does not
// see the repositories.
//
// # What survives whom
//
//   - History, pauses, idempotency keys are in the repositories.
//   - A backup that an agent takes belongs to the agent. The service follows it, and
//     stops following when it ends or is no longer the leader; the next leader finds it by the
//     id of the run, which is among the annotations of the backup (RunAnnotation),
//     and goes on following. If the agent is gone, a backup with that annotation
//     tells that it was finished; else the run is lost, and tried again.
//   - A backup that the service takes itself, beside a local data directory, ends
//     with its process. A leader that finds it running in another process waits
//     for it.
//   - What runs goes on when the lease is lost: it is fenced by leases of its own
//     (backup, expire, label), and only starting needs the lead.
//
// # The old leader that wakes up
//
// A process that was stopped for longer than the lease lasts, and then goes on,
// finds its lease gone before it starts anything: the fence reads the lease's object. Should it
// be stopped right between the fence and the start, then the agent refuses a
// second backup into a repository, backups exclude one another by a lease in
// the repository, and an expiry takes its own lease and asks for it before
// every batch.
//
// # Looking
//
// State is a [api.Snapshot], made anew when something changes. Nothing is read
// twice: summaries, history files and heads of segments are immutable and
// remembered; which segments are there is remembered as repo.RunCache does. A
// repository that does not answer keeps what was known of it.
package service
