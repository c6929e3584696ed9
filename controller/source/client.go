// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"

	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNoCluster says that nothing tells where the Kubernetes API is.
var ErrNoCluster = errors.New("no Kubernetes API to talk to: give a kubeconfig, or run in a pod with a service account")

// ClientOptions say how to reach the Kubernetes API.
type ClientOptions struct {
	Kubeconfig string  // path; empty = the configuration that every pod is given
	Server     string  // URL that overrides the one in the kubeconfig; empty = no override
	Version    string  // ours, for the user agent; empty = "dev"
	QPS        float32 // requests a second; 0 = client-go's default
	Burst      int     // requests at once; 0 = client-go's default
}

// NewClient returns a client of the Kubernetes API. It opens no connection.
func NewClient(opts ClientOptions) (kubernetes.Interface, error) {
	config, err := ClientConfig(opts)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", err)
	}
	return client, nil
}

// ClientConfig returns the configuration that NewClient uses. It speaks
// protobuf, which costs the API server and us a fraction of JSON, and falls back
// to JSON where the other end does not. The error is ErrNoCluster when opts name
// no cluster and this is no pod.
func ClientConfig(opts ClientOptions) (*rest.Config, error) {
	config, err := loadConfig(opts)
	if err != nil {
		return nil, err
	}
	config.ContentType = k8sruntime.ContentTypeProtobuf
	config.AcceptContentTypes = k8sruntime.ContentTypeProtobuf + "," + k8sruntime.ContentTypeJSON
	config.UserAgent = fmt.Sprintf("kube-nft/%s (%s/%s)", cmp.Or(opts.Version, "dev"), runtime.GOOS, runtime.GOARCH)
	config.QPS = opts.QPS
	config.Burst = opts.Burst
	return config, nil
}

// loadConfig finds the cluster. The ~/.kube/config of whoever runs this is left
// alone: an agent that programs a host's kernel does not guess its cluster.
func loadConfig(opts ClientOptions) (*rest.Config, error) {
	if opts.Kubeconfig == "" && opts.Server == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, ErrNoCluster
		}
		if err != nil {
			return nil, fmt.Errorf("read the pod's service account: %w", err)
		}
		return config, nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: opts.Kubeconfig}
	overrides := &clientcmd.ConfigOverrides{}
	overrides.ClusterInfo.Server = opts.Server
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %q: %w", opts.Kubeconfig, err)
	}
	return config, nil
}
