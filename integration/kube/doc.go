// Package kube starts a real kube-apiserver with etcd below it, on loopback and
// random ports, with RBAC on, and has the tests of all that walkeep says to
// Kubernetes: manifests, rights, Lease, TokenReview.
//
//	cluster := kube.Start(t)
//	cluster.Namespace(t, "postgres")
//	cluster.Apply(t, "../../deploy/kubernetes/rbac.yaml")
//
// There is nothing else of Kubernetes: no scheduler, no controllers, no kubelet.
// What they would do with a manifest (make pods of a template) tests do themselves.
//
// kube-apiserver is installed into .cache/bin of the checkout by
// scripts/install-kube.sh ("make tools").
package kube
