package kube

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/walkeep/walkeep/integration/walkeep"
)

func TestMain(m *testing.M) {
	code := m.Run()
	walkeep.Clean()
	os.Exit(code)
}

const (
	manifests = "../../deploy/kubernetes"
	namespace = "postgres" // of the manifests
	account   = "hippo-walkeep"
)

func inManifests(name string) string { return filepath.Join(manifests, name) }

// testManifests: all of them are accepted, strictly and without a warning, twice;
// and so is a pod of each template, which Pod Security Admission judges.
func testManifests(t *testing.T, c *Cluster) {
	paths, err := filepath.Glob(inManifests("*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	c.Apply(t, paths...)
	c.Apply(t, paths...)
	pods := 0
	for _, path := range paths {
		for _, o := range Documents(t, path) {
			pod := podOf(t, o)
			if pod == nil {
				continue
			}
			pods++
			c.said.take()
			_, err := c.Resource("", "v1", "pods").Namespace(namespace).Create(t.Context(), pod, meta.CreateOptions{FieldValidation: meta.FieldValidationStrict})
			require.NoError(t, err, path)
			require.Empty(t, c.said.take(), path)
			// It is this admission that lets it in: it refuses the same pod as root.
			root := pod.DeepCopy()
			root.SetName(root.GetName() + "-root")
			require.NoError(t, unstructured.SetNestedField(root.Object, false, "spec", "securityContext", "runAsNonRoot"))
			_, err = c.Resource("", "v1", "pods").Namespace(namespace).Create(t.Context(), root, meta.CreateOptions{})
			require.True(t, apierrors.IsForbidden(err), "%s: %v", path, err)
			require.ErrorContains(t, err, "restricted")
		}
	}
	require.Equal(t, 3, pods)

	// A misspelled field is found.
	wrong := Documents(t, inManifests("serve.yaml"))[0]
	require.NoError(t, unstructured.SetNestedField(wrong.Object, true, "spec", "template", "spec", "hostNetworks"))
	b, err := wrong.MarshalJSON()
	require.NoError(t, err)
	_, err = c.Resource("apps", "v1", "deployments").Namespace(namespace).Patch(t.Context(), wrong.GetName(), "application/apply-patch+yaml", b,
		meta.PatchOptions{FieldManager: "test", FieldValidation: meta.FieldValidationStrict})
	require.ErrorContains(t, err, "hostNetworks")
}

// podOf makes the pod that a controller would make of a template; nil if there is
// none.
func podOf(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	template, ok, err := unstructured.NestedMap(o.Object, "spec", "template")
	require.NoError(t, err)
	if !ok {
		return nil
	}
	pod := &unstructured.Unstructured{Object: template}
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetName(o.GetName() + "-" + "0")
	pod.SetNamespace(o.GetNamespace())
	claims, _, err := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
	require.NoError(t, err)
	volumes, _, err := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	require.NoError(t, err)
	for _, c := range claims {
		name, _, err := unstructured.NestedString(c.(map[string]any), "metadata", "name")
		require.NoError(t, err)
		volumes = append(volumes, map[string]any{"name": name, "persistentVolumeClaim": map[string]any{"claimName": name + "-" + pod.GetName()}})
	}
	require.NoError(t, unstructured.SetNestedSlice(pod.Object, volumes, "spec", "volumes"))
	return pod
}

// testRights: the service account of the service may do what the program does, and
// nothing else; that of the servers nothing at all.
func testRights(t *testing.T, c *Cluster) {
	const coordination = "coordination.k8s.io"
	lease := func(verb, namespace, name string) Access {
		return Access{Verb: verb, Group: coordination, Resource: "leases", Namespace: namespace, Name: name}
	}
	may := []Access{
		lease("get", namespace, account), lease("update", namespace, account), lease("create", namespace, ""),
		{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"},
	}
	mayNot := []Access{
		lease("get", namespace, "another"), lease("update", namespace, "another"), lease("delete", namespace, account),
		lease("patch", namespace, account), lease("list", namespace, ""), lease("watch", namespace, ""), lease("get", "kube-system", account),
		lease("create", "kube-system", ""),
		{Verb: "get", Resource: "secrets", Namespace: namespace, Name: account},
		{Verb: "list", Resource: "pods", Namespace: namespace},
		{Verb: "create", Resource: "pods", Namespace: namespace},
		{Verb: "create", Resource: "serviceaccounts", Namespace: namespace, Name: account, Subresource: "token"},
		{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
		{Verb: "update", Group: "rbac.authorization.k8s.io", Resource: "roles", Namespace: namespace, Name: account},
		{Verb: "*", Group: "*", Resource: "*"},
	}
	for _, a := range may {
		require.True(t, c.May(t, namespace, account, a), "%+v", a)
		require.False(t, c.May(t, namespace, "hippo-instance", a), "%+v", a)
		require.False(t, c.May(t, "default", account, a), "%+v", a)
	}
	for _, a := range mayNot {
		require.False(t, c.May(t, namespace, account, a), "%+v", a)
	}
}
