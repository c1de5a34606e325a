package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/walkeep/walkeep/api"
	"github.com/walkeep/walkeep/config"
	"github.com/walkeep/walkeep/kubernetes"
	"github.com/walkeep/walkeep/service"
)

// kubernetesParts are what the service has of the Kubernetes cluster that it runs in;
// nil: none.
type kubernetesParts struct {
	election service.Election
	reviewer api.Authenticator
}

// kubernetes sets up what the configuration wants of Kubernetes.
func (r *root) kubernetes(cfg *config.Config, host string) (c kubernetesParts, err error) {
	k := cfg.Service.Kubernetes
	if k == nil {
		return c, nil
	}
	client, err := kubernetes.Connect(kubernetes.ClientOptions{
		Kubeconfig: k.Kubeconfig, Namespace: k.Namespace, UserAgent: "walkeep/" + thisVersion().Version,
	})
	if err != nil {
		return c, fmt.Errorf("service.kubernetes: %w", err)
	}
	if k.Lease != "" {
		c.election, err = kubernetes.NewElection(kubernetes.ElectionOptions{
			Client: client, Lease: k.Lease,
			// Pods can share a host name, and all are process 1.
			Identity: fmt.Sprintf("%s_%d_%s", host, os.Getpid(), rand.Text()[:8]),
			TTL:      time.Duration(cfg.Service.Lease), Log: r.logger(),
		})
		if err != nil {
			return kubernetesParts{}, fmt.Errorf("service.kubernetes: %w", err)
		}
	}
	if k.Reviews() {
		c.reviewer = kubernetes.NewReviewer(kubernetes.ReviewerOptions{
			Client: client, Audience: k.Audience, Log: r.logger(),
			Operators: kubernetes.Subjects{Users: k.OperatorUsers, Groups: k.OperatorGroups},
			Viewers:   kubernetes.Subjects{Users: k.ViewerUsers, Groups: k.ViewerGroups},
		})
	}
	return c, nil
}
