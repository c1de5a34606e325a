package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	coordination "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ClientOptions of Connect.
type ClientOptions struct {
	// Kubeconfig says where the API server is, and who asks. "": the service
	// account of the pod that this process runs in.
	Kubeconfig string
	// Namespace of what is asked for; "": that of the pod, or of Kubeconfig.
	Namespace string
	UserAgent string
}

// Client asks the API server. Each answer is waited for shortly only.
type Client struct {
	coordination   rest.Interface
	authentication rest.Interface
	namespace      string
}

// answerTime bounds one request.
const answerTime = 5 * time.Second

// namespaceFile is where Kubernetes says which namespace a pod is in.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Connect reads where the API server is. Nothing is asked of it yet.
func Connect(o ClientOptions) (*Client, error) {
	config, namespace, err := o.load()
	if err != nil {
		return nil, fmt.Errorf("find the API server of Kubernetes: %w", err)
	}
	config.Timeout = answerTime
	config.UserAgent = o.UserAgent
	config.QPS = -1 // who asks bounds himself how often
	config.WarningHandler = rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := errors.Join(coordination.AddToScheme(scheme), authentication.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	group := func(version schema.GroupVersion) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = "/apis", &version, codecs.WithoutConversion()
		return rest.RESTClientFor(c)
	}
	c := &Client{namespace: namespace}
	if c.coordination, err = group(coordination.SchemeGroupVersion); err != nil {
		return nil, fmt.Errorf("set up a client of Kubernetes: %w", err)
	}
	if c.authentication, err = group(authentication.SchemeGroupVersion); err != nil {
		return nil, fmt.Errorf("set up a client of Kubernetes: %w", err)
	}
	return c, nil
}

func (o ClientOptions) load() (config *rest.Config, namespace string, err error) {
	if o.Kubeconfig == "" {
		if config, err = rest.InClusterConfig(); err != nil || o.Namespace != "" {
			return config, o.Namespace, err
		}
		b, err := os.ReadFile(namespaceFile)
		return config, strings.TrimSpace(string(b)), err
	}
	file := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: o.Kubeconfig}, &clientcmd.ConfigOverrides{})
	if config, err = file.ClientConfig(); err != nil || o.Namespace != "" {
		return config, o.Namespace, err
	}
	namespace, _, err = file.Namespace()
	return config, namespace, err
}
