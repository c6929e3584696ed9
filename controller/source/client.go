// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"

	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNoCluster says that nothing tells where the Kubernetes API is.
var ErrNoCluster = errors.New("no Kubernetes API to talk to: give a kubeconfig, or run in a pod with a service account")

// ErrServiceAddress says that the address of the API is that of Service
// default/kubernetes, which whoever programs Services must not depend on: without a
// table nobody would get to the API, and without the API there would be no table.
var ErrServiceAddress = errors.New("the address of the Kubernetes API is that of Service default/kubernetes, which this program is to serve itself")

// ClientOptions say how to reach the Kubernetes API.
type ClientOptions struct {
	Kubeconfig string  // path; empty = the configuration that every pod is given
	Server     string  // URL that overrides the one in the kubeconfig; empty = no override
	Version    string  // ours, for the user agent; empty = "dev"
	QPS        float32 // requests a second; 0 = client-go's default, below 0 = no limit
	Burst      int     // requests at once; 0 = client-go's default
	// ContentType is what is sent, and asked for, and AcceptContentTypes what is asked
	// for instead; empty = protobuf, and JSON where the server has no protobuf.
	ContentType, AcceptContentTypes string
}

// NewClient returns a client of the Kubernetes API, and where the server is. It opens no
// connection.
func NewClient(opts ClientOptions) (client *Client, server string, err error) {
	config, err := ClientConfig(opts)
	if err != nil {
		return nil, "", err
	}
	client, err = NewClientFor(config)
	if err != nil {
		return nil, "", fmt.Errorf("make Kubernetes client: %w", err)
	}
	return client, config.Host, nil
}

// ClientConfig returns the configuration that NewClient uses. Unless told otherwise
// it speaks protobuf, which costs the API server and us a fraction of JSON, and falls
// back to JSON where the other end does not.
//
// In a pod, without a kubeconfig, the credentials are those of its service account.
// The error is ErrNoCluster when opts name no cluster and this is no pod, and
// ErrServiceAddress when the server's address is, by a pod's environment, the Service's.
func ClientConfig(opts ClientOptions) (*rest.Config, error) {
	config, err := loadConfig(opts)
	if err != nil {
		return nil, err
	}
	config.ContentType = cmp.Or(opts.ContentType, k8sruntime.ContentTypeProtobuf)
	config.AcceptContentTypes = opts.AcceptContentTypes
	if config.AcceptContentTypes == "" && config.ContentType == k8sruntime.ContentTypeProtobuf {
		config.AcceptContentTypes = k8sruntime.ContentTypeProtobuf + "," + k8sruntime.ContentTypeJSON
	}
	config.UserAgent = fmt.Sprintf("kube-nft/%s (%s/%s)", cmp.Or(opts.Version, "dev"), runtime.GOOS, runtime.GOARCH)
	// What the server compresses it sends later than what it does not. The price is three
	// to four times the bytes of a list.
	config.DisableCompression = true
	config.QPS = opts.QPS
	config.Burst = opts.Burst
	return config, nil
}

// loadConfig finds the cluster. The ~/.kube/config of whoever runs this is left
// alone: an agent that programs a host's kernel does not guess its cluster.
func loadConfig(opts ClientOptions) (*rest.Config, error) {
	if opts.Kubeconfig == "" {
		config, err := inPod(opts.Server)
		if !errors.Is(err, ErrNoCluster) || opts.Server == "" {
			return config, err
		}
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

// inPod returns a configuration with the pod's service account.
func inPod(server string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, ErrNoCluster
	case err != nil:
		return nil, fmt.Errorf("read the pod's service account: %w", err)
	case server != "":
		config.Host = server
	}
	if serviceAddress(config.Host) {
		return nil, ErrServiceAddress
	}
	return config, nil
}

// serviceAddress reports whether a server's address is that of Service
// default/kubernetes. The kubelet tells it in several variables, of which who names the
// server itself sets only KUBERNETES_SERVICE_HOST.
func serviceAddress(server string) bool {
	service, err := url.Parse(os.Getenv("KUBERNETES_PORT"))
	if err != nil || service.Host == "" {
		return false
	}
	at, err := url.Parse(server)
	return err == nil && at.Hostname() == service.Hostname()
}
