// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// What we ask the API server for. A Service that comes to carry the label of
// another proxy leaves the selection, which the server reports as its deletion.
const (
	serviceFields = "spec.clusterIP!=None"
	sliceSelect   = "!" + corev1.IsHeadlessService
)

// serviceSelect selects the Services of a proxy by their label; those without one are
// the cluster's own proxy's, which has no name (KEP-2447).
func serviceSelect(proxy string) string {
	if proxy == "" {
		return "!" + labelServiceProxyName
	}
	return labelServiceProxyName + "=" + proxy
}

// apiBackoff spaces out attempts while the API server does not answer. client-go
// would go up to a minute; a node that learns that late about dead endpoints
// sends traffic to them, and recovery may take several attempts, one behind the
// other. So we stop at 4 s, spread by up to as much again.
var apiBackoff = wait.Backoff{Duration: 400 * time.Millisecond, Cap: 4 * time.Second, Steps: 5, Factor: 2, Jitter: 1}

// APIOptions configure the API source.
type APIOptions struct {
	NodeName string       // the node to follow; empty = none
	Logger   *slog.Logger // nil = slog.Default()
	// ProxyName is what a Service's label service.kubernetes.io/service-proxy-name must
	// say. Empty = those without the label. With a name there is another proxy for all
	// other Services, and ServiceCIDRs, which are about them too, are not followed.
	ProxyName string
	// Server is the API server's address, to warn of one that is a Service's; empty =
	// not known.
	Server string
}

// API returns a Source that follows the Kubernetes API: Services but for the
// headless and those of other proxies, their EndpointSlices, one Node, and
// ServiceCIDRs if there are any.
//
// It keeps no objects, only the names of those it delivered: a list after a lost
// watch tells with them which objects went away meanwhile. Lists are read, and
// objects are stripped, as they come off the wire. Run
// never gives up; that the server does not answer is logged when it begins and
// when it ends.
func API(client *Client, opts APIOptions) Source {
	opts.Logger = cmp.Or(opts.Logger, slog.Default())
	return &api{client: client, opts: opts, backoff: apiBackoff, optionalBackoff: optionalBackoff}
}

type api struct {
	client                   *Client
	opts                     APIOptions
	backoff, optionalBackoff wait.Backoff
}

// Run implements Source.
func (a *api) Run(ctx context.Context, sink Sink) error {
	reach := &reachability{log: a.opts.Logger, failing: map[string]string{}}
	synced := &latch{left: 3, done: sink.Synced}
	logger := logr.FromSlogHandler(quiet{a.opts.Logger.Handler()})
	ctx = logr.NewContext(ctx, logger)

	note := func(resource string) func(context.Context, error) {
		return func(ctx context.Context, err error) { reach.note(ctx, resource, err) }
	}
	listed := func(resource string, first func()) func() {
		first = sync.OnceFunc(first)
		return func() {
			reach.note(ctx, resource, nil)
			first()
		}
	}
	setService := a.warnOfServiceAddress(sink.SetService)
	reflectors := []*cache.Reflector{
		a.reflect("services", &corev1.Service{}, a.services(), &store[*corev1.Service]{
			strip: StripService, set: setService, gone: sink.DeleteService, goneFirst: true,
			listed: listed("services", synced.count)}, a.backoff, note("services")),
		a.reflect("endpointslices", &discoveryv1.EndpointSlice{}, a.slices(), &store[*discoveryv1.EndpointSlice]{
			strip: StripSlice, set: sink.SetSlice, gone: sink.DeleteSlice,
			listed: listed("endpointslices", synced.count)}, a.backoff, note("endpointslices")),
	}
	if a.opts.ProxyName == "" {
		reflectors = append(reflectors, a.serviceCIDRs(sink))
	}
	// The Node counts too, or a restart would serve node ports on a guess until it
	// comes. But a server that keeps it from us must not keep all else from the
	// kernel: the first refusal is an answer.
	node := sync.OnceFunc(synced.count)
	if a.opts.NodeName == "" {
		node()
	} else {
		presence := nodePresence{log: a.opts.Logger, name: a.opts.NodeName}
		own := listed("nodes", node)
		reflectors = append(reflectors, a.reflect("nodes", &corev1.Node{}, refusable(a.node(), node), &store[*corev1.Node]{
			strip: StripNode,
			set:   func(n *corev1.Node) { presence.note(true); sink.SetNode(n) },
			gone:  func(types.NamespacedName) { presence.note(false); sink.DeleteNode() },
			// A streamed list that is empty sets nothing.
			listed: func() { presence.note(presence.is); own() },
		}, a.backoff, note("nodes")))
	}
	var wg sync.WaitGroup
	for _, r := range reflectors {
		wg.Go(func() { r.RunWithContext(ctx) })
	}
	wg.Wait()
	return nil
}

