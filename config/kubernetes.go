package config

import (
	"fmt"
	"regexp"
	"strings"
)

// Kubernetes is what the service asks of the API server of the Kubernetes
// cluster that it runs in. It needs a service account with rights for that:
// deploy/kubernetes/rbac.yaml.
type Kubernetes struct {
	// Lease is the name of the Lease (coordination.k8s.io) that says which of
	// several services is to lead. Default: none, the repositories alone decide.
	Lease string `yaml:"lease,omitempty"`
	// Namespace is where the Lease is. Default: that of the pod.
	Namespace string `yaml:"namespace,omitempty"`
	// OperatorUsers are the users whose bearer tokens may do everything, as the API
	// server names them when it reviews a token (TokenReview), such as
	// "system:serviceaccount:postgres:hippo-operator".
	OperatorUsers []string `yaml:"operator-users,omitempty"`
	// OperatorGroups are groups whose users may do everything.
	OperatorGroups []string `yaml:"operator-groups,omitempty"`
	// ViewerUsers are users that may look and change nothing.
	ViewerUsers []string `yaml:"viewer-users,omitempty"`
	// ViewerGroups are groups whose users may look and change nothing, such as
	// "system:serviceaccounts:monitoring".
	ViewerGroups []string `yaml:"viewer-groups,omitempty"`
	// Audience is what a token has to be issued for. Default "walkeep".
	Audience string `yaml:"audience,omitempty"`
	// Kubeconfig is a file that says where the API server is, and who asks; an
	// absolute path. Default: none, the pod's service account.
	Kubeconfig string `yaml:"kubeconfig,omitempty"`
}

// Reviews reports whether tokens are reviewed.
func (k *Kubernetes) Reviews() bool {
	return len(k.OperatorUsers)+len(k.OperatorGroups)+len(k.ViewerUsers)+len(k.ViewerGroups) > 0
}

// Names of Kubernetes: a DNS subdomain for a Lease, a label for a namespace.
var (
	kubeName      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	kubeNamespace = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

const maxKubeName = 253

func (k checker) kubernetes(c *Kubernetes) {
	const field = "service.kubernetes"
	if c == nil {
		return
	}
	if c.Lease != "" && (!kubeName.MatchString(c.Lease) || len(c.Lease) > maxKubeName) {
		k.refuse(field+".lease", "found "+quote(c.Lease), "the name of a Lease: lower-case letters, digits, '-' and '.'")
	}
	if c.Namespace != "" && !(kubeNamespace.MatchString(c.Namespace) && len(c.Namespace) <= maxName) {
		k.refuse(field+".namespace", "found "+quote(c.Namespace), "a namespace: 1 to 63 lower-case letters, digits and '-'")
	}
	k.absolute(field+".kubeconfig", c.Kubeconfig)
	names := 0
	for _, l := range []struct {
		key    string
		values []string
	}{
		{"operator-users", c.OperatorUsers},
		{"operator-groups", c.OperatorGroups},
		{"viewer-users", c.ViewerUsers},
		{"viewer-groups", c.ViewerGroups},
	} {
		names += len(l.values)
		k.kubernetesNames(field+"."+l.key, l.values)
	}
	if k.present(field+".namespace") && c.Lease == "" {
		k.refuse(field+".namespace", "found the namespace of a Lease", "lease with it")
	}
	if k.present(field+".audience") && names == 0 {
		k.refuse(field+".audience", "found the audience of tokens that nobody may use", "operator-users, operator-groups, viewer-users or viewer-groups with it")
	}
	if c.Lease == "" && names == 0 && !k.refused(k.positions[field]) {
		k.refuse(field, "found nothing to ask Kubernetes for", "lease, or who may use the API: operator-users, operator-groups, viewer-users, viewer-groups")
	}
}

// kubernetesNames refuses what would let in everybody: a name that stands for
// those who did not say who they are.
func (k checker) kubernetesNames(field string, names []string) {
	if k.isEmptyList(field, len(names)) {
		k.refuse(field, "found an empty list", "names of users or groups as Kubernetes spells them")
	}
	for i, n := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case n == "system:anonymous" || n == "system:unauthenticated":
			k.refuse(at, "found "+quote(n)+", which is everybody", "names of users or groups that prove who they are")
		case strings.TrimSpace(n) != n || n == "*":
			k.refuse(at, "found "+quote(n), "a name as Kubernetes spells it")
		}
	}
}
