// Package cluster knows the servers of a cluster: which there are, by
// configuration or through Patroni, how each is doing, where the cluster is,
// and which of them a backup is best read from.
//
// What is found out is true for a moment. Who acts on it asks the server that he
// acts on again: a backup of a standby that was promoted meanwhile fails, and is
// taken again.
package cluster
