// Package kubernetes is all that walkeep says to the API server of a Kubernetes
// cluster: who is to lead (Lease), and whose a bearer token is (TokenReview).
// Nothing else of ours imports client-go.
//
// # Who is to lead
//
// [Election] implements [service.Election] with a Lease of coordination.k8s.io, so
// that `kubectl get lease` shows who leads, and that a dead leader is replaced
// sooner than its leases in the repositories go stale. It gives no right to
// write: that stays with the leases in the repositories (package service). So
// nothing here has to be safe against pauses and partitions, and an API server that
// does not answer stops no backup:
//
//	API server away, leader alive    it goes on, on its leases in the repositories
//	API server away, leader killed   another leads when the repositories were without a leader
//	                                 for three times service.lease
//	API server away from the leader  another is elected, and deposes it in the repositories
//	the elected one does not lead    another does, as above; the elected one deposes it
//	                                 when it sees the repositories again
//	rights are missing               as if the API server were away
//
// The holder is a process; one that is started again is another. A holder that the API server did not hear
// of for [Election]'s duration, by the clock of whoever watches, is replaced;
// clocks are never compared. After a break in which the API server was not
// there the duration begins again, so that its restart does not change the leader.
//
// # Whose a token is
//
// [Reviewer] is an [api.Authenticator]. A token that is not a JSON web token for our
// audience is never sent to the API server: it may be one of a token file, and is
// none of Kubernetes' business. The audience keeps a token that was sent to us
// from being of use elsewhere. What the API server says is remembered for a
// minute at most, for so many tokens at most; while it cannot be asked, nobody is
// let in who is not remembered.
package kubernetes
