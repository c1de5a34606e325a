package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// kinds are the resources of the kinds that our manifests have.
var kinds = map[string]string{
	"ConfigMap": "configmaps", "Secret": "secrets", "ServiceAccount": "serviceaccounts", "Service": "services",
	"Role": "roles", "RoleBinding": "rolebindings", "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
	"Deployment": "deployments", "StatefulSet": "statefulsets", "Job": "jobs", "PodDisruptionBudget": "poddisruptionbudgets",
}

// Object makes one from what a test writes as a map.
func Object(t *testing.T, v map[string]any) *unstructured.Unstructured {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	o := &unstructured.Unstructured{}
	require.NoError(t, o.UnmarshalJSON(b))
	return o
}

// Namespace makes a namespace in which the Pod Security Standard "restricted" is
// enforced, and what violates it in templates is warned of.
func (c *Cluster) Namespace(t *testing.T, name string) {
	t.Helper()
	labels := map[string]any{}
	for _, mode := range []string{"enforce", "warn", "audit"} {
		labels["pod-security.kubernetes.io/"+mode] = "restricted"
	}
	_, err := c.Resource("", "v1", "namespaces").Create(t.Context(), Object(t, map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name, "labels": labels},
	}), meta.CreateOptions{})
	require.NoError(t, err)
}

// Documents are the objects of a manifest.
func Documents(t *testing.T, path string) (all []*unstructured.Unstructured) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), len(b))
	for {
		o := &unstructured.Unstructured{}
		err := d.Decode(o)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err, path)
		all = append(all, o)
	}
}

// Apply applies manifests as `kubectl apply --server-side --validate=strict`
// does: a field that the API does not know, or that stands there twice, is a
// failure, and so is a warning.
func (c *Cluster) Apply(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		for _, o := range Documents(t, path) {
			what := filepath.Base(path) + " " + o.GetKind() + " " + o.GetName()
			require.Contains(t, kinds, o.GetKind())
			gv := o.GroupVersionKind()
			resource := c.Resource(gv.Group, gv.Version, kinds[o.GetKind()])
			b, err := o.MarshalJSON()
			require.NoError(t, err)
			c.said.take()
			options := meta.PatchOptions{FieldManager: "test", FieldValidation: meta.FieldValidationStrict}
			if o.GetNamespace() == "" {
				_, err = resource.Patch(t.Context(), o.GetName(), "application/apply-patch+yaml", b, options)
			} else {
				_, err = resource.Namespace(o.GetNamespace()).Patch(t.Context(), o.GetName(), "application/apply-patch+yaml", b, options)
			}
			require.NoError(t, err, what)
			require.Empty(t, c.said.take(), what)
		}
	}
}

// ServiceAccount makes one, unless it is there.
func (c *Cluster) ServiceAccount(t *testing.T, namespace, name string) {
	t.Helper()
	_, err := c.Resource("", "v1", "serviceaccounts").Namespace(namespace).Create(t.Context(), Object(t, map[string]any{
		"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": name},
	}), meta.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
}

// Token asks for a token of a service account, as the kubelet does for a pod and
// `kubectl create token` for people. No audience: that of the API server.
func (c *Cluster) Token(t *testing.T, namespace, name string, lasts time.Duration, audiences ...string) string {
	t.Helper()
	spec := map[string]any{"expirationSeconds": int(lasts.Seconds())}
	if len(audiences) > 0 {
		spec["audiences"] = audiences
	}
	o, err := c.Resource("", "v1", "serviceaccounts").Namespace(namespace).Create(t.Context(), Object(t, map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": map[string]any{"name": name}, "spec": spec,
	}), meta.CreateOptions{}, "token")
	require.NoError(t, err)
	token, ok, err := unstructured.NestedString(o.Object, "status", "token")
	require.NoError(t, err)
	require.True(t, ok)
	return token
}

// Access is something that somebody may want to do.
type Access struct {
	Verb, Group, Resource, Namespace, Name, Subresource string
}

// May asks whether RBAC lets a service account do something.
func (c *Cluster) May(t *testing.T, namespace, account string, a Access) bool {
	t.Helper()
	o, err := c.Resource("authorization.k8s.io", "v1", "subjectaccessreviews").Create(t.Context(), Object(t, map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
		"spec": map[string]any{
			"user": "system:serviceaccount:" + namespace + ":" + account,
			"groups": []string{
				"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated",
			},
			"resourceAttributes": map[string]any{
				"verb": a.Verb, "group": a.Group, "resource": a.Resource, "namespace": a.Namespace, "name": a.Name, "subresource": a.Subresource,
			},
		},
	}), meta.CreateOptions{})
	require.NoError(t, err)
	allowed, _, err := unstructured.NestedBool(o.Object, "status", "allowed")
	require.NoError(t, err)
	return allowed
}

// AwaitLease polls a Lease until it is held as the test wants, and changed
// hands as often. A request that fails is sent again.
func (c *Cluster) AwaitLease(t *testing.T, namespace, name, what string, ok func(holder string, transitions int64) bool) {
	t.Helper()
	var last any
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		o, err := c.Resource("coordination.k8s.io", "v1", "leases").Namespace(namespace).Get(t.Context(), name, meta.GetOptions{})
		if err != nil {
			last = err
			continue
		}
		holder, _, err := unstructured.NestedString(o.Object, "spec", "holderIdentity")
		require.NoError(t, err)
		transitions, _, err := unstructured.NestedInt64(o.Object, "spec", "leaseTransitions")
		require.NoError(t, err)
		if ok(holder, transitions) {
			return
		}
		last = o.Object["spec"]
	}
	require.Fail(t, "not in time: "+what, "%v", last)
}

// patience is how long anything may take on a machine that is busy.
const patience = 3 * time.Minute

// Released is for AwaitLease.
func Released(holder string, _ int64) bool { return holder == "" }