func (a *api) services() *cache.ListWatch {
	return listWatch[corev1.ServiceList](a.client.services(),
		metav1.ListOptions{FieldSelector: serviceFields, LabelSelector: serviceSelect(a.opts.ProxyName)})
}

func (a *api) slices() *cache.ListWatch {
	return listWatch[discoveryv1.EndpointSliceList](a.client.slices(), metav1.ListOptions{LabelSelector: sliceSelect})
}

func (a *api) node() *cache.ListWatch {
	own := fields.OneTermEqualSelector(metav1.ObjectNameField, a.opts.NodeName).String()
	return listWatch[corev1.NodeList](a.client.nodes(), metav1.ListOptions{FieldSelector: own})
}

// refusable calls refused when the server refuses to list.
func refusable(lw *cache.ListWatch, refused func()) *cache.ListWatch {
	list := lw.ListWithContextFunc
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		objects, err := list(ctx, o)
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			refused()
		}
		return objects, err
	}
	return lw
}

// reflect makes the reflector that feeds a store. The outcome of every request
// passes by note, because a Reflector has no other way to tell its user how it
// fares.
func (a *api) reflect(name string, example runtime.Object, lw *cache.ListWatch, s cache.ReflectorStore,
	backoff wait.Backoff, note func(context.Context, error),
) *cache.Reflector {
	watched := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := lw.ListWithContext(ctx, o)
			note(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := lw.WatchWithContext(ctx, o)
			if o.SendInitialEvents != nil {
				return w, plainListNext(err) // begun is not half done: the store tells when it is complete
			}
			note(ctx, err)
			return w, err
		},
	}
	logger := logr.FromSlogHandler(quiet{a.opts.Logger.Handler()})
	return cache.NewReflectorWithOptions(watched, example, s,
		cache.ReflectorOptions{Name: name, Logger: &logger, Backoff: &backoff})
}

// plainListNext makes the reflector try a plain list after a streamed one was
// refused, and so lets the list say what is wrong: a server may only lack
// streaming. A refused connection must change its type for that. client-go
// v0.37.2 would retry it in a sleep of its own that does not end with the
// context, and hold up the end of Run.
func plainListNext(err error) error {
	if err != nil && utilnet.IsConnectionRefused(err) {
		return refusedError{err.Error()}
	}
	return err
}

// refusedError is a refused connection that errors.As does not take for one.
type refusedError struct{ text string }

func (e refusedError) Error() string { return e.text }

// warnOfServiceAddress says once if the API is reached at the address of a Service,
// as a kubeconfig may have it. It works for as long as the table is there.
func (a *api) warnOfServiceAddress(set func(*corev1.Service)) func(*corev1.Service) {
	at, err := url.Parse(a.opts.Server)
	if err != nil || at.Host == "" {
		return set
	}
	server := at.Hostname()
	warn := sync.OnceFunc(func() {
		a.opts.Logger.Warn("the Kubernetes API is reached at the address of Service default/kubernetes, which is only there while this program's "+
			"table is: after a reboot nothing would be programmed; name the server's own address in the kubeconfig, or with --master", "address", server)
	})
	return func(s *corev1.Service) {
		if s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes" && slices.Contains(s.Spec.ClusterIPs, server) {
			warn()
		}
		set(s)
	}
}

// nodePresence says when there is no Node of our name, which is what a wrong name looks
// like, and when there is one again. One reflector calls it, from one goroutine at a
// time.
type nodePresence struct {
	log  *slog.Logger
	name string
	is   bool
	told bool // that it is missing
}

func (n *nodePresence) note(is bool) {
	n.is = is
	switch {
	case !is && !n.told:
		n.log.Warn("there is no Node of this name: /healthz says 503, and which endpoints are local is known by the name alone",
			"node", n.name, "mend", "give the Node's name in hostnameOverride (--hostname-override); the Node may also just not have come yet")
	case is && n.told:
		n.log.Info("there is a Node of this name now", "node", n.name)
	}
	n.told = !is
}
