// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/flowcontrol"
)

// Client talks to the Kubernetes API about the few resources that a Service proxy has
// to do with. The clientset of client-go knows all there are: their types alone are
// several megabytes of the program, and of the memory that each node spends on it.
type Client struct {
	core, discovery, networking, events rest.Interface
	protobuf                            bool // is what is asked for
}

// NewClientFor returns a client with a configuration like that of ClientConfig. As with
// client-go's clientset all requests share one pool of connections, and one limit of
// their rate if config has one.
func NewClientFor(config *rest.Config) (*Client, error) {
	shared := *config
	shared.NegotiatedSerializer = newCodecs()
	if shared.UserAgent == "" {
		shared.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if shared.RateLimiter == nil && shared.QPS > 0 {
		if shared.Burst <= 0 {
			return nil, errors.New("burst is required to be greater than 0 when RateLimiter is not set and QPS is set to greater than 0")
		}
		shared.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(shared.QPS, shared.Burst)
	}
	connections, err := rest.HTTPClientFor(&shared)
	if err != nil {
		return nil, err
	}
	asked, _, _ := strings.Cut(cmp.Or(shared.AcceptContentTypes, shared.ContentType), ",")
	c := &Client{protobuf: asked == runtime.ContentTypeProtobuf}
	for _, group := range []struct {
		client  *rest.Interface
		version schema.GroupVersion
		path    string
	}{
		{&c.core, corev1.SchemeGroupVersion, "/api"},
		{&c.discovery, discoveryv1.SchemeGroupVersion, "/apis"},
		{&c.networking, networkingv1.SchemeGroupVersion, "/apis"},
		{&c.events, eventsv1.SchemeGroupVersion, "/apis"},
	} {
		own := shared
		own.GroupVersion, own.APIPath = &group.version, group.path
		if *group.client, err = rest.RESTClientForConfigAndClient(&own, connections); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Events is the client of events.k8s.io/v1.
func (c *Client) Events() rest.Interface { return c.events }

// known are the types that cross the wire, with the options and answers that are the
// same for all.
var (
	known      = knownTypes()
	parameters = runtime.NewParameterCodec(known)
)

func knownTypes() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Service{}, &corev1.ServiceList{}, &corev1.Node{}, &corev1.NodeList{})
	s.AddKnownTypes(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{})
	s.AddKnownTypes(networkingv1.SchemeGroupVersion, &networkingv1.ServiceCIDR{}, &networkingv1.ServiceCIDRList{})
	s.AddKnownTypes(eventsv1.SchemeGroupVersion, &eventsv1.Event{})
	for _, version := range s.PreferredVersionAllGroups() {
		metav1.AddToGroupVersion(s, version)
	}
	return s
}

// resource is one of those that a proxy follows.
type resource struct {
	client   rest.Interface
	name     string
	kind     *streamed
	protobuf bool
}

func (c *Client) services() resource {
	return resource{c.core, "services", kindNamed("Service"), c.protobuf}
}
func (c *Client) nodes() resource { return resource{c.core, "nodes", kindNamed("Node"), c.protobuf} }
func (c *Client) slices() resource {
	return resource{c.discovery, "endpointslices", kindNamed("EndpointSlice"), c.protobuf}
}
func (c *Client) serviceCIDRs() resource {
	return resource{c.networking, "servicecidrs", kindNamed("ServiceCIDR"), c.protobuf}
}

// listWatch asks for one resource in all namespaces; L is its list. Requests are
// narrowed by the selectors in narrow.
func listWatch[L any, P interface {
	*L
	runtime.Object
}](r resource, narrow metav1.ListOptions) *cache.ListWatch {
	get := func(o metav1.ListOptions) *rest.Request {
		o.FieldSelector, o.LabelSelector = narrow.FieldSelector, narrow.LabelSelector
		var limit time.Duration
		if o.TimeoutSeconds != nil {
			limit = time.Duration(*o.TimeoutSeconds) * time.Second
		}
		return r.client.Get().Resource(r.name).VersionedParams(&o, parameters).Timeout(limit)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := P(new(L))
			return list, get(o).Do(ctx).Into(list)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			if o.SendInitialEvents == nil || !r.protobuf {
				return get(o).Watch(ctx)
			}
			return startListing(ctx, r.kind, get(listOptions(o)).Stream)
		},
	}
}

// listOptions ask for what a watch would begin with.
func listOptions(o metav1.ListOptions) metav1.ListOptions {
	list := metav1.ListOptions{ResourceVersion: o.ResourceVersion}
	if o.ResourceVersion != "" {
		list.ResourceVersionMatch = o.ResourceVersionMatch
	}
	return list
}
